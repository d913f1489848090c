//! What the server was asked: one record for each request, and their counts.

use std::fmt;
use std::ops::Sub;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The kind of operation.
    pub operation: Operation,
    /// The bucket, or an empty string if the request names none.
    pub bucket: String,
    /// The key, percent-decoded once; for [`Operation::List`] the prefix.
    pub key: String,
    /// The query string as it was sent, without the question mark.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// The access key id that the `Authorization` header claims.
    pub access_key_id: Option<String>,
    /// The status of the answer, or 0 as long as there is none.
    pub status: u16,
    /// When the request arrived, since the start of the server.
    pub started: Duration,
    /// The time from the arrival of the request to the end of the answer, or to
    /// the latest part of it that was sent.
    pub elapsed: Duration,
    /// Bytes of the answer's body that were sent.
    pub bytes: u64,
}

/// The kinds of operation that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// A page of a bucket's keys (`ListObjectsV2`).
    List,
    /// An object, or a range of it.
    Get,
    /// The metadata of an object or a bucket.
    Head,
    /// An object, a copy, or a part of a multipart upload.
    Put,
    /// The removal of one object, or of a multipart upload.
    Delete,
    /// The removal of several objects, the begin or the end of a multipart upload.
    Post,
    /// Anything else.
    Other,
}

/// How many requests of each kind there were.
///
/// The difference of two counts is what happened in between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests of [`Operation::List`].
    pub list: u64,
    /// Requests of [`Operation::Get`].
    pub get: u64,
    /// Requests of [`Operation::Head`].
    pub head: u64,
    /// Requests of [`Operation::Put`].
    pub put: u64,
    /// Requests of [`Operation::Delete`].
    pub delete: u64,
    /// Requests of [`Operation::Post`].
    pub post: u64,
    /// Requests of [`Operation::Other`].
    pub other: u64,
    /// Bytes of answers' bodies that were sent.
    pub bytes: u64,
}

impl Counts {
    /// The number of requests of all kinds.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.list + self.get + self.head + self.put + self.delete + self.post + self.other
    }

    fn add(&mut self, record: &RequestRecord) {
        let count = match record.operation {
            Operation::List => &mut self.list,
            Operation::Get => &mut self.get,
            Operation::Head => &mut self.head,
            Operation::Put => &mut self.put,
            Operation::Delete => &mut self.delete,
            Operation::Post => &mut self.post,
            Operation::Other => &mut self.other,
        };
        *count += 1;
        self.bytes += record.bytes;
    }
}

impl Sub for Counts {
    type Output = Self;

    /// Saturates at zero: the log may have been reset in between.
    fn sub(self, earlier: Self) -> Self {
        Self {
            list: self.list.saturating_sub(earlier.list),
            get: self.get.saturating_sub(earlier.get),
            head: self.head.saturating_sub(earlier.head),
            put: self.put.saturating_sub(earlier.put),
            delete: self.delete.saturating_sub(earlier.delete),
            post: self.post.saturating_sub(earlier.post),
            other: self.other.saturating_sub(earlier.other),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl fmt::Display for Counts {
    /// Kinds that did not occur are left out: `3 requests (2 LIST, 1 GET), 4096 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.requests();
        let plural = if requests == 1 { "" } else { "s" };
        write!(f, "{requests} request{plural}")?;
        let mut separator = " (";
        for (count, name) in [
            (self.list, "LIST"),
            (self.get, "GET"),
            (self.head, "HEAD"),
            (self.put, "PUT"),
            (self.delete, "DELETE"),
            (self.post, "POST"),
            (self.other, "other"),
        ] {
            if count > 0 {
                write!(f, "{separator}{count} {name}")?;
                separator = ", ";
            }
        }
        if requests > 0 {
            f.write_str(")")?;
        }
        write!(f, ", {} bytes", self.bytes)
    }
}

/// The records of a running server.
#[derive(Debug)]
pub(crate) struct Log {
    start: Instant,
    /// Guards the records, so that a count is a snapshot of one moment.
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    /// Requests that were recorded before the latest reset.
    forgotten: u64,
    kept: Vec<RequestRecord>,
}

impl Log {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), records: Mutex::default() })
    }

    /// Adds the record of a request that arrived just now.
    pub(crate) fn arrive(self: &Arc<Self>, mut record: RequestRecord) -> Ticket {
        record.started = self.start.elapsed();
        let mut records = self.lock();
        let sequence = records.forgotten + records.kept.len() as u64;
        records.kept.push(record);
        drop(records);
        Ticket { log: Arc::clone(self), sequence }
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.lock().kept.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in &self.lock().kept {
            counts.add(record);
        }
        counts
    }

    pub(crate) fn reset(&self) {
        let mut records = self.lock();
        records.forgotten += records.kept.len() as u64;
        records.kept.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        // Every change under the lock is complete in itself, so what a thread
        // that panicked left behind is fit for use.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to complete one record, which is done at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    log: Arc<Log>,
    sequence: u64,
}

impl Ticket {
    /// The number of the request, counted from the start of the server.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn status(&self, status: u16) {
        self.update(|record| record.status = status);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.update(|record| record.bytes += bytes as u64);
    }

    fn update(&self, change: impl FnOnce(&mut RequestRecord)) {
        let now = self.log.start.elapsed();
        let mut records = self.log.lock();
        let index = self.sequence.checked_sub(records.forgotten);
        // The log may have been reset since the request arrived.
        let record = index.and_then(|index| usize::try_from(index).ok()).and_then(|index| records.kept.get_mut(index));
        if let Some(record) = record {
            record.elapsed = now.saturating_sub(record.started);
            change(record);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.update(|_| ());
    }
}
