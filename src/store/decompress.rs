//! Compressed objects, decompressed as their bytes arrive.
//!
//! DataFusion can do this too, but of bzip2, xz and Zstandard it reads the first member only, and drops the rows of all
//! others without an error. Files of several members are what `cat`, pbzip2 and pzstd make.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use bytes::Bytes;
use datafusion::common::parsers::CompressionTypeVariant;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetResult, GetResultPayload};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::format::{FileType, compression_of};

type Chunks = BoxStream<'static, object_store::Result<Bytes>>;

/// Bytes of text that are handed on together.
const CHUNK: usize = 64 * 1024;

/// The answer to a GET of a whole object, decompressed where its name says so, or its first bytes where the name tells
/// no format. The rule needs no state: a plan may be executed by a process that has not planned it.
pub(super) async fn decompressed(location: &Path, answer: GetResult) -> GetResult {
    let (meta, range, attributes) = (answer.meta.clone(), answer.range.clone(), answer.attributes.clone());
    let mut chunks = answer.into_stream().peekable();
    let compression = match FileType::from_name(location.filename().unwrap_or_default()) {
        Some((file_type, _)) => file_type.compression,
        None => match Pin::new(&mut chunks).peek().await {
            Some(Ok(head)) => compression_of(head),
            _ => CompressionTypeVariant::UNCOMPRESSED,
        },
    };
    let payload = GetResultPayload::Stream(decoded(location, chunks.boxed(), compression));
    GetResult { payload, meta, range, attributes }
}

fn decoded(location: &Path, chunks: Chunks, compression: CompressionTypeVariant) -> Chunks {
    let key = location.to_string();
    let failed = move |error: io::Error| match error.downcast::<object_store::Error>() {
        Ok(error) => error,
        Err(error) => object_store::Error::Generic {
            store: "S3",
            source: format!("\"{key}\" cannot be decompressed: {error}; replace it").into(),
        },
    };
    macro_rules! all_members {
        ($decoder:ident) => {{
            let mut decoder = $decoder::new(StreamReader::new(chunks.map_err(io::Error::from)));
            decoder.multiple_members(true);
            ReaderStream::with_capacity(decoder, CHUNK).map_err(failed).boxed()
        }};
    }
    match compression {
        CompressionTypeVariant::GZIP => all_members!(GzipDecoder),
        CompressionTypeVariant::BZIP2 => all_members!(BzDecoder),
        CompressionTypeVariant::XZ => all_members!(XzDecoder),
        CompressionTypeVariant::ZSTD => all_members!(ZstdDecoder),
        CompressionTypeVariant::UNCOMPRESSED => chunks,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
    use futures::stream;

    use super::*;

    async fn compress(text: &'static str, compression: CompressionTypeVariant) -> Bytes {
        let plain = stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed();
        let chunks = FileCompressionType::from(compression).convert_to_compress_stream(plain).unwrap();
        chunks.try_collect::<Vec<_>>().await.unwrap().concat().into()
    }

    /// What comes out of these bytes, given in chunks of so many.
    async fn decode(bytes: &Bytes, chunk: usize, compression: CompressionTypeVariant) -> object_store::Result<Vec<u8>> {
        let chunks: Vec<_> = bytes.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let decoded = decoded(&Path::from("a/b.csv"), stream::iter(chunks).boxed(), compression);
        Ok(decoded.try_collect::<Vec<_>>().await?.concat())
    }

    #[tokio::test]
    async fn all_members_come_out_or_an_error_does() {
        use CompressionTypeVariant::{BZIP2, GZIP, XZ, ZSTD};
        for compression in [GZIP, BZIP2, XZ, ZSTD] {
            let (first, second) = (compress("id\n1\n", compression).await, compress("2\n3\n", compression).await);
            let both: Bytes = [first.clone(), second].concat().into();
            for chunk in [1, 7, first.len(), both.len()] {
                let text = decode(&both, chunk, compression).await.unwrap();
                assert_eq!(text, b"id\n1\n2\n3\n", "{compression:?} in chunks of {chunk}");
                // Cut anywhere but between the members.
                for end in (1..both.len()).filter(|end| *end != first.len()) {
                    let error = decode(&both.slice(..end), chunk, compression).await.unwrap_err().to_string();
                    assert!(error.contains("\"a/b.csv\" cannot be decompressed"), "{compression:?} {end}: {error}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_error_of_the_store_stays_itself() {
        let cut = || object_store::Error::NotFound { path: "a/b.csv".into(), source: "gone".into() };
        for compression in [CompressionTypeVariant::GZIP, CompressionTypeVariant::UNCOMPRESSED] {
            let decoded = decoded(&Path::from("a/b.csv"), stream::iter([Err(cut())]).boxed(), compression);
            let error = decoded.try_collect::<Vec<_>>().await.unwrap_err();
            assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
        }
    }
}
