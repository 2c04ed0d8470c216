//! The port on which the deployer says that the disk is written.

use crate::error::{Error, Kind, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

/// How long a connection may take to say something.
const SPEAK_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest message that is looked at.
const MAX_MESSAGE_BYTES: usize = 64;

/// The listener. It is there before the deployer is called.
#[derive(Debug)]
pub(super) struct DonePort(TcpListener);

impl DonePort {
    pub(super) async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            Error::new(Kind::Io, format!("cannot listen: {e}"))
                .op("ramdisk.done")
                .target(address.to_string())
        })?;
        Ok(Self(listener))
    }

    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.0
            .local_addr()
            .map_err(|e| Error::new(Kind::Io, format!("no local address: {e}")).op("ramdisk.done"))
    }

    /// Waits for the first connection that closes or says something; whatever it says releases
    /// the ramdisk, as with the classic one, where it is `nc` that listens.
    pub(super) async fn wait(&self) -> Result<(SocketAddr, String)> {
        let (stream, peer) = self.0.accept().await.map_err(|e| {
            Error::new(Kind::Io, format!("cannot accept a connection: {e}")).op("ramdisk.done")
        })?;
        Ok((peer, message(stream).await))
    }
}

async fn message(mut stream: TcpStream) -> String {
    let mut said = [0; MAX_MESSAGE_BYTES];
    let mut length = 0;
    let listen = async {
        while let Some(free) = said.get_mut(length..).filter(|free| !free.is_empty()) {
            match stream.read(free).await {
                Ok(0) | Err(_) => break,
                Ok(count) => length += count,
            }
            if said.starts_with(b"done") {
                break;
            }
        }
    };
    // A peer that falls silent, or breaks off, has connected all the same.
    drop(tokio::time::timeout(SPEAK_TIMEOUT, listen).await);
    let said = said.get(..length).unwrap_or_default();
    String::from_utf8_lossy(said).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    async fn said(bytes: &[u8]) -> String {
        let port = DonePort::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut peer = TcpStream::connect(port.0.local_addr().unwrap())
            .await
            .unwrap();
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        port.wait().await.unwrap().1
    }

    #[tokio::test]
    async fn any_connection_releases() {
        assert_eq!(said(b"done").await, "done");
        assert_eq!(said(b"done\n").await, "done");
        assert_eq!(said(b"").await, "");
        assert_eq!(said(&[b'x'; 1000]).await, "x".repeat(64));
    }
}
