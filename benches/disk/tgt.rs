//! A tgtd of its own for one run.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const IQN: &str = "iqn.2026-01.example:bench";

pub(crate) struct Tgt {
    daemon: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Tgt {
    /// Disks of `bytes` at LUN 1 and up, as files in `place`.
    pub(crate) fn start(place: &Path, disks: u32, bytes: u64, thin: bool) -> Self {
        let folder = tempfile::tempdir_in(place).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let daemon = Command::new("/usr/sbin/tgtd")
            .args([
                "-f",
                "-C",
                "7",
                "--iscsi",
                &format!("portal=127.0.0.1:{port}"),
            ])
            .env("TGT_IPC_SOCKET", folder.path().join("ipc"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("tgtd: apt-get install tgt");
        let tgt = Self {
            daemon,
            folder,
            port,
        };
        while !tgt.adm("--mode system --op show")
            || TcpStream::connect(("127.0.0.1", port)).is_err()
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(tgt.adm(&format!(
            "--mode target --op new --tid 1 --targetname {IQN}"
        )));
        for lun in 1..=disks {
            File::create(tgt.disk(lun)).unwrap().set_len(bytes).unwrap();
            let disk = tgt.disk(lun).display().to_string();
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
            .env("TGT_IPC_SOCKET", self.folder.path().join("ipc"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status();
        done.unwrap().success()
    }

    pub(crate) fn disk(&self, lun: u32) -> PathBuf {
        self.folder.path().join(format!("disk-{lun}"))
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
