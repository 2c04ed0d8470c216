//! libiscsi's tools against our target.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn libiscsi_reads_our_target() {
    let ours = Ours::start(|_| {}).await;
    let data = pattern(64 << 20, 11);
    ours.disk.write_at(0, &data).unwrap();
    let (url, folder) = (ours.url(1), ours.folder.path());

    let portal = format!("iscsi://127.0.0.1:{}", ours.port());
    let listing = succeed("iscsi-ls", &["-s", &portal], folder);
    assert!(listing.contains(IQN), "{listing}");
    assert!(listing.contains("Lun:1"), "{listing}");
    let inquiry = succeed("iscsi-inq", &[&url], folder);
    assert!(inquiry.contains("FLOWRUN"), "{inquiry}");
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        let page = u8::from_str_radix(&page[2..], 16).unwrap().to_string();
        succeed("iscsi-inq", &["-e", "1", "-c", &page, &url], folder);
    }
    let capacity = succeed("iscsi-readcapacity16", &[&url], folder);
    assert!(capacity.contains("Total size:67108864"), "{capacity}");
    succeed(
        "iscsi-perf",
        &["-m", "8", "-b", "128", "-t", "1", &url],
        folder,
    );
    assert!(ours.target.stats().bytes_read > 1 << 20);
    succeed("iscsi-inq", &[&ours.url(0)], folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn libiscsi_authenticates_to_our_target() {
    let both = chap("secret-of-initiator", Some("secret-of-target"));
    let ours = Ours::start(|options| options.chap = Some(both)).await;
    let folder = ours.folder.path();
    let url = |secret: &str, query: &str| {
        let port = ours.port();
        format!("iscsi://root%{secret}@127.0.0.1:{port}/{IQN}/1{query}")
    };
    succeed("iscsi-inq", &[&url("secret-of-initiator", "")], folder);
    let mutual = "?target_user=disk&target_password=secret-of-target";
    succeed("iscsi-inq", &[&url("secret-of-initiator", mutual)], folder);
    let wrong = tool("iscsi-inq", &[&url("wrong", "")], folder);
    assert!(!wrong.status.success());
    let wrong = tool("iscsi-inq", &[&ours.url(1)], folder);
    assert!(!wrong.status.success());
}

/// Families of libiscsi's conformance tests. Not among them: what the target does not have
/// (RESERVE(6), COMPARE AND WRITE, ...), which the tests skip, and three expectations that it
/// does not share: that a write with less data than its CDB names is done in part, that WRITE SAME
/// with UNMAP drops a pattern that is not zero, and transfers above MAXIMUM TRANSFER LENGTH.
const CONFORMANCE: [&str; 30] = [
    "Inquiry",
    "Mandatory",
    "ModeSense6",
    "PrinReadKeys",
    "PrinReportCapabilities",
    "PrinServiceactionRange",
    "ProutClear",
    "ProutPreempt",
    "ProutRegister",
    "ProutReserve",
    "Read6",
    "Read10",
    "Read12",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "StartStopUnit",
    "TestUnitReady",
    "Unmap",
    "Write10",
    "Write12",
    "Write16",
    "WriteSame10.Simple",
    "WriteSame10.Unmap",
    "WriteSame16.Simple",
    "WriteSame16.UnmapUntilEnd",
    "iSCSIcmdsn",
    "iSCSIResiduals.Read10Residuals",
    "iSCSIResiduals.Read16Residuals",
    "iSCSITMF.AbortTaskSimpleAsync",
];

#[tokio::test(flavor = "multi_thread")]
async fn our_target_passes_libiscsis_conformance_tests() {
    let ours = Ours::start(|_| {}).await;
    for family in CONFORMANCE {
        let family = format!("ALL.{family}");
        let arguments = ["-d", "-n", "-t", &family, &ours.url(1)];
        let report = succeed("iscsi-test-cu", &arguments, ours.folder.path());
        let tests = report
            .lines()
            .find(|line| line.trim_start().starts_with("tests"));
        let numbers: Vec<&str> = tests.unwrap_or(&report).split_whitespace().collect();
        // tests, total, ran, passed, failed, inactive
        assert!(
            numbers.len() == 6 && numbers[1] != "0",
            "{family}: {report}"
        );
        assert_eq!(
            (numbers[1], numbers[4]),
            (numbers[3], "0"),
            "{family}: {report}"
        );
    }
}
