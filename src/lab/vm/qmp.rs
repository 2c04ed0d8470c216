//! The QEMU Machine Protocol, as far as a BMC needs it: a command a time, and events.
//! Source: `docs/interop/qmp-spec.rst` of QEMU.

use crate::error::{Error, Kind, Result};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long an answer may take; screen dumps under load are the slowest.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest message.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// A connection to a QEMU process.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// What was received of the message that is arriving.
    partial: Vec<u8>,
    /// Events that came while an answer was waited for.
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes the connection over: greeting, then command mode.
    pub(super) async fn open(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            partial: Vec::new(),
            events: VecDeque::new(),
        };
        let greeting = tokio::time::timeout(ANSWER, qmp.message());
        let greeting = greeting.await.map_err(|_| silent())??;
        if greeting.get("QMP").is_none() {
            return Err(broken("no greeting"));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returns.
    pub(super) async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        let answered = async {
            let sent = self.stream.write_all(text.as_bytes()).await;
            sent.map_err(|e| broken(&e.to_string()))?;
            loop {
                let mut message = self.message().await?;
                if let Some(value) = message.get_mut("return") {
                    return Ok(value.take());
                }
                if let Some(error) = message.pointer("/error/desc").and_then(Value::as_str) {
                    return Err(Error::new(
                        Kind::Refused,
                        format!("qemu refuses {command}: {error}"),
                    ));
                }
                self.events.push_back(message);
            }
        };
        tokio::time::timeout(ANSWER, answered)
            .await
            .map_err(|_| silent())?
    }

    /// The next event. Nothing is lost if the future is dropped.
    pub(super) async fn event(&mut self) -> Result<Value> {
        match self.events.pop_front() {
            Some(event) => Ok(event),
            None => self.message().await,
        }
    }

    /// The next message, which is one line of JSON.
    async fn message(&mut self) -> Result<Value> {
        loop {
            let chunk = self
                .stream
                .fill_buf()
                .await
                .map_err(|e| broken(&e.to_string()))?;
            if chunk.is_empty() {
                return Err(broken("it closed the connection"));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.partial
                .extend_from_slice(chunk.get(..used).unwrap_or_default());
            self.stream.consume(used);
            if self.partial.len() > MAX_MESSAGE_BYTES {
                return Err(broken("a message without end"));
            }
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                return serde_json::from_slice(&line).map_err(|e| broken(&e.to_string()));
            }
        }
    }
}

fn silent() -> Error {
    Error::new(Kind::Timeout, "qemu does not answer").op("lab.vm.qmp")
}

fn broken(why: &str) -> Error {
    Error::new(Kind::Protocol, format!("qemu's monitor: {why}")).op("lab.vm.qmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_are_answered_and_events_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = async {
            let mut stream = BufReader::new(theirs);
            let mut line = String::new();
            stream
                .write_all(b"{\"QMP\": {\"version\": {}}}\r\n")
                .await
                .unwrap();
            stream.read_line(&mut line).await.unwrap();
            assert!(line.contains("qmp_capabilities"), "{line}");
            stream.write_all(b"{\"return\": {}}\r\n").await.unwrap();
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            let asked: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                asked,
                json!({"execute": "screendump", "arguments": {"format": "png"}})
            );
            let answer = b"{\"event\": \"STOP\"}\r\n{\"return\": 7}\r\n";
            stream.write_all(answer).await.unwrap();
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            let error =
                b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such device\"}}\r\n";
            stream.write_all(error).await.unwrap();
        };
        let client = async {
            let mut qmp = Qmp::open(ours).await.unwrap();
            let answer = qmp.execute("screendump", json!({"format": "png"})).await;
            assert_eq!(answer.unwrap(), 7);
            assert_eq!(qmp.event().await.unwrap()["event"], "STOP");
            let refused = qmp.execute("eject", json!({})).await.unwrap_err();
            assert!(refused.to_string().contains("no such device"), "{refused}");
            assert_eq!(qmp.event().await.unwrap_err().kind(), Kind::Protocol);
        };
        tokio::join!(qemu, client);
    }
}
