//! A real store whose answers a layer in front of it breaks, one fault a request.

use super::site::{Site, eventually, files, pattern};
use super::{bytes, create};
use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flowrun::error::{Error, Kind};
use flowrun::openstack::swift::{Body, Swift, SwiftOptions, UploadOptions};
use futures_util::StreamExt;
use futures_util::stream;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Answered with this status; the store does not see it.
    Status(u16),
    /// Never answered, and its body not read.
    Hang,
    /// The connection is cut after so many bytes of the answer's body.
    Cut(usize),
    /// The same, but not before the test says so.
    CutLater(usize),
    /// Nothing comes after so many bytes of the answer's body.
    Stall(usize),
    /// The first byte of the answer's body is changed.
    Flip,
    /// The answer tells another ETag.
    WrongEtag,
    /// The store does what it is asked to, and the answer is this status.
    Unsaid(u16),
}

/// The faults to come, for requests of one method under `/c/`, and how many such there were.
#[derive(Clone)]
pub(crate) struct Faults {
    method: Method,
    plan: Arc<Mutex<VecDeque<Fault>>>,
    seen: Arc<Mutex<u32>>,
    cut: Arc<Notify>,
}

impl Faults {
    pub(crate) fn new(method: Method, plan: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            method,
            plan: Arc::new(Mutex::new(plan.into_iter().collect())),
            seen: Arc::default(),
            cut: Arc::default(),
        }
    }

    pub(crate) fn site(&self) -> Site {
        let faults = self.clone();
        let layer = |router: Router| router.layer(middleware::from_fn_with_state(faults, inject));
        Site::wrapped(layer)
    }

    pub(crate) fn seen(&self) -> u32 {
        *self.seen.lock().unwrap()
    }
}

async fn inject(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    if request.method() != faults.method || !request.uri().path().contains("/c/") {
        return next.run(request).await;
    }
    *faults.seen.lock().unwrap() += 1;
    let fault = faults.plan.lock().unwrap().pop_front();
    match fault {
        None => next.run(request).await,
        Some(Fault::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::WrongEtag) => {
            let mut response = next.run(request).await;
            let etag = HeaderValue::from_static("d41d8cd98f00b204e9800998ecf8427e");
            response.headers_mut().insert(header::ETAG, etag);
            response
        }
        Some(Fault::Unsaid(status)) => {
            assert!(next.run(request).await.status().is_success());
            StatusCode::from_u16(status).unwrap().into_response()
        }
        Some(fault) => {
            let (head, body) = next.run(request).await.into_parts();
            Response::from_parts(head, damaged(body, fault, faults.cut).await)
        }
    }
}

async fn damaged(body: HttpBody, fault: Fault, cut: Arc<Notify>) -> HttpBody {
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let some = |n: usize| stream::iter([Ok::<_, io::Error>(whole.slice(..n))]);
    match fault {
        Fault::Cut(n) => {
            let cut = async {
                tokio::task::yield_now().await; // a pause, in which hyper sends what it has
                Err(io::ErrorKind::ConnectionReset.into())
            };
            HttpBody::from_stream(some(n).chain(stream::once(cut)))
        }
        Fault::CutLater(n) => {
            let cut = async move {
                cut.notified().await;
                Err(io::ErrorKind::ConnectionReset.into())
            };
            HttpBody::from_stream(some(n).chain(stream::once(cut)))
        }
        Fault::Stall(n) => HttpBody::from_stream(some(n).chain(stream::pending())),
        Fault::Flip => {
            let mut flipped = whole.to_vec();
            flipped[0] ^= 1;
            HttpBody::from(flipped)
        }
        _ => unreachable!("{fault:?} does not damage a body"),
    }
}

fn impatient(site: &Site) -> Swift {
    let options = SwiftOptions {
        stall_timeout: Duration::from_millis(300),
        ..site.options()
    };
    Swift::new(options).unwrap()
}

/// A file of some size beside the store.
fn file(site: &Site, length: usize) -> (Body, Vec<u8>) {
    let path = site.dir.path().join("upload");
    let content = pattern(length);
    std::fs::write(&path, &content).unwrap();
    (Body::File(path), content)
}

async fn put(swift: &Swift, content: &[u8]) {
    let body = Body::Bytes(Bytes::from(content.to_vec()));
    swift.upload("c", "o", body, create()).await.unwrap();
}

