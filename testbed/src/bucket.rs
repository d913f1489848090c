//! A bucket: an object store that holds the bytes, and an index of its keys.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use s3s::dto::{ETag, Metadata, Range};
use s3s::{S3Error, S3Result, s3_error};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::alias;
use crate::conditions::{ReadConditions, WriteConditions};
use crate::hex;
use crate::index::KeyIndex;

/// A bucket.
///
/// Its index, not its store, knows which keys there are: the store is listed
/// once, when the bucket is opened, and every write goes through here.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// Guards the index; held for a lookup, a change, or one page.
    index: RwLock<KeyIndex<Entry>>,
    /// The turn to write: a write of the store and of the index are one step to
    /// other writers, or the last one of each could be of different requests.
    turn: Semaphore,
}

/// What the index knows of a key.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) size: u64,
    /// The entity tag, without its quotes.
    pub(crate) etag: String,
    /// In whole seconds, as S3 keeps it.
    pub(crate) last_modified: SystemTime,
    pub(crate) headers: Arc<ObjectHeaders>,
    /// The store's own entity tag: whether the store holds what is described here.
    store_etag: Option<String>,
}

/// What a PUT says about an object and a GET repeats.
#[derive(Debug, Clone, Default)]
pub(crate) struct ObjectHeaders {
    pub(crate) cache_control: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) metadata: Option<Metadata>,
    /// `STANDARD` unless said otherwise.
    pub(crate) storage_class: Option<String>,
}

/// An object to be written.
#[derive(Debug, Default)]
pub(crate) struct NewObject {
    /// Its bytes, in pieces.
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) headers: Arc<ObjectHeaders>,
    /// The entity tag, if it is not the MD5 digest of the bytes.
    pub(crate) etag: Option<String>,
}

/// An object that is being read.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) entry: Entry,
    pub(crate) range: std::ops::Range<u64>,
    pub(crate) result: GetResult,
}

impl Bucket {
    /// The bucket over `store`, with the keys that the store lists now.
    pub(crate) async fn open(store: Arc<dyn ObjectStore>) -> object_store::Result<Self> {
        let mut index = KeyIndex::default();
        let mut objects = store.list(None);
        while let Some(meta) = objects.try_next().await? {
            index.insert(alias::key_of(&meta.location), Entry::found(&meta));
        }
        drop(objects);
        Ok(Self { store, index: RwLock::new(index), turn: Semaphore::new(1) })
    }

