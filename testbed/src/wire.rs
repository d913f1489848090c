//! The HTTP layer: what happens around an operation of S3.
//!
//! Each request is logged, shown to the fault hook, handed to the S3 service,
//! and answered no earlier than the latency allows.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use s3s::service::S3Service;
use tokio::time::Instant;

use crate::access::{Policy, bucket_of_host};
use crate::body::WireBody;
use crate::fault::{Fault, FaultAction, FaultRequest};
use crate::log::{Log, Operation, RequestRecord, Ticket};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// What all connections of a server share.
pub(crate) struct Wire {
    pub(crate) service: S3Service,
    pub(crate) policy: Arc<Policy>,
    pub(crate) region: HeaderValue,
    pub(crate) fault: Option<Arc<dyn Fault>>,
    pub(crate) log: Arc<Log>,
    pub(crate) pace: Arc<Pace>,
}

impl Wire {
    /// Answers one request. An error ends the connection.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<WireBody>, Closed> {
        let arrived = Instant::now();
        let record = record_of(&request);
        let known_bucket = self.policy.exists(&record.bucket);
        let (ticket, action) = self.admit(record);

        let mut cut = None;
        let mut delay = Duration::ZERO;
        let mut instead = None;
        match action {
            FaultAction::Pass => {}
            FaultAction::Delay(duration) => delay = duration,
            FaultAction::CutBody { after } => cut = Some(after),
            FaultAction::Reset => return Err(Closed),
            FaultAction::Respond { status, content_type, body } => instead = Some(respond(status, content_type, body)),
        }
        let mut response = match instead {
            Some(response) => response,
            None => {
                let request = request.map(s3s::Body::from);
                self.service.call(request).await.map_err(|_| Closed)?
            }
        };

        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&format!("{:016X}", ticket.sequence())) {
            headers.insert(REQUEST_ID, id);
        }
        if known_bucket {
            headers.insert(BUCKET_REGION, self.region.clone());
        }
        let wait = self.pace.latency() + delay;
        if !wait.is_zero() {
            tokio::time::sleep_until(arrived + wait).await;
        }
        ticket.status(response.status().as_u16());
        let pace = Arc::clone(&self.pace);
        Ok(response.map(|body| WireBody::new(body, pace, cut, ticket)))
    }

    /// Logs the request and asks the fault hook about it.
    fn admit(&self, record: RequestRecord) -> (Ticket, FaultAction) {
        let Some(fault) = &self.fault else {
            return (self.log.arrive(record), FaultAction::Pass);
        };
        let ticket = self.log.arrive(record.clone());
        let action = fault.decide(&FaultRequest {
            operation: record.operation,
            bucket: &record.bucket,
            key: &record.key,
            query: &record.query,
            range: record.range.as_deref(),
            sequence: ticket.sequence(),
        });
        (ticket, action)
    }
}

/// Latency and rate, which may change while the server runs.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    latency_nanos: AtomicU64,
    /// Bytes in a second; zero stands for no limit.
    rate: AtomicU64,
}

impl Pace {
    pub(crate) fn set_latency(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_nanos.store(nanos, Ordering::Relaxed);
    }

    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn rate(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.rate.load(Ordering::Relaxed))
    }
}

/// The reason of a connection that ends before its answer does.
#[derive(Debug)]
pub(crate) struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the testbed closed the connection")
    }
}

impl std::error::Error for Closed {}

fn respond(status: u16, content_type: &'static str, body: Bytes) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// What the log keeps of a request.
fn record_of(request: &Request<Incoming>) -> RequestRecord {
    let headers = request.headers();
    let query = request.uri().query().unwrap_or_default();
    // The first slash belongs to the request line, any other may be the key's.
    let path = request.uri().path();
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = match text(headers, &header::HOST).and_then(bucket_of_host) {
        Some(bucket) => (bucket.to_owned(), path),
        None => {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            (decode(bucket), key)
        }
    };
    let operation = operation_of(request.method(), &bucket, key, query);
    let key = match operation {
        // A query is a form: a plus sign stands for a space.
        Operation::List => decode(&parameter(query, "prefix").unwrap_or_default().replace('+', " ")),
        _ => decode(key),
    };
    RequestRecord {
        operation,
        bucket,
        key,
        query: query.to_owned(),
        range: text(headers, &header::RANGE).map(str::to_owned),
        if_match: text(headers, &header::IF_MATCH).map(str::to_owned),
        access_key_id: text(headers, &header::AUTHORIZATION)
            .and_then(|value| value.split_once("Credential=")?.1.split('/').next())
            .map(str::to_owned),
        status: 0,
        started: Duration::ZERO,
        elapsed: Duration::ZERO,
        bytes: 0,
    }
}

fn operation_of(method: &Method, bucket: &str, key: &str, query: &str) -> Operation {
    // Parameters that make a GET of a bucket a listing of its keys; any other
    // one, like `location` or `uploads`, asks for something else.
    let of_a_listing = |query: &str| {
        parameter(query, "list-type").is_some()
            || parameter(query, "prefix").is_some()
            || parameter(query, "delimiter").is_some()
            || query.is_empty()
    };
    match method.as_str() {
        "GET" if bucket.is_empty() => Operation::Other,
        "GET" if key.is_empty() && of_a_listing(query) => Operation::List,
        "GET" if key.is_empty() => Operation::Other,
        "GET" => Operation::Get,
        "HEAD" => Operation::Head,
        "PUT" => Operation::Put,
        "DELETE" => Operation::Delete,
        "POST" => Operation::Post,
        _ => Operation::Other,
    }
}

/// The raw value of a parameter of a query.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
