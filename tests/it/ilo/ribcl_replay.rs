//! Bytes of a real iLO 3, served over TLS and cut where a network or old firmware cuts them.

use super::site::{Authority, PASSWORD, TIMEOUT};
use flowrun::http::Trust;
use flowrun::ilo::model::PowerState;
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::secret::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const VERSION: &[u8] = include_bytes!("../../data/ilo/ribcl/ilo3-raw-http/get_fw_version.raw");
const POWER: &[u8] = include_bytes!("../../data/ilo/ribcl/ilo3-raw-http/get_host_power_status.raw");
const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How an answer is sent.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Bytes a TLS record.
    record: usize,
    /// Whether the connection ends instead of the last chunk, without TLS's good-bye.
    without_end: bool,
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let identity = authority.identity();
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn answer(stream: TcpStream, acceptor: &TlsAcceptor, cut: Cut) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    let has = |request: &[u8], part: &str| String::from_utf8_lossy(request).contains(part);
    // A document ends with its root element, a plain GET with its headers.
    let is_whole = |request: &[u8]| {
        has(request, "</RIBCL>") || request.starts_with(b"GET") && has(request, "\r\n\r\n")
    };
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let capture = match () {
        () if has(&request, "<GET_FW_VERSION") => VERSION,
        () if has(&request, "<GET_HOST_POWER_STATUS") => POWER,
        () => NOT_FOUND,
    };
    let is_cut = cut.without_end && capture != NOT_FOUND;
    let end = match is_cut {
        true => capture.len() - b"0\r\n\r\n".len(),
        false => capture.len(),
    };
    for record in capture[..end].chunks(cut.record) {
        stream.write_all(record).await?;
        stream.flush().await?;
    }
    match is_cut {
        true => stream.get_mut().0.shutdown().await,
        false => stream.shutdown().await,
    }
}

#[tokio::test]
async fn an_answer_is_read_however_it_is_cut() {
    for capture in [VERSION, POWER] {
        assert!(capture.ends_with(b"\n0\r\n\r\n"));
    }
    for (record, without_end) in [(1, false), (7, true), (31, false), (16_384, true)] {
        let cut = Cut {
            record,
            without_end,
        };
        let authority = Authority::new();
        let acceptor = acceptor(&authority);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("https://{}", listener.local_addr().unwrap());
        let serve = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that leaves early is seen by the client's half of the test.
                drop(answer(stream, &acceptor, cut).await);
            }
        };
        let talk = async {
            let ilo = Ilo::connect(IloOptions {
                base_url,
                username: "root".to_owned(),
                password: Secret::new(PASSWORD),
                trust: Trust::Ca(authority.pem.clone()),
                legacy_tls: false,
                timeout: TIMEOUT,
            });
            let ilo = ilo.await.unwrap();
            assert_eq!(ilo.power_state().await.unwrap(), PowerState::On, "{cut:?}");
        };
        tokio::select! {
            () = serve => unreachable!("it serves for ever"),
            () = talk => {}
        }
    }
}
