//! What a simulated server does wrong when told so.

use super::deployer::{Deployer, PATIENCE, options, text};
use bytes::Bytes;
use flowrun::ilo::model::PowerTarget;
use flowrun::iscsi::Session;
use flowrun::lab::site::SiteOptions;

#[tokio::test(flavor = "multi_thread")]
async fn a_ramdisk_that_fails_reports_it_and_a_silent_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = SiteOptions {
        nodes: 2,
        faults: vec![
            "lab-1:node.ramdisk=fails".to_owned(),
            "lab-2:node.ramdisk=silent".to_owned(),
        ],
        ..options(dir.path())
    };
    let mut deployer = Deployer::start(faulty).await;
    let silent = deployer.boot_ramdisk(1, &deployer.parameters(1)).await;
    deployer.until_said(1, "hangs").await;
    let failing = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    let call = deployer.callback().await;
    assert_eq!(call.body["key"], "KEY0");
    assert_eq!(call.body["address"], deployer.node(0)["address"]);
    let error = text(&call.body, "/error");
    assert!(error.contains("cannot listen"), "{error}");
    deployer.until_said(0, "nothing more to do").await;
    failing.close().await.unwrap();
    silent.close().await.unwrap();
    deployer.site.stop().await;
}

/// Writes the first eight mebibytes, one after the other.
async fn write_start(session: &Session) -> flowrun::iscsi::Result<()> {
    for n in 0..8_u8 {
        let data = Bytes::from(vec![n + 1; 1 << 20]);
        session.write(u64::from(n) * 2048, data).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn power_lost_in_mid_write_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = SiteOptions {
        faults: vec!["node.power=lost-in-write".to_owned()],
        ..options(dir.path())
    };
    let mut deployer = Deployer::start(faulty).await;
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    deployer.callback().await;
    let session = Session::login(deployer.login_options(0)).await.unwrap();
    let error = write_start(&session).await.unwrap_err();
    let error = flowrun::error::Error::from(error);
    assert!(error.is_retryable(), "{error:?}");
    deployer
        .until_boot(0, "cut", |boot| boot["state"] == "power_cut")
        .await;
    ilo.set_power(PowerTarget::ForceOff, PATIENCE)
        .await
        .unwrap();
    let disk = std::fs::read(text(&deployer.node(0), "/disk")).unwrap();
    assert!(disk[4 << 20..].iter().all(|byte| *byte == 0));

    deployer.boot_cd(&ilo).await;
    deployer.callback().await;
    let session = Session::login(deployer.login_options(0)).await.unwrap();
    write_start(&session).await.unwrap();
    session.logout().await.unwrap();
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_fail_openly_or_silently() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = SiteOptions {
        nodes: 2,
        faults: vec![
            "lab-1:node.disk=fails-in-write".to_owned(),
            "lab-2:node.disk=flips-a-bit".to_owned(),
        ],
        ..options(dir.path())
    };
    let mut deployer = Deployer::start(faulty).await;
    for index in 0..2 {
        let parameters = deployer.parameters(index);
        let ilo = deployer.boot_ramdisk(index, &parameters).await;
        ilo.close().await.unwrap();
        deployer.callback().await;
    }
    let session = Session::login(deployer.login_options(0)).await.unwrap();
    let error = write_start(&session).await.unwrap_err();
    let error = flowrun::error::Error::from(error);
    assert!(!error.is_retryable(), "{error}");
    session.logout().await.unwrap();

    let session = Session::login(deployer.login_options(1)).await.unwrap();
    write_start(&session).await.unwrap();
    session.logout().await.unwrap();
    let disk = std::fs::read(text(&deployer.node(1), "/disk")).unwrap();
    let wrong = (0..8_usize << 20).filter(|at| usize::from(disk[*at]) != (at >> 20) + 1);
    assert_eq!(wrong.count(), 1);
    deployer.site.stop().await;
}
