//! A Swift that takes uploads, forgets them and answers with the ETags that they should have.

use md5::{Digest, Md5};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// A server in threads of this process.
pub(crate) struct Sink {
    pub(crate) port: u16,
}

struct Etags {
    /// Of the whole file, and of the segments of it.
    file: String,
    segments: Vec<String>,
    iso: String,
}

impl Sink {
    /// For the objects that are called `file` and `iso`, as the files in the folder are.
    pub(crate) fn start(folder: &Path, segment: u64) -> Self {
        let mut segments = Vec::new();
        let mut file = File::open(folder.join("file")).unwrap();
        let left = file.metadata().unwrap().len();
        for _ in 0..left.div_ceil(segment) {
            segments.push(md5(&mut Read::by_ref(&mut file).take(segment)));
        }
        let whole = |name: &str| md5(&mut File::open(folder.join(name)).unwrap());
        let etags = Arc::new(Etags {
            file: whole("file"),
            segments,
            iso: whole("iso"),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let etags = Arc::clone(&etags);
                let connection = connection.unwrap();
                std::thread::spawn(move || serve(connection, port, &etags).ok());
            }
        });
        Self { port }
    }
}

fn md5(from: &mut impl Read) -> String {
    let mut hash = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return hex::encode(hash.finalize()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// One request after the other.
fn serve(connection: TcpStream, port: u16, etags: &Etags) -> std::io::Result<()> {
    let mut out = connection.try_clone()?;
    let mut input = BufReader::with_capacity(256 << 10, connection);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_ascii_lowercase();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        if field("expect:").is_some() {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        assert!(field("transfer-encoding:").is_none(), "{head}");
        let mut left: usize = field("content-length:").map_or(0, |length| length.parse().unwrap());
        while left > 0 {
            let most = left.min(buffer.len());
            match input.read(&mut buffer[..most])? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
        let (method, path) = head.split_once(' ').unwrap();
        let path = path.split(' ').next().unwrap();
        out.write_all(answer(method, path, port, etags).as_bytes())?;
    }
}

fn answer(method: &str, path: &str, port: u16, etags: &Etags) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let last = path.rsplit('/').next().unwrap();
    let segment: Option<usize> = last.parse().ok().filter(|_| last.len() == 8);
    let headers = match (method, segment) {
        ("get", _) if path == "/auth/v1.0" => {
            let url = format!("http://127.0.0.1:{port}/v1/AUTH_a");
            format!("X-Storage-Url: {url}\r\nX-Auth-Token: t\r\nX-Storage-Token: t\r\n")
        }
        ("put", Some(index)) => tag(&etags.segments[index]),
        ("put", None) if query.contains("multipart-manifest=put") => {
            tag(&hex::encode(Md5::digest(etags.segments.concat())))
        }
        ("put", None) if last == "iso" => tag(&etags.iso),
        ("put", None) => tag(&etags.file),
        _ => return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    format!("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n{headers}\r\n")
}

fn tag(etag: &str) -> String {
    format!("Etag: {etag}\r\n")
}