async fn download(site: &Site, swift: &Swift) -> Result<Vec<u8>, Error> {
    let to = site.dir.path().join("got");
    swift.download("c", "o", &to).await?;
    Ok(std::fs::read(to).unwrap())
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let later = [503, 500, 504].map(Fault::Status);
    let faults = Faults::new(Method::PUT, later);
    let site = faults.site();
    let swift = site.client();
    let (body, content) = file(&site, 3_000_000);
    let uploaded = swift.upload("c", "o", body, create()).await.unwrap();
    assert_eq!((uploaded.bytes, faults.seen()), (3_000_000, 4));
    assert_eq!(download(&site, &swift).await.unwrap(), content);

    let faults = Faults::new(Method::PUT, [503; 9].map(Fault::Status));
    let site = faults.site();
    let error = site
        .client()
        .upload("c", "o", bytes("1"), create())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable(), faults.seen()),
        (Kind::Unreachable, true, 4)
    );

    let faults = Faults::new(Method::PUT, [507; 9].map(Fault::Status));
    let site = faults.site();
    let error = site
        .client()
        .upload("c", "o", bytes("1"), create())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), faults.seen()),
        (Kind::Limit, 1),
        "what cannot pass is not"
    );
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let faults = Faults::new(Method::PUT, [401].map(Fault::Status));
    let site = faults.site();
    let (body, _) = file(&site, 100_000);
    site.client()
        .upload("c", "o", body, create())
        .await
        .unwrap();
    assert_eq!(faults.seen(), 2);

    let faults = Faults::new(Method::PUT, [401, 401, 401].map(Fault::Status));
    let site = faults.site();
    let error = site
        .client()
        .upload("c", "o", bytes("1"), create())
        .await
        .unwrap_err();
    assert_eq!((error.kind(), faults.seen()), (Kind::Auth, 2));
    assert!(
        error.advice().unwrap().contains("even after a new login"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let faults = Faults::new(Method::GET, [Fault::Cut(300_000), Fault::Stall(500_000)]);
    let site = faults.site();
    let swift = impatient(&site);
    let content = pattern(1_000_000);
    put(&swift, &content).await;
    assert!(download(&site, &swift).await.unwrap() == content);
    let readers = site.store.readers("c", "o");
    assert_eq!((readers[0].requests, readers[0].range_requests), (3, 2));
}

#[tokio::test]
async fn a_download_never_mixes_two_objects() {
    let faults = Faults::new(Method::GET, [Fault::CutLater(300_000)]);
    let site = faults.site();
    let swift = site.client();
    put(&swift, &pattern(1_000_000)).await;
    let new = vec![7; 900_000];
    let replaced = async {
        eventually("the download has begun", || faults.seen() == 1).await;
        put(&swift, &new).await;
        faults.cut.notify_one();
    };
    let (downloaded, ()) = tokio::join!(download(&site, &swift), replaced);
    assert!(downloaded.unwrap() == new);
}

#[tokio::test]
async fn changed_bytes_are_noticed_and_not_kept() {
    let faults = Faults::new(Method::PUT, [Fault::WrongEtag]);
    let site = faults.site();
    let swift = site.client();
    let (body, _) = file(&site, 2_000_000);
    let error = swift.upload("c", "o", body, create()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Corrupt, true));
    assert_eq!(swift.head("c", "o").await.unwrap(), None, "deleted");

    let faults = Faults::new(Method::GET, [Fault::Flip]);
    let site = faults.site();
    let swift = site.client();
    put(&swift, &pattern(100_000)).await;
    let before = files(site.dir.path()).len();
    let error = download(&site, &swift).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (Kind::Corrupt, "swift.download")
    );
    assert_eq!(
        files(site.dir.path()).len(),
        before,
        "neither the file nor a part of it"
    );
}

#[tokio::test]
async fn an_upload_that_nobody_takes_is_given_up_and_tried_again() {
    let faults = Faults::new(Method::PUT, [Fault::Hang]);
    let site = faults.site();
    let (body, content) = file(&site, 8 << 20);
    let swift = impatient(&site);
    swift
        .upload("c", "o", body.clone(), create())
        .await
        .unwrap();
    assert_eq!(faults.seen(), 2);
    assert!(download(&site, &swift).await.unwrap() == content);

    let faults = Faults::new(Method::PUT, [Fault::Hang; 9]);
    let site = faults.site();
    let error = impatient(&site)
        .upload("c", "o", body, UploadOptions::default())
        .await;
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Timeout, true));
    assert!(error.message().starts_with("no progress for"), "{error}");
}

/// A manifest that was stored though its answers got lost lists segments: they must stay.
#[tokio::test]
async fn segments_stay_when_their_manifest_may_be_there() {
    let faults = Faults::new(Method::PUT, []);
    let site = faults.site();
    let swift = site.client();
    let segmented = UploadOptions {
        segment_bytes: Some(1 << 20),
        ..create()
    };
    let (body, content) = file(&site, 2_500_000);
    let upload = || swift.upload("c", "o", body.clone(), segmented.clone());
    upload().await.unwrap();
    faults.plan.lock().unwrap().extend([Fault::Unsaid(503); 4]);
    assert_eq!(upload().await.unwrap_err().kind(), Kind::Unreachable);
    assert!(download(&site, &swift).await.unwrap() == content);

    // The server says that it stored something else: neither is left.
    faults.plan.lock().unwrap().extend([Fault::WrongEtag]);
    assert_eq!(upload().await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(swift.head("c", "o").await.unwrap(), None);
}
