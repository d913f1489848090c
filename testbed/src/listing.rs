//! `ListObjectsV2`: a page of a bucket's index in S3's terms.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass, Timestamp,
};
use s3s::{S3Result, s3_error};

use crate::bucket::Bucket;
use crate::index::{PageRequest, Position};
use crate::token;

/// The most keys of a page, and their number if a request does not say.
pub(crate) const MOST_KEYS: usize = 1000;

/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// The page that `input` asks for, of at most `page_size` keys.
pub(crate) fn page(bucket: &Bucket, input: ListObjectsV2Input, page_size: usize) -> S3Result<ListObjectsV2Output> {
    let max_keys = match input.max_keys {
        None => MOST_KEYS,
        Some(number) => usize::try_from(number)
            .map_err(|_| s3_error!(InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647"))?,
    };
    let max_keys = max_keys.min(MOST_KEYS);
    let url = match input.encoding_type.as_ref().map(EncodingType::as_str) {
        None => false,
        Some(EncodingType::URL) => true,
        Some(_) => {
            return Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request"));
        }
    };
    // A continuation token tells more precisely than `start-after` where to go on.
    let start = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => Some(
            token::decode(&input.bucket, token)
                .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?,
        ),
        (None, Some(key)) if !key.is_empty() => Some(Position::Key(key.clone())),
        (None, _) => None,
    };
    let write = |text: &str| if url { encode(text) } else { text.to_owned() };

    let index = bucket.index();
    let page = index.page(&PageRequest {
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: input.delimiter.as_deref(),
        start: start.as_ref(),
        max_keys: max_keys.min(page_size),
    });
    let contents: Vec<_> = page
        .contents
        .iter()
        .map(|(key, entry)| Object {
            key: Some(write(key)),
            e_tag: Some(entry.etag()),
            last_modified: Some(Timestamp::from(entry.last_modified)),
            size: i64::try_from(entry.size).ok(),
            storage_class: Some(match &entry.headers.storage_class {
                Some(class) => ObjectStorageClass::from(class.clone()),
                None => ObjectStorageClass::from_static(ObjectStorageClass::STANDARD),
            }),
            ..Object::default()
        })
        .collect();
    let common_prefixes: Vec<_> =
        page.common_prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(write(prefix)) }).collect();
    let next = page.next;
    drop(index);

    Ok(ListObjectsV2Output {
        prefix: Some(write(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.as_deref().map(write),
        start_after: input.start_after.as_deref().map(write),
        max_keys: i32::try_from(max_keys).ok(),
        key_count: i32::try_from(contents.len() + common_prefixes.len()).ok(),
        is_truncated: Some(next.is_some()),
        next_continuation_token: next.map(|position| token::encode(&input.bucket, &position)),
        contents: Some(contents),
        common_prefixes: Some(common_prefixes),
        name: Some(input.bucket),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        ..ListObjectsV2Output::default()
    })
}

/// `text` as S3 writes it with `encoding-type=url`: like a form, so a space is a plus sign.
fn encode(text: &str) -> String {
    let encoded = utf8_percent_encode(text, PLAIN).to_string();
    encoded.replace("%20", "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_encoding_is_that_of_a_form() {
        assert_eq!(encode("a b/c+d~ü*\n"), "a+b/c%2Bd%7E%C3%BC*%0A");
    }
}
