//! A process that dies with this one, however it ends.

use crate::error::{Error, Kind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedMutexGuard, oneshot};

/// A running process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Process {
    handle: OwnedFd,
    /// What it prints, until it is taken.
    pub(super) output: Option<(pipe::Receiver, pipe::Receiver)>,
    exited: oneshot::Receiver<io::Result<ExitStatus>>,
}

impl Process {
    /// Starts a program. `place` is kept until the process is gone.
    pub(super) async fn spawn(
        program: &str,
        arguments: Vec<String>,
        place: OwnedMutexGuard<()>,
    ) -> Result<Self> {
        let failed =
            |e: io::Error| Error::new(Kind::Io, format!("cannot be started: {e}")).target(program);
        // setpriv arms the kernel (PR_SET_PDEATHSIG): not even a kill of this program leaves a
        // machine running that holds the disk and the ports.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", program])
            .args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (started, start) = oneshot::channel();
        let (ended, exited) = oneshot::channel();
        // The kernel ties that to the thread which starts the process: one that waits for it.
        let thread = std::thread::Builder::new().name("lab-vm".to_owned());
        let thread = thread.spawn(move || {
            let mut child = match command
                .spawn()
                .and_then(|child| Ok((handle(&child)?, child)))
            {
                Ok((handle, mut child)) => {
                    let output = (child.stdout.take(), child.stderr.take());
                    if started.send(Ok((handle, output))).is_err() {
                        drop(child.kill());
                    }
                    child
                }
                Err(error) => {
                    drop(started.send(Err(error)));
                    return;
                }
            };
            let status = child.wait();
            drop(place);
            drop(ended.send(status));
        });
        thread.map_err(failed)?;
        let gone = |_| io::Error::other("its thread broke");
        let (handle, (stdout, stderr)) = start.await.map_err(gone).flatten().map_err(failed)?;
        let output = stdout.map(OwnedFd::from).zip(stderr.map(OwnedFd::from));
        let (stdout, stderr) = output.ok_or_else(|| failed(io::Error::other("no output")))?;
        let receiver = |fd| pipe::Receiver::from_owned_fd(fd).map_err(failed);
        Ok(Self {
            handle,
            output: Some((receiver(stdout)?, receiver(stderr)?)),
            exited,
        })
    }

    /// Waits until it ends by itself.
    pub(super) async fn exit(&mut self) -> io::Result<ExitStatus> {
        let ended = (&mut self.exited).await;
        ended
            .map_err(|_| io::Error::other("the process is gone"))
            .flatten()
    }
}

fn handle(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; the handle is of no other process then.
        let _gone = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}
