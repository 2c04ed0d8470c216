//! Shows media to the machine as block devices: a Network Block Device server on a socket file.
//!
//! It stands where a real iLO has its USB device: the medium itself is read by the iLO, which
//! checks the image server's certificate, and an ejected one fails under the machine's hands.
//! Protocol: `doc/proto.md` of the NBD project; fixed newstyle, read only, one reply per request.

use crate::lab::host::Medium;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const HELLO: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_E889_0455_65A9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE`
const FIXED_NEWSTYLE: u16 = 1;
/// `NBD_FLAG_HAS_FLAGS` and `NBD_FLAG_READ_ONLY`
const EXPORT_FLAGS: u16 = 0b11;

const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const REP_ERR_UNKNOWN: u32 = 0x8000_0006;

const CMD_READ: u16 = 0;
const CMD_DISC: u16 = 2;
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;

/// Longest option: a name and what is asked about it.
const MAX_OPTION_BYTES: u32 = 8 << 10;
/// Longest read; clients ask for at most that much unless told otherwise.
const MAX_READ_BYTES: u32 = 32 << 20;

/// The media by the names under which they are exported.
pub(super) type Exports = Arc<Vec<(&'static str, Arc<dyn Medium>)>>;

/// Serves whoever connects, until dropped.
pub(super) async fn serve(listener: UnixListener, exports: Exports) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(clients.spawn(client(stream, Arc::clone(&exports)))),
                Err(error) => {
                    tracing::warn!(%error, "a medium is not served");
                    return;
                }
            },
            Some(_ended) = clients.join_next() => {}
        }
    }
}

async fn client(mut stream: UnixStream, exports: Exports) {
    // A client that goes is no failure: the machine was switched off.
    if let Ok(Some(medium)) = negotiate(&mut stream, &exports).await {
        drop(transmit(&mut stream, medium.as_ref()).await);
    }
}

/// Finds out which medium is wanted; `None` if none after all.
async fn negotiate(
    stream: &mut UnixStream,
    exports: &Exports,
) -> io::Result<Option<Arc<dyn Medium>>> {
    stream.write_u64(HELLO).await?;
    stream.write_u64(OPTION).await?;
    stream.write_u16(FIXED_NEWSTYLE).await?;
    let _client_flags = stream.read_u32().await?;
    loop {
        let magic = stream.read_u64().await?;
        let (option, length) = (stream.read_u32().await?, stream.read_u32().await?);
        if magic != OPTION || length > MAX_OPTION_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        match option {
            OPT_GO => {
                let named = |(known, _): &&(&str, _)| Some(known.as_bytes()) == name_of(&data);
                let Some((_, medium)) = exports.iter().find(named) else {
                    reply(stream, option, REP_ERR_UNKNOWN, &[]).await?;
                    continue;
                };
                // NBD_INFO_EXPORT
                let mut info = 0_u16.to_be_bytes().to_vec();
                info.extend(medium.size_bytes().to_be_bytes());
                info.extend(EXPORT_FLAGS.to_be_bytes());
                reply(stream, option, REP_INFO, &info).await?;
                reply(stream, option, REP_ACK, &[]).await?;
                return Ok(Some(Arc::clone(medium)));
            }
            OPT_ABORT => return Ok(None),
            _ => reply(stream, option, REP_ERR_UNSUP, &[]).await?,
        }
    }
}

/// The export's name in the data of `NBD_OPT_GO`.
fn name_of(data: &[u8]) -> Option<&[u8]> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
}

async fn reply(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    stream.write_u64(OPTION_REPLY).await?;
    stream.write_u32(option).await?;
    stream.write_u32(kind).await?;
    stream.write_u32(length).await?;
    stream.write_all(data).await
}

async fn transmit(stream: &mut UnixStream, medium: &dyn Medium) -> io::Result<()> {
    loop {
        let magic = stream.read_u32().await?;
        let _flags = stream.read_u16().await?;
        let (command, cookie) = (stream.read_u16().await?, stream.read_u64().await?);
        let (offset, length) = (stream.read_u64().await?, stream.read_u32().await?);
        if magic != REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let outcome = match command {
            CMD_READ => read(medium, offset, length).await,
            CMD_DISC => return Ok(()),
            _ => Err(EPERM),
        };
        stream.write_u32(SIMPLE_REPLY).await?;
        stream
            .write_u32(outcome.as_ref().err().copied().unwrap_or(0))
            .await?;
        stream.write_u64(cookie).await?;
        if let Ok(data) = outcome {
            stream.write_all(&data).await?;
        }
        // What a write would have sent cannot be told from the next request.
        if command != CMD_READ {
            return Ok(());
        }
    }
}

/// The bytes, or the errno that the client is told.
async fn read(medium: &dyn Medium, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
    let end = offset.checked_add(length.into()).ok_or(EINVAL)?;
    if length > MAX_READ_BYTES || end > medium.size_bytes() {
        return Err(EINVAL);
    }
    let mut data = Vec::with_capacity(length as usize);
    while data.len() < length as usize {
        let at = offset + data.len() as u64;
        let part = medium.read_at(at, length as usize - data.len()).await;
        match part {
            Ok(bytes) if !bytes.is_empty() => data.extend_from_slice(&bytes),
            _ => return Err(EIO),
        }
    }
    Ok(data)
}
