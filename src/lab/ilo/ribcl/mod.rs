//! The RIBCL front: `POST /ribcl`, one script a request.

mod commands;
mod reply;
mod request;

use super::Machine;
use super::fault::Fault;
use super::state::EventKind;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::stream;
use reply::{Reply, Status};
use request::Element;
use std::io;
use std::time::Duration;

/// Longest script.
const MAX_SCRIPT_BYTES: usize = 64 << 10;

/// For how long a script that writes has the database open.
const WRITE_TIME: Duration = Duration::from_millis(10);

/// Sizes of the pieces in which answers are sent: borders fall anywhere, as on a real one.
const PIECES: [usize; 5] = [29, 173, 30, 116, 367];

/// Blocks of commands.
const BLOCKS: [&str; 3] = ["RIB_INFO", "SERVER_INFO", "USER_INFO"];

impl Machine {
    /// Answers a script.
    pub(super) async fn ribcl(&self, body: Body) -> Response<Body> {
        if self.shared.state().strikes(Fault::ReadUnavailable) {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let mut reply = Reply {
            is_malformed: self.shared.state().has(Fault::RibclMalformed),
            ..Reply::default()
        };
        match to_bytes(body, MAX_SCRIPT_BYTES).await {
            // Scripts are bytes of Latin-1.
            Ok(bytes) => {
                let script: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                self.run_script(&script, &mut reply).await;
            }
            Err(_) => reply.document(&Status::syntax_error(0, ""), ""),
        }
        let mut bytes: Vec<u8> = reply.text.chars().map(latin1).collect();
        let is_cut = self.shared.state().strikes(Fault::RibclCut);
        if is_cut {
            bytes.truncate(bytes.len() * 2 / 3);
        }
        send(&bytes, is_cut)
    }

    async fn run_script(&self, script: &str, reply: &mut Reply) {
        if script.trim_start().starts_with("<?xml") {
            reply.document(&Status::ok(), "");
        }
        if self.shared.state().has(Fault::RibclDisabled) {
            reply.document(&Status::undocumented("Error: RIBCLI is disabled."), "");
            return;
        }
        let ribcl = match request::parse(script) {
            Ok(ribcl) => ribcl,
            Err(error) => {
                reply.document(&Status::syntax_error(error.line, &error.near), "");
                return;
            }
        };
        let login = ribcl.children.first();
        let (Some(login), "RIBCL") = (login.filter(|l| l.name == "LOGIN"), ribcl.name.as_str())
        else {
            reply.document(&Status::syntax_error(1, &ribcl.name), "");
            return;
        };
        let major = ribcl.get("VERSION").and_then(|v| v.split('.').next());
        let inform = match major {
            Some("2") => "",
            _ => {
                "<INFORM>The RIBCL version is incorrect. The correct version is 2.0 or later.\
                  </INFORM>\n"
            }
        };
        reply.document(&Status::ok(), inform);
        if let Err(status) = self.log_into_ribcl(login).await {
            reply.document(&status, "");
            return;
        }
        reply.document(&Status::ok(), "");
        for block in &login.children {
            if self.run_block(block, reply).await.is_err() {
                return;
            }
        }
        for _closing_tag in ["LOGIN", "RIBCL"] {
            reply.document(&Status::ok(), "");
        }
    }

    async fn log_into_ribcl(&self, login: &Element) -> Result<(), Status> {
        let (user, password) = (login.get("USER_LOGIN"), login.get("PASSWORD"));
        let (Some(user), Some(password)) = (user, password) else {
            return Err(Status::syntax_error(1, "LOGIN"));
        };
        match self.check_login(user, password).await {
            true => Ok(()),
            false => Err(Status::new(0x005F, "Login failed.")),
        }
    }

    /// Runs the commands of a block until one fails.
    async fn run_block(&self, block: &Element, reply: &mut Reply) -> Result<(), ()> {
        let is_writing = block
            .get("MODE")
            .is_some_and(|m| m.eq_ignore_ascii_case("write"));
        if !BLOCKS.contains(&block.name.as_str()) {
            reply.document(&Status::syntax_error(1, &block.name), "");
            return Err(());
        }
        let _database = match is_writing.then(|| self.open_database()) {
            None => None,
            Some(Some(database)) => Some(database),
            Some(None) => {
                let message = "The database is open for writing by another application.";
                reply.document(&Status::undocumented(message), "");
                return Err(());
            }
        };
        reply.document(&Status::ok(), "");
        if is_writing {
            tokio::time::sleep(WRITE_TIME).await;
        }
        for command in &block.children {
            let (status, payload) = match self.command(&block.name, is_writing, command) {
                Ok((status, payload)) => (status, payload),
                Err(status) => (status, String::new()),
            };
            let payload = match reply.is_malformed {
                true => damaged(&payload),
                false => payload,
            };
            reply.document(&status, &payload);
            if status.code == 0x0001 {
                return Err(());
            }
        }
        Ok(())
    }

    fn open_database(&self) -> Option<Database<'_>> {
        let mut state = self.shared.state();
        if state.strikes(Fault::RibclDatabaseOpen) || state.is_being_written {
            return None;
        }
        state.is_being_written = true;
        Some(Database(self))
    }
}

/// The database is open for writing as long as this lives.
#[derive(Debug)]
struct Database<'a>(&'a Machine);

impl Drop for Database<'_> {
    fn drop(&mut self) {
        self.0.shared.state().is_being_written = false;
    }
}

impl Machine {
    /// Checks credentials, and takes its time to refuse them.
    pub(super) async fn check_login(&self, user: &str, password: &str) -> bool {
        let (refused, slow) = {
            let mut state = self.shared.state();
            let refused = state.strikes(Fault::LoginFirstRefused);
            (refused, state.has(Fault::LoginSlow))
        };
        if slow {
            tokio::time::sleep(super::SLOW_LOGIN).await;
        }
        if self.knows(user, password) && !refused {
            return true;
        }
        self.shared.state().note(EventKind::LoginRefused);
        tokio::time::sleep(super::LOGIN_FAILURE_DELAY).await;
        false
    }
}

/// Control and non-ASCII bytes and a stray quote, in comments of the payload's attributes.
fn damaged(payload: &str) -> String {
    payload.replacen("\"/>", "\" NOTE=\"\u{1}\u{e9} 2\" wide\"/>", 1)
}

fn latin1(c: char) -> u8 {
    u8::try_from(u32::from(c)).unwrap_or(b'?')
}

/// Chunked, and closed afterwards; a cut answer ends without its last chunk.
fn send(bytes: &[u8], is_cut: bool) -> Response<Body> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    for size in PIECES.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, later) = rest.split_at((*size).min(rest.len()));
        chunks.push(Ok(piece.to_vec()));
        rest = later;
    }
    if is_cut {
        chunks.push(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
    }
    let mut response = Response::new(Body::from_stream(stream::iter(chunks)));
    *response.status_mut() = StatusCode::OK;
    for (name, value) in [
        ("content-type", "text/xml"),
        ("cache-control", "no-cache"),
        ("server", "HP-iLO-Server/1.30"),
        ("connection", "close"),
    ] {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
