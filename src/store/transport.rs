//! The HTTP layer below `object_store`: every request of a connector passes here and is counted.

use std::fmt;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};

use super::listing::{self, ListingError, ListingPage, PageSlot};

/// How many requests a connector has sent, by kind, and how many bytes of answers it has read.
///
/// Retries count. The difference of two readings is the cost of what ran between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Pages of listings (ListObjectsV2).
    pub list: u64,
    /// Reads of objects (GetObject), whole or in part.
    pub get: u64,
    /// Reads of metadata only (HeadObject, HeadBucket).
    pub head: u64,
    /// Everything else: writes, deletes and requests for credentials.
    pub other: u64,
    /// Bytes of answers' bodies that were read, of any kind.
    pub bytes: u64,
}

impl RequestCounts {
    /// The number of requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.list + self.get + self.head + self.other
    }
}

impl Sub for RequestCounts {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            list: self.list.saturating_sub(earlier.list),
            get: self.get.saturating_sub(earlier.get),
            head: self.head.saturating_sub(earlier.head),
            other: self.other.saturating_sub(earlier.other),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl fmt::Display for RequestCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} LIST, {} GET, {} HEAD", self.list, self.get, self.head)?;
        if self.other > 0 {
            write!(f, ", {} other", self.other)?;
        }
        write!(f, ", {} bytes", self.bytes)
    }
}

/// The running totals behind [`RequestCounts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    list: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    other: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            list: read(&self.list),
            get: read(&self.get),
            head: read(&self.head),
            other: read(&self.other),
            bytes: read(&self.bytes),
        }
    }

    fn count(&self, request: &HttpRequest, is_s3: bool) {
        let counter = match request.method().as_str() {
            _ if !is_s3 => &self.other,
            "GET" if is_list(request) => &self.list,
            "GET" => &self.get,
            "HEAD" => &self.head,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes the HTTP clients of a connector's stores.
#[derive(Debug)]
pub(crate) struct Transport {
    counters: Arc<Counters>,
    signs: bool,
    inner: ReqwestConnector,
}

impl Transport {
    /// `signs` says whether requests to S3 are signed.
    pub(crate) fn new(counters: Arc<Counters>, signs: bool) -> Self {
        Self { counters, signs, inner: ReqwestConnector::default() }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.inner.connect(options)?;
        Ok(HttpClient::new(CountingService { client, counters: Arc::clone(&self.counters), signs: self.signs }))
    }
}

#[derive(Debug)]
struct CountingService {
    client: HttpClient,
    counters: Arc<Counters>,
    signs: bool,
}

#[async_trait]
impl HttpService for CountingService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Of signed requests, only those for credentials do not say what they hash.
        let is_s3 = !self.signs || request.headers().contains_key("x-amz-content-sha256");
        self.counters.count(&request, is_s3);
        let is_list = is_list(&request);
        let slot = request.extensions().get::<PageSlot>().cloned();
        let response = self.client.execute(request).await?;
        let counters = Arc::clone(&self.counters);
        let response = response.map(|body| {
            HttpResponseBody::new(body.map_frame(move |frame| {
                let length = frame.data_ref().map_or(0, |data| data.len());
                counters.bytes.fetch_add(length as u64, Ordering::Relaxed);
                frame
            }))
        });
        if !is_list || !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        // Here, unlike after its headers, an answer that breaks off is asked for again.
        let bytes = body.bytes().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        let page = parse_listing(&bytes)?;
        let Some(slot) = slot else { return Ok(HttpResponse::from_parts(parts, bytes.into())) };
        slot.put(page);
        // What `object_store` does not understand must not fail what it does.
        Ok(HttpResponse::from_parts(parts, Bytes::from_static(b"<ListBucketResult/>").into()))
    }
}

fn is_list(request: &HttpRequest) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "list-type=2"))
}

/// Parses the answer with status 200 to a LIST. `object_store` takes any XML for a listing, and would show an error or a
/// login page as an empty folder. An error of S3 is worth asking again, another document is not.
fn parse_listing(answer: &[u8]) -> Result<ListingPage, HttpError> {
    let (kind, reason) = match listing::parse(answer) {
        Ok(page) => return Ok(page),
        Err(ListingError::IsError) => (HttpErrorKind::Interrupted, "is an error with status 200".to_owned()),
        Err(ListingError::IsOther) => (HttpErrorKind::Decode, "is no listing".to_owned()),
        Err(ListingError::Malformed(reason)) => (HttpErrorKind::Decode, format!("is no proper listing ({reason})")),
    };
    let start: String = String::from_utf8_lossy(answer).chars().take(200).collect();
    let message = format!("the answer to a LIST {reason}; check the endpoint; it starts with: {start}");
    Err(HttpError::new(kind, std::io::Error::other(message)))
}
