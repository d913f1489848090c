//! The running server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::{S3Error, S3ErrorCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::access::Identity;
use crate::backend::Shared;
use crate::bucket::{NewObject, ObjectHeaders};
use crate::builder::TestbedBuilder;
use crate::conditions::{ReadConditions, WriteConditions};
use crate::log::{Counts, RequestRecord};
use crate::wire::Wire;

/// An S3 server in this process.
///
/// It runs on the runtime that it was started on. Dropping it closes its port
/// and all its connections.
pub struct Testbed {
    endpoint: String,
    wire: Arc<Wire>,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Testbed {
    /// Starts a server with one bucket, `testbed`, and one identity.
    ///
    /// # Errors
    ///
    /// If there is no port to listen on.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Sets a server up.
    pub fn builder() -> TestbedBuilder {
        TestbedBuilder::default()
    }

    /// The URL of the server: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The region of the server.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.region
    }

    /// The access key id of the first identity.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        self.identity().map_or("", Identity::access_key_id)
    }

    /// The secret access key of the first identity.
    #[must_use]
    pub fn secret_access_key(&self) -> &str {
        self.identity().map_or("", Identity::secret_access_key)
    }

    /// Sets the time from the arrival of a request to the first byte of its
    /// answer, for answers that have not begun.
    pub fn set_latency(&self, latency: Duration) {
        self.wire.pace.set_latency(latency);
    }

    /// Limits the bodies of answers to so many bytes in a second, on each
    /// connection; `None` lifts the limit.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.wire.pace.set_rate(bytes_per_second);
    }

    /// Writes an object, without a request, and returns its entity tag in its quotes.
    ///
    /// # Errors
    ///
    /// If there is no such bucket, or its store refuses the object.
    pub async fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> io::Result<String> {
        self.put_in(bucket, key, None, body).await
    }

    /// As [`put`](Self::put), in a storage class. An object in `GLACIER` or `DEEP_ARCHIVE` cannot be read.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub async fn put_in(
        &self,
        bucket: &str,
        key: &str,
        storage_class: Option<&str>,
        body: impl Into<Bytes>,
    ) -> io::Result<String> {
        let headers = ObjectHeaders { storage_class: storage_class.map(str::to_owned), ..ObjectHeaders::default() };
        let object = NewObject { pieces: vec![body.into()], headers: Arc::new(headers), ..NewObject::default() };
        let bucket = self.shared.bucket(bucket).map_err(io_error)?;
        let written = bucket.put(key, object, &WriteConditions::default()).await;
        Ok(format!("\"{}\"", written.map_err(io_error)?.etag))
    }

    /// Removes an object, without a request, and returns whether it was there.
    pub async fn delete(&self, bucket: &str, key: &str) -> bool {
        match self.shared.bucket(bucket) {
            Ok(bucket) => bucket.delete(key).await.unwrap_or(false),
            Err(_) => false,
        }
    }

    /// The keys of a bucket in order, without a request. A bucket that does not exist has none.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        match self.shared.bucket(bucket) {
            Ok(bucket) => bucket.index().keys().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Reads an object, without a request.
    ///
    /// # Errors
    ///
    /// If there is no such bucket or object, or the store fails.
    pub async fn get(&self, bucket: &str, key: &str) -> io::Result<Bytes> {
        let bucket = self.shared.bucket(bucket).map_err(io_error)?;
        let opened = bucket.read(key, None, &ReadConditions::default()).await;
        let result = opened.map_err(io_error)?.result;
        result.bytes().await.map_err(io::Error::other)
    }

    /// The requests since the start or the latest reset, in the order of their arrival.
    #[must_use]
    pub fn log(&self) -> Vec<RequestRecord> {
        self.wire.log.records()
    }

    /// How many requests there were since the start or the latest reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.wire.log.counts()
    }

    /// Forgets the requests that were logged.
    pub fn reset_log(&self) {
        self.wire.log.reset();
    }

    /// Listens, and answers in the background.
    pub(crate) async fn serve(wire: Wire, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let wire = Arc::new(wire);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&wire))).abort_handle();
        Ok(Self { endpoint, wire, shared, accepting })
    }

    fn identity(&self) -> Option<&Identity> {
        self.wire.policy.identities.first()
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // The task owns the listener and the connections.
        self.accepting.abort();
    }
}

impl fmt::Debug for Testbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Testbed")
            .field("endpoint", &self.endpoint)
            .field("policy", &self.wire.policy)
            .finish_non_exhaustive()
    }
}

/// Accepts connections until it is aborted, which aborts them as well.
async fn accept(listener: TcpListener, wire: Arc<Wire>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&wire)));
            }
            // Out of file descriptors, most likely: some may be free soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        // Let go of those that have ended.
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, wire: Arc<Wire>) {
    // Without it a small answer may wait for the client's acknowledgement; a
    // platform that cannot do it is only slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let wire = Arc::clone(&wire);
        async move { wire.answer(request).await }
    });
    // An error is the end of the connection: the client's wish, or a fault's.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn io_error(error: S3Error) -> io::Error {
    let kind = match error.code() {
        S3ErrorCode::NoSuchBucket | S3ErrorCode::NoSuchKey => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
