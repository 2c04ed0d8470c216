//! What a refused request had still to send. Its connection closed at once would be reset under the
//! client's writes, and the client would read an error of its socket in place of our answer.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How much is read for nothing, and for how long; who sends more is cut off.
const MOST: u64 = 8 << 20;
const LONGEST: Duration = Duration::from_secs(2);

/// A request's body, of which its handler may leave a part unread.
#[derive(Debug, Clone)]
pub(super) struct Unread(Arc<Mutex<Body>>);

impl Unread {
    /// The request for its handler, and a hold on what that leaves of the body.
    pub(super) fn of(request: Request) -> (Request, Self) {
        let (head, body) = request.into_parts();
        let unread = Self(Arc::new(Mutex::new(body)));
        let body = Body::new(unread.clone());
        (Request::from_parts(head, body), unread)
    }

    /// Takes what is left before a refusal goes out. A connection that still holds some has to end,
    /// and who does not know that would lose the next request.
    pub(super) async fn before(self, mut refusal: Response) -> Response {
        let taken = tokio::time::timeout(LONGEST, self.take()).await;
        if !taken.is_ok_and(|whole| whole) {
            let close = HeaderValue::from_static("close");
            refusal.headers_mut().insert(CONNECTION, close);
        }
        refusal
    }

    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that was all.
    async fn take(self) -> bool {
        let mut this = self;
        let mut taken = 0;
        while taken <= MOST {
            match poll_fn(|context| Pin::new(&mut this).poll_frame(context)).await {
                Some(Ok(frame)) => taken += frame.data_ref().map_or(0, Bytes::len) as u64,
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
