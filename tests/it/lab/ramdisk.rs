//! The ramdisk by itself, without a machine around it.

use super::deployer::{is_open, receiver, text};
use flowrun::error::Kind;
use flowrun::iscsi::target::BlockDevice;
use flowrun::ramdisk::deploy::{self, DeployOptions, Log};
use flowrun::ramdisk::parameters::Parameters;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A disk in memory that cannot be flushed.
#[derive(Debug)]
struct BadDisk;

impl BlockDevice for BadDisk {
    fn block_bytes(&self) -> u32 {
        512
    }

    fn blocks(&self) -> u64 {
        2048
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Err(io::Error::other("no flush today"))
    }
}

/// Lines of a ramdisk.
#[derive(Debug)]
struct Lines(mpsc::UnboundedSender<String>);

impl Log for Lines {
    fn line(&self, text: &str) {
        drop(self.0.send(text.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramdisk_reports_what_goes_wrong_after_the_callback() {
    let (router, mut callbacks, _) = receiver();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    let parameters = Parameters::parse(&format!(
        "deployment_id=1be26c0b-03f2-4d2e-ae87-c02d7f33c781 deployment_key=K \
         iscsi_target_iqn=iqn.2008-10.org.openstack:x ironic_api_url=http://{api}"
    ));
    let parameters = parameters.unwrap();
    let address = "127.0.0.1".parse().unwrap();
    let options = move |log| DeployOptions {
        iscsi_port: 0,
        done_port: 0,
        log: Arc::new(Lines(log)),
        ..DeployOptions::new(parameters.clone(), Arc::new(BadDisk), address)
    };

    // Nobody ever says that it is done.
    let (log, _) = mpsc::unbounded_channel();
    let hasty = DeployOptions {
        done_deadline: Duration::from_millis(50),
        ..options(log)
    };
    let error = deploy::run(hasty).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(callbacks.recv().await.unwrap().body["error"], "");
    let report = callbacks.recv().await.unwrap().body;
    assert!(
        text(&report, "/error").contains("nobody said done"),
        "{report}"
    );

    // The disk cannot be flushed.
    let (log, mut lines) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let error = deploy::run(options(log)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
    });
    let waiting = loop {
        let line = lines.recv().await.unwrap();
        if let Some((_, port)) = line.split_once("waiting on ") {
            break port.to_owned();
        }
    };
    drop(TcpStream::connect(&waiting).await.unwrap());
    assert_eq!(callbacks.recv().await.unwrap().body["error"], "");
    let report = callbacks.recv().await.unwrap().body;
    assert!(text(&report, "/error").contains("cannot flush"), "{report}");
    assert!(!is_open(&waiting).await);
}
