//! Who asked for what: the recent requests, and sums for each reader of each object.

use crate::clock;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests remembered one by one.
const RECENT: usize = 1024;
/// Readers remembered as sums; the one that was quiet longest goes first.
const READERS: usize = 4096;

/// One request for an object, recorded when its answer was sent or the client went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// From where; unknown if the listener does not tell.
    pub peer: Option<SocketAddr>,
    /// `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
    pub method: String,
    /// Its container.
    pub container: String,
    /// Its name.
    pub object: String,
    /// The HTTP status.
    pub status: u16,
    /// Whether it asked for a range.
    pub range: bool,
    /// Whether it came with a temporary URL.
    pub temp_url: bool,
    /// Bytes of the body that were handed to the connection.
    pub bytes_sent: u64,
}

/// What one address has read of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// The address.
    pub peer: IpAddr,
    /// GET requests that were answered with data.
    pub requests: u64,
    /// Those among them that were answered with a range.
    pub range_requests: u64,
    /// Bytes handed to the connection.
    pub bytes: u64,
    /// When the last one ended, in milliseconds since 1970.
    pub last_ms: u64,
}

/// Sums since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Containers now.
    pub containers: u64,
    /// Objects now.
    pub objects: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Requests for objects.
    pub requests: u64,
    /// Bytes of objects sent.
    pub bytes_sent: u64,
}

#[derive(Debug, Default)]
pub(super) struct AccessLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Access>,
    readers: BTreeMap<(String, String, IpAddr), Reader>,
    requests: u64,
    bytes_sent: u64,
}

impl AccessLog {
    fn record(&self, access: Access) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.requests += 1;
        inner.bytes_sent += access.bytes_sent;
        if access.method == "GET" && matches!(access.status, 200 | 206) {
            inner.add_reader(&access);
        }
        if inner.recent.len() == RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(access);
    }

    pub(super) fn recent(&self) -> Vec<Access> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.recent.iter().cloned().collect()
    }

    pub(super) fn readers(&self, container: &str, object: &str) -> Vec<Reader> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let readers = inner.readers.iter();
        readers
            .filter(|((c, o, _), _)| c == container && o == object)
            .map(|(_, reader)| *reader)
            .collect()
    }

    /// Requests and bytes sent.
    pub(super) fn sums(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.requests, inner.bytes_sent)
    }
}

impl Inner {
    fn add_reader(&mut self, access: &Access) {
        let Some(peer) = access.peer.map(|peer| peer.ip()) else {
            return;
        };
        let key = (access.container.clone(), access.object.clone(), peer);
        if self.readers.len() >= READERS && !self.readers.contains_key(&key) {
            let quiet = self.readers.iter().min_by_key(|(_, r)| r.last_ms);
            let quiet = quiet.map(|(key, _)| key.clone());
            quiet.map(|key| self.readers.remove(&key));
        }
        let reader = self.readers.entry(key).or_insert(Reader {
            peer,
            requests: 0,
            range_requests: 0,
            bytes: 0,
            last_ms: 0,
        });
        reader.requests += 1;
        reader.range_requests += u64::from(access.status == 206);
        reader.bytes += access.bytes_sent;
        reader.last_ms = access.at_ms;
    }
}

/// Counts the bytes of one answer and records the request when dropped.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) log: Arc<AccessLog>,
    pub(super) access: Access,
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.access.at_ms = clock::unix_ms();
        self.log.record(self.access.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(peer: &str, object: &str, status: u16) -> Access {
        Access {
            at_ms: 1,
            peer: Some(peer.parse().unwrap()),
            method: "GET".to_owned(),
            container: "c".to_owned(),
            object: object.to_owned(),
            status,
            range: status == 206,
            temp_url: false,
            bytes_sent: 10,
        }
    }

    #[test]
    fn sums_by_reader_and_stays_bounded() {
        let log = AccessLog::default();
        log.record(get("192.0.2.1:1000", "o", 206));
        log.record(get("192.0.2.1:1001", "o", 200));
        log.record(get("192.0.2.2:1000", "o", 206));
        log.record(get("192.0.2.2:1000", "o", 404));
        let readers = log.readers("c", "o");
        let sums: Vec<_> = readers
            .iter()
            .map(|r| (r.requests, r.range_requests, r.bytes))
            .collect();
        assert_eq!(sums, [(2, 1, 20), (1, 1, 10)]);
        for n in 0..READERS + 10 {
            log.record(get("192.0.2.1:1000", &n.to_string(), 200));
        }
        let inner = log.0.lock().unwrap();
        assert_eq!((inner.readers.len(), inner.recent.len()), (READERS, RECENT));
    }
}
