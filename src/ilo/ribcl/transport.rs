//! One RIBCL request a TLS connection, one at a time.

use super::document::Answer;
use super::http;
use super::request::{Command, PROLOGUE};
use super::status;
use super::xmldata::{self, Shown};
use crate::error::{Error, Kind, Result};
use crate::http::{Trust, legacy_tls, tls};
use crate::ilo::address::Address;
use crate::ilo::deadline::Deadline;
use crate::ilo::detection::Tried;
use crate::ilo::failure::{Class, Failure, Message, Refusal};
use crate::ilo::{IloOptions, mask};
use crate::secret::Secret;
use reqwest::StatusCode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

/// Pause between attempts, as HPE's own clients have it.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts at a request that brought nothing back, unless a deadline counts.
const ATTEMPTS: u32 = 4;

/// A connection by either TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An iLO and an account.
pub(super) struct Transport {
    address: Address,
    username: String,
    password: Secret,
    trust: Trust,
    legacy_tls: bool,
    timeout: Duration,
    /// Held while a request is on its way: two writers at once make the iLO refuse one.
    turn: Mutex<()>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RIBCL at {}", self.address.authority)
    }
}

impl Transport {
    pub(super) fn new(options: IloOptions) -> Result<Self> {
        Ok(Self {
            address: Address::parse(&options.base_url)?,
            username: options.username,
            password: options.password,
            trust: options.trust,
            legacy_tls: options.legacy_tls,
            timeout: options.timeout,
            turn: Mutex::new(()),
        })
    }

    /// Sends a command: again while the iLO is busy and `within` lasts, again when nothing came
    /// back if the command only looks or certainly did not arrive.
    pub(super) async fn call(
        &self,
        command: &Command,
        within: Option<Deadline>,
    ) -> Result<Answer, Failure> {
        let document = command.document(&self.username, &self.password);
        let document = document.map_err(Failure::Unable)?;
        let mut attempts = 0;
        loop {
            let failure = match self.ask(command.name, &document).await {
                Err(failure) => failure,
                answered => return answered,
            };
            attempts += 1;
            let lost = failure.is_transient() && !(command.writes && failure.is_in_doubt());
            let again = match within {
                Some(deadline) => {
                    (lost || failure.class() == Some(Class::Busy)) && deadline.pause(PAUSE).await
                }
                None if lost && attempts < ATTEMPTS => {
                    tokio::time::sleep(PAUSE).await;
                    true
                }
                None => false,
            };
            if !again {
                return Err(failure);
            }
            tracing::debug!(ilo = self.address.authority, command.name, %failure, "trying again");
        }
    }

    /// Sends a document, and reads what the iLO says to it.
    async fn ask(&self, request: &str, document: &Secret) -> Result<Answer, Failure> {
        let length = PROLOGUE.len() + document.expose().len();
        let head = format!(
            "POST /ribcl HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\
             Connection: Close\r\n\r\n",
            self.address.authority
        );
        let parts = [head.as_str(), PROLOGUE, document.expose()];
        let body = match self.exchange(&parts).await? {
            (200, body) if body.is_empty() => {
                let error = Error::new(Kind::Unreachable, "the answer is empty").retryable(true);
                return Err(Failure::NoAnswer { error, sent: true });
            }
            (200, body) => body,
            (status @ 500.., _) => return Err(troubled(request, status)),
            (status, _) => {
                let message = format!("no RIBCL here: HTTP status {status}");
                let error = Error::new(Kind::Unsupported, message);
                let hint = "iLO 6 and 7 have none; else switch it on in the iLO's access settings";
                return Err(Failure::Unable(error.hint(hint)));
            }
        };
        let answer = Answer::parse(&body).map_err(Failure::Broken)?;
        if answer.status == 0 {
            return Ok(answer);
        }
        let text = self.masked(&answer.message);
        Err(Failure::Refused(Box::new(Refusal {
            request: request.to_owned(),
            status: StatusCode::OK,
            message: Some(Message {
                id: format!("0x{:04X}", answer.status),
                args: Vec::new(),
                class: status::class(answer.status, &text),
                text,
            }),
        })))
    }

    /// What the iLO says without what nobody shall see.
    pub(super) fn masked(&self, text: &str) -> String {
        let text = mask::text(text);
        match self.password.expose() {
            "" => text,
            password => text.replace(password, "***"),
        }
    }

    /// What the iLO tells everybody; `None`, and why, if it tells nothing.
    pub(super) async fn shown(&self, tried: &mut Tried) -> Option<Shown> {
        let path = xmldata::PATH;
        let host = &self.address.authority;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Close\r\n\r\n");
        let request = format!("GET {path}");
        match self.exchange(&[&head]).await {
            Ok((200, page)) => {
                let shown = Shown::parse(&page);
                match &shown {
                    Some(shown) => tried.note(&request, &mask::text(&shown.to_string())),
                    None => tried.note(&request, "nothing about an iLO"),
                }
                shown
            }
            Ok((status, _)) => {
                tried.note(&request, &format!("HTTP status {status}"));
                None
            }
            Err(failure) => {
                tried.note(&request, &failure.to_string());
                None
            }
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let Address { host, port, .. } = &self.address;
        let (trust, timeout) = (&self.trust, self.timeout);
        Ok(match self.legacy_tls {
            false => Box::new(tls::connect(trust, host, *port, timeout).await?),
            true => Box::new(legacy_tls::connect(trust, host, *port, timeout).await?),
        })
    }

    /// Status and body of the answer.
    async fn exchange(&self, parts: &[&str]) -> Result<(u16, Vec<u8>), Failure> {
        let _turn = self.turn.lock().await;
        // Boxed: a handshake is large, and most of the time none is under way.
        let connected = Box::pin(self.connect()).await;
        let unsent = |error| Failure::NoAnswer { error, sent: false };
        let mut stream = connected.map_err(unsent)?;
        let lost = |e: &std::io::Error| Failure::NoAnswer {
            error: tls::broke(e),
            sent: true,
        };
        let answer = async {
            for part in parts {
                stream
                    .write_all(part.as_bytes())
                    .await
                    .map_err(|e| lost(&e))?;
                stream.flush().await.map_err(|e| lost(&e))?;
            }
            let mut answer = Vec::new();
            while !http::is_complete(&answer) {
                match stream.read_buf(&mut answer).await {
                    Ok(0) => break,
                    Ok(_) if answer.len() > http::MAX_BYTES => {
                        let message = format!("the answer exceeds {} bytes", http::MAX_BYTES);
                        return Err(Failure::Broken(Error::new(Kind::Limit, message)));
                    }
                    Ok(_) => {}
                    // Closed without TLS's good-bye, as old firmware does.
                    Err(_) if !answer.is_empty() => break,
                    Err(e) => return Err(lost(&e)),
                }
            }
            Ok(answer)
        };
        let answer = tokio::time::timeout(self.timeout, answer).await;
        let answer = answer.unwrap_or_else(|_| {
            let error = Error::new(Kind::Timeout, "no answer before the deadline");
            Err(Failure::NoAnswer {
                error: error.retryable(true),
                sent: true,
            })
        })?;
        http::read(&answer).map_err(Failure::Broken)
    }
}

/// The iLO is there and cannot answer now.
fn troubled(request: &str, status: u16) -> Failure {
    Failure::Refused(Box::new(Refusal {
        request: request.to_owned(),
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        message: None,
    }))
}