    /// The index, to read a page from.
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, KeyIndex<Entry>> {
        // The index is whole between its changes, which do not panic.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of `key`.
    pub(crate) fn entry(&self, key: &str) -> S3Result<Entry> {
        let entry = self.index().get(key).cloned();
        entry.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// Writes `object` as `key`, if `conditions` hold.
    pub(crate) async fn put(&self, key: &str, object: NewObject, conditions: &WriteConditions) -> S3Result<Entry> {
        let size = object.pieces.iter().map(|piece| piece.len() as u64).sum();
        let etag = object.etag.unwrap_or_else(|| digest(&object.pieces));
        let _turn = self.take_turn().await?;
        conditions.check(self.index().get(key))?;
        let payload = PutPayload::from_iter(object.pieces);
        let result = self.store.put(&alias::path_of(key), payload).await.map_err(store_error)?;
        let entry = Entry {
            size,
            etag,
            last_modified: whole_seconds(SystemTime::now()),
            headers: object.headers,
            store_etag: result.e_tag,
        };
        self.index_mut().insert(key.to_owned(), entry.clone());
        Ok(entry)
    }

    /// Removes `key`, and returns whether there was such a key.
    pub(crate) async fn delete(&self, key: &str) -> S3Result<bool> {
        let _turn = self.take_turn().await?;
        if self.index_mut().remove(key).is_none() {
            return Ok(false);
        }
        match self.store.delete(&alias::path_of(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(true),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Opens `range` of the object `key`, if `conditions` hold.
    pub(crate) async fn read(&self, key: &str, range: Option<Range>, conditions: &ReadConditions) -> S3Result<Opened> {
        let entry = self.entry(key)?;
        if matches!(entry.headers.storage_class.as_deref(), Some("GLACIER" | "DEEP_ARCHIVE")) {
            return Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class"));
        }
        if let Some(opened) = self.try_read(key, entry, range, conditions).await? {
            return Ok(opened);
        }
        // Lost to a writer. Between writers, index and store agree.
        let _turn = self.take_turn().await?;
        let entry = self.entry(key)?;
        if let Some(opened) = self.try_read(key, entry, range, conditions).await? {
            return Ok(opened);
        }
        // They do not: someone has written to the store itself. Its word counts.
        match self.store.head(&alias::path_of(key)).await {
            Ok(meta) => self.index_mut().insert(key.to_owned(), Entry::found(&meta)),
            Err(Error::NotFound { .. }) => drop(self.index_mut().remove(key)),
            Err(error) => return Err(store_error(error)),
        }
        let entry = self.entry(key)?;
        let opened = self.try_read(key, entry, range, conditions).await?;
        opened.ok_or_else(|| s3_error!(InternalError, "The object changes all the time"))
    }

    /// Opens the object that `entry` describes, or `None` if it is no longer there.
    async fn try_read(
        &self,
        key: &str,
        entry: Entry,
        range: Option<Range>,
        conditions: &ReadConditions,
    ) -> S3Result<Option<Opened>> {
        conditions.check(&entry)?;
        let range = entry.resolve(range)?;
        let options = GetOptions {
            if_match: entry.store_etag.clone(),
            // A store refuses the empty range, which only the empty object has.
            range: (!range.is_empty()).then(|| GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        match self.store.get_opts(&alias::path_of(key), options).await {
            Ok(result) => Ok(Some(Opened { entry, range, result })),
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn take_turn(&self) -> S3Result<SemaphorePermit<'_>> {
        self.turn.acquire().await.map_err(S3Error::internal_error)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, KeyIndex<Entry>> {
        // See `index`.
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The entity tag as S3 writes it.
    pub(crate) fn etag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    /// The bytes that `range` asks for, or `InvalidRange`.
    pub(crate) fn resolve(&self, range: Option<Range>) -> S3Result<std::ops::Range<u64>> {
        let range = match range {
            None => return Ok(0..self.size),
            Some(Range::Int { first, last }) => {
                let end = last.map_or(self.size, |last| last.saturating_add(1));
                first..end.min(self.size)
            }
            Some(Range::Suffix { length }) => self.size.saturating_sub(length)..self.size,
        };
        if range.is_empty() {
            return Err(s3_error!(InvalidRange, "The requested range is not satisfiable"));
        }
        Ok(range)
    }

    /// The entry of an object that was found in a store.
    fn found(meta: &ObjectMeta) -> Self {
        let modified = SystemTime::from(meta.last_modified);
        // Not the digest of the bytes, which nobody has read, but S3 promises
        // no more than that other bytes have another entity tag.
        let etag = Md5::new()
            .chain_update(meta.location.as_ref())
            .chain_update(meta.size.to_be_bytes())
            .chain_update(match &meta.e_tag {
                Some(etag) => etag.clone(),
                None => format!("{modified:?}"),
            })
            .finalize();
        Self {
            size: meta.size,
            etag: hex::encode(&etag),
            last_modified: whole_seconds(modified),
            headers: Arc::default(),
            store_etag: meta.e_tag.clone(),
        }
    }
}

/// The MD5 digest of `pieces`, one after the other, in hexadecimal.
pub(crate) fn digest(pieces: &[Bytes]) -> String {
    let digest = pieces.iter().fold(Md5::new(), |digest, piece| digest.chain_update(piece));
    hex::encode(&digest.finalize())
}

fn store_error(error: Error) -> S3Error {
    let mut error = S3Error::internal_error(error);
    error.set_message("We encountered an internal error. Please try again.");
    error
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
