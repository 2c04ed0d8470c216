//! A tgtd of its own for one run, on the second processor.

use super::measure::{TARGET_CORE, on_core};
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const MIB: usize = 1 << 20;

pub(crate) const IQN: &str = "iqn.2026-01.example:bench";

/// Files that are disks, with data everywhere. They outlive a tgtd: a virtual machine gives memory
/// that was freed back to its host, and to get it again costs more than all that is measured here.
pub(crate) struct Disks {
    folder: tempfile::TempDir,
    count: u32,
    bytes: u64,
}

impl Disks {
    /// Of `bytes` each, in `place`.
    pub(crate) fn new(place: &Path, count: u32, bytes: u64) -> Self {
        let folder = tempfile::tempdir_in(place).unwrap();
        let disks = Self {
            folder,
            count,
            bytes,
        };
        disks.fill();
        disks
    }

    /// Puts data where holes were made.
    pub(crate) fn fill(&self) {
        let ones = vec![0xff; MIB];
        for lun in 1..=self.count {
            let mut options = File::options();
            options.write(true).create(true).truncate(false);
            let mut file = options.open(self.path(lun)).unwrap();
            let mut left = self.bytes;
            while left > 0 {
                let now = left.min(MIB as u64);
                file.write_all(&ones[..usize::try_from(now).unwrap()])
                    .unwrap();
                left -= now;
            }
            // Nobody is to flush it along with his own.
            file.sync_all().unwrap();
        }
    }

    pub(crate) fn path(&self, lun: u32) -> PathBuf {
        self.folder.path().join(format!("disk-{lun}"))
    }
}

pub(crate) struct Tgt {
    daemon: Child,
    ipc: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Tgt {
    /// With the disks at LUN 1 and up.
    pub(crate) fn start(disks: &Disks, thin: bool) -> Self {
        let ipc = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut daemon = Command::new("/usr/sbin/tgtd");
        daemon.args(["-f", "-C", "7", "--iscsi"]);
        daemon.arg(format!("portal=127.0.0.1:{port}"));
        let daemon = on_core(TARGET_CORE, &daemon)
            .env("TGT_IPC_SOCKET", ipc.path().join("ipc"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("tgtd: apt-get install tgt");
        let tgt = Self { daemon, ipc, port };
        while !tgt.adm("--mode system --op show")
            || TcpStream::connect(("127.0.0.1", port)).is_err()
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(tgt.adm(&format!(
            "--mode target --op new --tid 1 --targetname {IQN}"
        )));
        for lun in 1..=disks.count {
            let disk = disks.path(lun).display().to_string();
            assert!(tgt.adm(&format!(
                "--mode logicalunit --op new --tid 1 --lun {lun} --backing-store {disk}"
            )));
            let params = "--params thin_provisioning=1";
            assert!(
                !thin
                    || tgt.adm(&format!(
                        "--mode logicalunit --op update --tid 1 --lun {lun} {params}"
                    ))
            );
        }
        assert!(tgt.adm("--mode target --op bind --tid 1 --initiator-address ALL"));
        tgt
    }

    fn adm(&self, arguments: &str) -> bool {
        let done = Command::new("/usr/sbin/tgtadm")
            .args(["-C", "7", "--lld", "iscsi"])
            .args(arguments.split(' '))
            .env("TGT_IPC_SOCKET", self.ipc.path().join("ipc"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        done.unwrap().success()
    }

    pub(crate) fn url(&self, lun: u32) -> String {
        format!("iscsi://127.0.0.1:{}/{IQN}/{lun}", self.port)
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        let group = format!("-{}", self.daemon.id());
        Command::new("kill")
            .args(["-KILL", "--", &group])
            .status()
            .ok();
        self.daemon.wait().ok();
    }
}
