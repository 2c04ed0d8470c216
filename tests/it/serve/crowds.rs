//! Clients that are slow, silent or many.

use super::daemon::Daemon;
use crate::flow::LabUp;
use flowrun::http::Trust;
use flowrun::http::server::{Door, Limits, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn shake(daemon: &Daemon, tcp: TcpStream) -> TlsStream<TcpStream> {
    let config = Trust::Ca(daemon.ca_pem()).tls().unwrap();
    let name = address(daemon).ip().into();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, tcp).await.unwrap()
}

fn address(daemon: &Daemon) -> SocketAddr {
    daemon
        .url
        .strip_prefix("https://")
        .unwrap()
        .parse()
        .unwrap()
}

/// Ends when the peer closed; whatever it says before is answered.
async fn answer_until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(120), stream.read_to_end(&mut answer));
    // A reset is a way to close.
    drop(closed.await.expect("the server keeps a silent client"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn hundreds_of_silent_clients_hinder_nobody_and_are_let_go() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let to = address(&daemon);
    let mut silent = Vec::new();
    let mut half = Vec::new();
    for n in 0..300 {
        let mut tcp = TcpStream::connect(to).await.unwrap();
        match n % 3 {
            0 => silent.push(tcp),
            // The beginning of a ClientHello.
            1 => {
                tcp.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
                silent.push(tcp);
            }
            _ => {
                let mut stream = shake(&daemon, tcp).await;
                let head = "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Le";
                stream.write_all(head.as_bytes()).await.unwrap();
                half.push(stream);
            }
        }
    }
    daemon.get("/v1/runs").await;
    for stream in &mut silent {
        assert_eq!(answer_until_closed(stream).await, "");
    }
    for stream in &mut half {
        answer_until_closed(stream).await;
    }
    daemon.get("/v1/runs").await;
}

#[tokio::test]
async fn a_connection_that_is_kept_and_not_used_is_closed() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let mut stream = shake(&daemon, TcpStream::connect(address(&daemon)).await.unwrap()).await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = answer_until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A body that never comes is answered, and its connection ends.
#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let mut stream = shake(&daemon, TcpStream::connect(address(&daemon)).await.unwrap()).await;
    let head = "POST /v1/nodes/x/vendor_passthru/pass_deploy_info HTTP/1.1\r\nHost: x\r\n\
        Content-Length: 100\r\n\r\n{\"key\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = answer_until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn there_are_no_more_connections_than_there_may_be() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let door = Door {
        identity: None,
        client_ca_pem: None,
        limits: Some(Limits {
            patience: Duration::from_secs(600),
            connections: 20,
            per_address: 10,
        }),
    };
    let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
    let server = serve(listener, router, &door).unwrap();
    let from = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::from(([127, 0, 0, last], 0)))
            .unwrap();
        socket.connect(server.address()).await.unwrap()
    };
    let greeted = async |stream: &mut TcpStream| {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let sent = stream.write_all(head).await;
        sent.is_ok() && answer_until_closed(stream).await.ends_with("hello")
    };
    let mut kept = Vec::new();
    for last in [2, 3] {
        for _ in 0..10 {
            let mut stream = from(last).await;
            // Answered once: it has its seat.
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut begin = [0; 12];
            stream.read_exact(&mut begin).await.unwrap();
            assert_eq!(&begin, b"HTTP/1.1 200");
            kept.push(stream);
        }
        let full = last == 3;
        assert!(
            !greeted(&mut from(2).await).await,
            "one address has its share"
        );
        assert_eq!(
            greeted(&mut from(4).await).await,
            !full,
            "others have theirs"
        );
    }
    kept.clear();
    // Seats come back as soon as the server sees that they are empty.
    while !greeted(&mut from(2).await).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
