//! The operations of S3, over buckets of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use http_body::Frame;
use http_body_util::StreamBody;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, Delete, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListBucketsInput, ListBucketsOutput, ListObjectsV2Input, ListObjectsV2Output,
    PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{Body, S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use crate::bucket::{Bucket, Entry, NewObject, ObjectHeaders, Opened};
use crate::conditions::{ReadConditions, WriteConditions};
use crate::listing;
use crate::multipart::Uploads;

/// The type of an object whose PUT named none.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// What S3 does.
#[derive(Debug, Clone)]
pub(crate) struct Backend(pub(crate) Arc<Shared>);

/// What a [`Backend`] and the server around it share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) uploads: Uploads,
    pub(crate) region: String,
    /// The most keys of a page of a listing.
    pub(crate) page_size: usize,
}

impl Shared {
    /// The bucket of that name, or `NoSuchBucket`.
    pub(crate) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        let bucket = self.buckets.get(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }
}

type Answer<T> = S3Result<S3Response<T>>;

fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let buckets = self.0.buckets.keys().map(|name| s3s::dto::Bucket {
            name: Some(name.clone()),
            bucket_region: Some(self.0.region.clone()),
            creation_date: None,
        });
        answer(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.0.bucket(&req.input.bucket)?;
        answer(HeadBucketOutput { bucket_region: Some(self.0.region.clone()), ..Default::default() })
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let bucket = self.0.bucket(&req.input.bucket)?;
        answer(listing::page(bucket, req.input, self.0.page_size)?)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = req.input;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let bucket = self.0.bucket(&input.bucket)?;
        let Opened { entry, range, result } = bucket.read(&input.key, input.range, &conditions).await?;
        let frames = result.into_stream().map_ok(Frame::data);
        let body = Body::http_body_unsync(StreamBody::new(frames));
        let described = describe(&entry, &range, input.range.is_some());
        answer(GetObjectOutput {
            accept_ranges: described.accept_ranges,
            body: Some(StreamingBlob::from(body)),
            cache_control: described.cache_control,
            content_disposition: described.content_disposition,
            content_encoding: described.content_encoding,
            content_language: described.content_language,
            content_length: described.content_length,
            content_range: described.content_range,
            content_type: described.content_type,
            e_tag: described.e_tag,
            last_modified: described.last_modified,
            metadata: described.metadata,
            ..Default::default()
        })
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = req.input;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let entry = self.0.bucket(&input.bucket)?.entry(&input.key)?;
        conditions.check(&entry)?;
        let range = entry.resolve(input.range)?;
        answer(describe(&entry, &range, input.range.is_some()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = req.input;
        let bucket = self.0.bucket(&input.bucket)?;
        let object = NewObject {
            pieces: pieces(input.body).await?,
            headers: Arc::new(ObjectHeaders {
                cache_control: input.cache_control,
                content_disposition: input.content_disposition,
                content_encoding: input.content_encoding,
                content_language: input.content_language,
                content_type: input.content_type,
                metadata: input.metadata,
                storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
            }),
            etag: None,
        };
        let conditions = WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match };
        let entry = bucket.put(&input.key, object, &conditions).await?;
        answer(PutObjectOutput { e_tag: Some(entry.etag()), ..Default::default() })
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        // `s3s` does not know of these conditions of a copy yet.
        let target_conditions = WriteConditions::parse(&req.headers)?;
        let input = req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "The source of a copy must be a key of a bucket"));
        };
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match,
            if_none_match: input.copy_source_if_none_match,
            if_modified_since: input.copy_source_if_modified_since,
            if_unmodified_since: input.copy_source_if_unmodified_since,
        };
        let source = self.0.bucket(bucket)?.read(key, None, &conditions).await?;
        let stream = source.result.into_stream();
        let object = NewObject {
            pieces: stream.try_collect().await.map_err(S3Error::internal_error)?,
            headers: source.entry.headers,
            etag: None,
        };
        let target = self.0.bucket(&input.bucket)?;
        let entry = target.put(&input.key, object, &target_conditions).await?;
        answer(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(entry.etag()),
                last_modified: Some(Timestamp::from(entry.last_modified)),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.0.bucket(&req.input.bucket)?.delete(&req.input.key).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let bucket = self.0.bucket(&req.input.bucket)?;
        let Delete { objects, quiet } = req.input.delete;
        let mut deleted = Vec::new();
        for object in objects {
            // Removing what is not there is a success as well.
            bucket.delete(&object.key).await?;
            deleted.push(DeletedObject { key: Some(object.key), ..Default::default() });
        }
        answer(DeleteObjectsOutput { deleted: (quiet != Some(true)).then_some(deleted), ..Default::default() })
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let input = req.input;
        self.0.bucket(&input.bucket)?;
        let headers = ObjectHeaders {
            cache_control: input.cache_control,
            content_disposition: input.content_disposition,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_type: input.content_type,
            metadata: input.metadata,
            storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
        };
        let id = self.0.uploads.create(&input.bucket, &input.key, headers);
        answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..Default::default()
        })
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let input = req.input;
        let pieces = pieces(input.body).await?;
        let upload = (&*input.bucket, &*input.key, &*input.upload_id);
        let etag = self.0.uploads.put_part(upload, input.part_number, pieces)?;
        answer(UploadPartOutput { e_tag: Some(etag), ..Default::default() })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = req.input;
        let bucket = self.0.bucket(&input.bucket)?;
        let upload = (&*input.bucket, &*input.key, &*input.upload_id);
        let parts = input.multipart_upload.and_then(|listed| listed.parts);
        let object = self.0.uploads.assemble(upload, &parts.unwrap_or_default())?;
        let conditions = WriteConditions { if_match: input.if_match, if_none_match: input.if_none_match };
        let entry = bucket.put(&input.key, object, &conditions).await?;
        self.0.uploads.remove(upload)?;
        answer(CompleteMultipartUploadOutput {
            e_tag: Some(entry.etag()),
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let input = req.input;
        let upload = (&*input.bucket, &*input.key, &*input.upload_id);
        self.0.uploads.remove(upload)?;
        answer(AbortMultipartUploadOutput::default())
    }
}

/// The body of a request.
async fn pieces(body: Option<StreamingBlob>) -> S3Result<Vec<Bytes>> {
    let Some(body) = body else {
        return Ok(Vec::new());
    };
    // The signed digest of the body is checked while it is read, so an error is
    // the client's: the body ended early or is not the one that was signed.
    let pieces = body.try_collect().await;
    pieces.map_err(|error| S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, error))
}

/// The headers of an answer about `range` of an object.
fn describe(entry: &Entry, range: &std::ops::Range<u64>, partial: bool) -> HeadObjectOutput {
    let headers = &entry.headers;
    let content_range = || format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), entry.size);
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: headers.cache_control.clone(),
        content_disposition: headers.content_disposition.clone(),
        content_encoding: headers.content_encoding.clone(),
        content_language: headers.content_language.clone(),
        content_length: i64::try_from(range.end - range.start).ok(),
        content_range: partial.then(content_range),
        content_type: headers.content_type.clone().or_else(|| Some(DEFAULT_TYPE.to_owned())),
        e_tag: Some(entry.etag()),
        last_modified: Some(Timestamp::from(entry.last_modified)),
        metadata: headers.metadata.clone(),
        ..Default::default()
    }
}
