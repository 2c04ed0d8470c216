//! Initiator and target against each other, tgt and libiscsi.
//!
//! Needs Debian's `tgt` and `libiscsi-bin`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod breaches;
mod failures;
mod fence;
mod libiscsi;
mod ours;
mod recovery;
mod scripted;
mod tgt;

use bytes::{BufMut, Bytes, BytesMut};
use flowrun::error::Kind;
use flowrun::iscsi::proto::pdu::Status;
use flowrun::iscsi::scsi::{Cdb, Sense, SenseKey};
use flowrun::iscsi::target::{BlockDevice, FileDisk, InitiatorRule, Target, TargetOptions};
use flowrun::iscsi::{self, Chap, Digests, LoginOptions, Session, discover};
use flowrun::secret::Secret;
use scripted::{Act, asynchronous, scripted};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const IQN: &str = "iqn.2026-01.test.flowrun:disk";

const ME: &str = "iqn.2026-01.test.flowrun:me";

const MIB: usize = 1 << 20;

/// The tests that the module's list of conformance names are there.
#[test]
fn what_is_said_to_be_tested_is() {
    fn sources(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("src/iscsi"), &mut all);
    sources(&root.join("tests/it/iscsi"), &mut all);
    let list = std::fs::read_to_string(root.join("src/iscsi/mod.rs")).unwrap();
    let is_name = |name: &&str| name.contains('_') && !name.contains([' ', '/']);
    let names: Vec<&str> = list.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(all.contains(&format!("fn {name}(")), "no test {name}");
    }
}

fn options(port: u16) -> LoginOptions {
    let mut options = LoginOptions::new(format!("127.0.0.1:{port}"), IQN, ME);
    // Most tests look at how a session ends; those of recovery allow it.
    options.recovery_timeout = Duration::ZERO;
    options
}

fn chap(secret: &str, mutual: Option<&str>) -> Chap {
    Chap {
        user: "root".into(),
        secret: Secret::new(secret),
        mutual: mutual.map(|secret| ("disk".into(), Secret::new(secret))),
    }
}

/// Bytes that repeat nowhere near a block, so that a misplaced one is seen.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = BytesMut::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.put_u64_le(state);
    }
    bytes.truncate(length);
    bytes.freeze()
}

fn kind(error: iscsi::Error) -> Kind {
    flowrun::error::Error::from(error).kind()
}

/// Whether two long byte strings are equal, without printing them if not.
fn assert_same(left: &[u8], right: &[u8], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    if left != right {
        let at = (0..left.len()).find(|at| left[*at] != right[*at]);
        panic!("{what}: first different byte {at:?}");
    }
}

/// Runs a tool to its end.
fn tool(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .env("TGT_IPC_SOCKET", folder.join("ipc"))
        .output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; apt-get install tgt libiscsi-bin"))
}

fn succeed(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = tool(program, arguments, folder);
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    write!(text, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// Waits until `done`, for ten seconds.
async fn wait_for(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} takes more than ten seconds");
}

/// Our own target with a disk of 64 MiB.
struct Ours {
    target: Target,
    folder: TempDir,
    disk: Arc<FileDisk>,
}

impl Ours {
    async fn start(edit: impl FnOnce(&mut TargetOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = FileDisk::create(&folder.path().join("disk"), 64 << 20).unwrap();
        let disk = Arc::new(disk);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = TargetOptions::new(IQN, listener, Arc::clone(&disk) as _);
        edit(&mut options);
        let target = Target::start(options).unwrap();
        Self {
            target,
            folder,
            disk,
        }
    }

    fn port(&self) -> u16 {
        self.target.address().port()
    }

    fn url(&self, lun: u64) -> String {
        format!("iscsi://127.0.0.1:{}/{IQN}/{lun}", self.port())
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("disk")).unwrap()
    }
}

/// Writes many ranges at once, reads them back, and yields what the disk must hold.
async fn write_and_read(session: &Session) -> Vec<u8> {
    let info = session.lun_info();
    let mut expected = vec![0; usize::try_from(info.bytes()).unwrap()];
    let mut writes = JoinSet::new();
    // One block, odd numbers of blocks, one transfer, many transfers, the last block.
    let last = info.blocks - 1;
    for (seed, (lba, blocks)) in [
        (0, 1),
        (1, 7),
        (100, 512),
        (1000, 513),
        (9000, 30_001),
        (50_000, 8192),
        (last, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let data = pattern(blocks * 512, seed as u64 + 1);
        let at = usize::try_from(lba).unwrap() * 512;
        expected[at..at + data.len()].copy_from_slice(&data);
        let session = session.clone();
        writes.spawn(async move {
            session.write(lba, data.clone()).await.unwrap();
            let read = session
                .read(lba, u32::try_from(blocks).unwrap())
                .await
                .unwrap();
            assert_same(&read, &data, "read back");
        });
    }
    writes.join_all().await;
    session.flush().await.unwrap();
    expected
}
