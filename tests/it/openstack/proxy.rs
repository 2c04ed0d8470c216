//! A proxy in front of a real service that breaks exchanges one at a time: what it does not break
//! goes through byte for byte. One request a connection, so that a cut hits only one.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to one exchange.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The proxy answers, with these header lines; the service sees nothing of it.
    Answer(u16, &'static str),
    /// The request has this token instead of its own.
    Token(String),
    /// Cut when so many bytes of the request's body have gone through.
    CutRequest(usize),
    /// Cut when the service has answered, before anything of that comes back.
    CutAnswer,
    /// Cut when so many bytes of the answer's body have come back.
    CutBody(usize),
    /// The byte at this place of the request's body is another one.
    FlipRequest(usize),
    /// The byte at this place of the answer's body is another one.
    FlipBody(usize),
}

#[derive(Default)]
struct Plan {
    /// Which requests are broken: their method, and a part of their path.
    which: (&'static str, String),
    faults: VecDeque<Fault>,
    /// Heads of these requests, and of all.
    seen: Vec<String>,
    all: Vec<String>,
    /// In all answers: seconds added to `Date`, and texts of equal length that are exchanged.
    clock: i64,
    rewrites: Vec<(String, String)>,
}

/// It ends with this.
pub(crate) struct Proxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// A proxy before the service at `http://…`.
    pub(crate) async fn before(service: &str) -> Self {
        let upstream = service.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let plan = Arc::new(Mutex::new(Plan::default()));
        let mut accepting = JoinSet::new();
        let shared = Arc::clone(&plan);
        accepting.spawn(async move {
            let mut exchanges = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (plan, upstream) = (Arc::clone(&shared), upstream.clone());
                exchanges.spawn(async move {
                    // A cut that was wanted ends in an error as well.
                    drop(exchange(client, &upstream, &plan).await);
                });
                while exchanges.try_join_next().is_some() {}
            }
        });
        Self {
            url,
            plan,
            _accepting: accepting,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Breaks the next requests of this method with this in their path.
    pub(crate) fn breaks(
        &self,
        method: &'static str,
        part: impl Into<String>,
        faults: impl IntoIterator<Item = Fault>,
    ) {
        let mut plan = self.plan.lock().unwrap();
        plan.which = (method, part.into());
        plan.faults = faults.into_iter().collect();
        plan.seen.clear();
    }

    /// Moves the service's clock.
    pub(crate) fn move_clock(&self, seconds: i64) {
        self.plan.lock().unwrap().clock = seconds;
    }

    /// Exchanges a text in all answers.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "lengths that headers tell must stay");
        let mut plan = self.plan.lock().unwrap();
        plan.rewrites.push((from.to_owned(), to.to_owned()));
    }

    /// Heads of the requests that `breaks` names, since then.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.plan.lock().unwrap().seen.clone()
    }

    /// Every token that went by.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let plan = self.plan.lock().unwrap();
        let heads = plan.all.iter();
        heads
            .filter_map(|head| header(head, "x-auth-token"))
            .collect()
    }
}

async fn exchange(mut client: TcpStream, upstream: &str, plan: &Mutex<Plan>) -> io::Result<()> {
    let mut head = read_head(&mut client).await?;
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let fault = fault_of(&head, plan);
    if let Some(Fault::Answer(status, headers)) = fault {
        let mut body = (&mut client).take(length as u64);
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
        let answer = format!(
            "HTTP/1.1 {status} Fault\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        client.write_all(answer.as_bytes()).await?;
        return client.shutdown().await;
    }
    if let (Some(Fault::Token(other)), Some(own)) = (&fault, header(&head, "x-auth-token")) {
        head = head.replace(&own, other);
    }
    let mut service = TcpStream::connect(upstream).await?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    service.write_all(head.as_bytes()).await?;
    let ((from_client, to_client), (from_service, to_service)) = (client.split(), service.split());
    tokio::try_join!(
        send(from_client, to_service, length, fault.as_ref()),
        give_back(from_service, to_client, plan, fault.as_ref()),
    )?;
    Ok(())
}

/// What happens to the request with this head.
fn fault_of(head: &str, plan: &Mutex<Plan>) -> Option<Fault> {
    let mut plan = plan.lock().unwrap();
    plan.all.push(head.to_owned());
    let (method, path) = head.split_once(' ').unwrap();
    let path = path.split_once(' ').unwrap().0;
    if method != plan.which.0 || !path.contains(&plan.which.1) {
        return None;
    }
    plan.seen.push(head.to_owned());
    plan.faults.pop_front()
}

/// The request's body. A service that does not want it has answered already.
async fn send(
    mut body: impl AsyncRead + Unpin,
    mut service: impl AsyncWrite + Unpin,
    length: usize,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let mut gone = 0;
    let mut buffer = vec![0; 64 << 10];
    while gone < length {
        let count = body.read(&mut buffer).await?;
        let chunk = &mut buffer[..count];
        if count == 0 {
            return Ok(());
        }
        match fault {
            Some(Fault::CutRequest(at)) if gone + count >= *at => {
                service.write_all(&chunk[..at.saturating_sub(gone)]).await?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Fault::FlipRequest(at)) => flip(chunk, gone, *at),
            _ => {}
        }
        gone += count;
        drop(service.write_all(chunk).await);
    }
    Ok(())
}

async fn give_back(
    mut service: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    plan: &Mutex<Plan>,
    fault: Option<&Fault>,
) -> io::Result<()> {
    let mut head = read_head(&mut service).await?;
    if matches!(fault, Some(Fault::CutAnswer)) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let (clock, rewrites) = {
        let plan = plan.lock().unwrap();
        (plan.clock, plan.rewrites.clone())
    };
    if clock != 0 {
        head = moved(&head, clock);
    }
    client.write_all(head.as_bytes()).await?;
    if !rewrites.is_empty() {
        let mut body = Vec::new();
        service.read_to_end(&mut body).await?;
        let mut body = String::from_utf8(body).unwrap();
        for (from, to) in &rewrites {
            body = body.replace(from, to);
        }
        client.write_all(body.as_bytes()).await?;
        return client.shutdown().await;
    }
    let mut come = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = service.read(&mut buffer).await?;
        let chunk = &mut buffer[..count];
        match fault {
            _ if count == 0 => return client.shutdown().await,
            Some(Fault::CutBody(at)) if come + count >= *at => {
                client.write_all(&chunk[..at.saturating_sub(come)]).await?;
                client.flush().await?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Fault::FlipBody(at)) => flip(chunk, come, *at),
            _ => {}
        }
        come += count;
        client.write_all(chunk).await?;
    }
}

fn flip(chunk: &mut [u8], before: usize, at: usize) {
    if let Some(byte) = at.checked_sub(before).and_then(|at| chunk.get_mut(at)) {
        *byte ^= 1;
    }
}

/// The head with the empty line that ends it, and nothing of what follows.
async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(value.to_owned())
}

/// A head with another `Date`.
fn moved(head: &str, seconds: i64) -> String {
    let Some(date) = header(head, "date") else {
        return head.to_owned();
    };
    let time = httpdate::parse_http_date(&date).unwrap();
    let by = Duration::from_secs(seconds.unsigned_abs());
    let time: SystemTime = if seconds < 0 { time - by } else { time + by };
    head.replace(&date, &httpdate::fmt_http_date(time))
}
