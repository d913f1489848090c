//! Multipart uploads in progress. Their parts are kept in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use md5::{Digest, Md5};
use s3s::dto::{CompletedPart, ETag};
use s3s::{S3Error, S3Result, s3_error};

use crate::bucket::{NewObject, ObjectHeaders, digest};
use crate::hex;

/// The least size of every part but the last.
const LEAST_PART: usize = 5 * 1024 * 1024;

/// The greatest number of a part.
const MOST_PARTS: i32 = 10_000;

/// The uploads of a server.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    next_id: AtomicU64,
    /// Guards the uploads and their parts.
    uploads: Mutex<HashMap<String, Upload>>,
}

#[derive(Debug)]
struct Upload {
    bucket: String,
    key: String,
    headers: Arc<ObjectHeaders>,
    parts: BTreeMap<i32, Part>,
}

#[derive(Debug, Clone)]
struct Part {
    pieces: Vec<Bytes>,
    size: usize,
    etag: String,
}

impl Uploads {
    /// Begins an upload and returns its id.
    pub(crate) fn create(&self, bucket: &str, key: &str, headers: ObjectHeaders) -> String {
        let id = format!("upload-{:08}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let upload = Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            headers: Arc::new(headers),
            parts: BTreeMap::new(),
        };
        self.lock().insert(id.clone(), upload);
        id
    }

    /// Adds a part, or replaces it, and returns its entity tag.
    pub(crate) fn put_part(
        &self,
        (bucket, key, id): (&str, &str, &str),
        number: i32,
        pieces: Vec<Bytes>,
    ) -> S3Result<ETag> {
        if !(1..=MOST_PARTS).contains(&number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"));
        }
        let part = Part { size: pieces.iter().map(Bytes::len).sum(), etag: digest(&pieces), pieces };
        let etag = ETag::Strong(part.etag.clone());
        let mut uploads = self.lock();
        let upload = uploads.get_mut(id).filter(|upload| upload.is(bucket, key));
        upload.ok_or_else(no_such_upload)?.parts.insert(number, part);
        Ok(etag)
    }

    /// The object that the listed parts make. The upload stays until it is [removed](Self::remove).
    pub(crate) fn assemble(
        &self,
        (bucket, key, id): (&str, &str, &str),
        listed: &[CompletedPart],
    ) -> S3Result<NewObject> {
        let uploads = self.lock();
        let upload = uploads.get(id).filter(|upload| upload.is(bucket, key));
        upload.ok_or_else(no_such_upload)?.assemble(listed)
    }

    /// Ends an upload.
    pub(crate) fn remove(&self, (bucket, key, id): (&str, &str, &str)) -> S3Result<()> {
        let mut uploads = self.lock();
        if !uploads.get(id).is_some_and(|upload| upload.is(bucket, key)) {
            return Err(no_such_upload());
        }
        uploads.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        // Every change under the lock is a single one of the map.
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    fn is(&self, bucket: &str, key: &str) -> bool {
        self.bucket == bucket && self.key == key
    }

    fn assemble(&self, listed: &[CompletedPart]) -> S3Result<NewObject> {
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "You must specify at least one part"));
        }
        if !listed.is_sorted_by(|a, b| a.part_number < b.part_number) {
            return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
        }
        let mut pieces = Vec::new();
        let mut digests = Md5::new();
        for (position, wanted) in listed.iter().enumerate() {
            let part = wanted.part_number.and_then(|number| self.parts.get(&number));
            let same = |part: &&Part| {
                let etag = wanted.e_tag.as_ref();
                etag.is_none_or(|etag| etag.value() == part.etag)
            };
            let Some(part) = part.filter(same) else {
                return Err(s3_error!(InvalidPart, "One or more of the specified parts could not be found."));
            };
            if part.size < LEAST_PART && position + 1 < listed.len() {
                return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"));
            }
            pieces.extend(part.pieces.iter().cloned());
            digests.update(hex::decode(&part.etag).unwrap_or_default());
        }
        Ok(NewObject {
            pieces,
            headers: Arc::clone(&self.headers),
            etag: Some(format!("{}-{}", hex::encode(&digests.finalize()), listed.len())),
        })
    }
}

fn no_such_upload() -> S3Error {
    s3_error!(
        NoSuchUpload,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )
}
