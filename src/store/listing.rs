//! [`ListingPage`]: one answer to ListObjectsV2, parsed by us. Pure.
//!
//! `object_store` would fail the whole answer for one key that its paths cannot express, take `/a` and `a/` for `a`, and
//! pass over the storage class.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use quick_xml::Reader;
use quick_xml::events::Event;

/// One page of a listing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ListingPage {
    pub(crate) objects: Vec<ListedObject>,
    /// Keys up to and with the delimiter.
    pub(crate) common_prefixes: Vec<String>,
    /// What the next page is asked for with; `None` after the last.
    pub(crate) continuation_token: Option<String>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListedObject {
    /// The whole key, as it is.
    pub(crate) key: String,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) last_modified: DateTime<Utc>,
    pub(crate) e_tag: Option<String>,
    /// As S3 names it; `None` for a store that has none.
    pub(crate) storage_class: Option<String>,
}

impl ListedObject {
    /// What reads need to know; `None` where the key [cannot be read](crate::location::is_readable).
    pub(crate) fn meta(&self) -> Option<ObjectMeta> {
        let location = Path::parse(&self.key).ok().filter(|path| path.as_ref() == self.key)?;
        let (last_modified, e_tag) = (self.last_modified, self.e_tag.clone());
        Some(ObjectMeta { location, last_modified, size: self.size, e_tag, version: None })
    }

    /// The storage class of an object that S3 only gives after it was restored.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html#sc-glacier>
    pub(crate) fn archived(&self) -> Option<&str> {
        self.storage_class.as_deref().filter(|class| matches!(*class, "GLACIER" | "DEEP_ARCHIVE"))
    }
}

impl From<ObjectMeta> for ListedObject {
    fn from(object: ObjectMeta) -> Self {
        let ObjectMeta { location, last_modified, size, e_tag, .. } = object;
        Self { key: location.into(), size, last_modified, e_tag, storage_class: None }
    }
}

/// Where the transport leaves the page that a request asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct PageSlot(Arc<Mutex<Option<ListingPage>>>);

impl PageSlot {
    pub(crate) fn put(&self, page: ListingPage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
    }

    pub(crate) fn take(&self) -> Option<ListingPage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why an answer is no page of a listing.
#[derive(Debug, PartialEq)]
pub(crate) enum ListingError {
    /// An error of S3, in an answer that claims success. Worth asking again.
    IsError,
    /// Some other document.
    IsOther,
    /// A listing that says something that cannot be.
    Malformed(String),
}

/// Parses the answer to a ListObjectsV2.
pub(crate) fn parse(xml: &[u8]) -> Result<ListingPage, ListingError> {
    let mut reader = Reader::from_reader(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut page = ListingPage::default();
    let (mut path, mut text) = (Vec::<Vec<u8>>::new(), String::new());
    let mut object = Fields::default();
    let (mut is_truncated, mut is_listing) = (None, false);
    let malformed = |reason: String| ListingError::Malformed(reason);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| if is_listing { malformed(error.to_string()) } else { ListingError::IsOther })?;
        match event {
            Event::Start(element) => {
                path.push(element.local_name().as_ref().to_vec());
                text.clear();
                match path.as_slice() {
                    [name] if name == b"ListBucketResult" => is_listing = true,
                    [name] if name == b"Error" => return Err(ListingError::IsError),
                    [_] => return Err(ListingError::IsOther),
                    [_, name] if name == b"Contents" => object = Fields::default(),
                    _ => {}
                }
            }
            Event::Text(part) => {
                // Not normalised: a line end in a key is as it is.
                text.push_str(&part.decode().map_err(|error| malformed(error.to_string()))?);
            }
            Event::CData(part) => {
                text.push_str(&part.decode().map_err(|error| malformed(error.to_string()))?);
            }
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| malformed(error.to_string()))?;
                match referenced(&name) {
                    Some(character) => text.push(character),
                    None => return Err(malformed(format!("&{name}; is no character"))),
                }
            }
            Event::End(_) => {
                let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
                let text = std::mem::take(&mut text);
                match names.as_slice() {
                    [_, b"IsTruncated"] => is_truncated = Some(text.trim() == "true"),
                    [_, b"NextContinuationToken"] => page.continuation_token = Some(text),
                    [_, b"CommonPrefixes", b"Prefix"] => page.common_prefixes.push(text),
                    [_, b"Contents", b"Key"] => object.key = Some(text),
                    [_, b"Contents", b"Size"] => object.size = text.trim().parse().ok(),
                    [_, b"Contents", b"LastModified"] => {
                        object.last_modified = DateTime::parse_from_rfc3339(text.trim()).ok().map(|time| time.to_utc());
                    }
                    [_, b"Contents", b"ETag"] => object.e_tag = Some(text),
                    [_, b"Contents", b"StorageClass"] => object.storage_class = Some(text),
                    [_, b"Contents"] => page.objects.push(std::mem::take(&mut object).finish()?),
                    _ => {}
                }
                path.pop();
            }
            Event::Eof => break,
            // Empty elements were expanded.
            Event::Empty(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
    }
    match (is_truncated, &page.continuation_token) {
        _ if !is_listing => Err(ListingError::IsOther),
        _ if !path.is_empty() => Err(malformed("it is cut off".into())),
        (Some(true), None) => Err(malformed("it is truncated, without a continuation token".into())),
        (Some(false), Some(_)) => Ok(ListingPage { continuation_token: None, ..page }),
        _ => Ok(page),
    }
}

/// The character that a reference stands for, control characters included, which XML 1.0 does not have and S3 sends.
fn referenced(name: &str) -> Option<char> {
    match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
        None => match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => None,
        },
    }
}

/// The fields of an object that were read so far.
#[derive(Default)]
struct Fields {
    key: Option<String>,
    size: Option<u64>,
    last_modified: Option<DateTime<Utc>>,
    e_tag: Option<String>,
    storage_class: Option<String>,
}

impl Fields {
    fn finish(self) -> Result<ListedObject, ListingError> {
        let key = self.key.ok_or_else(|| ListingError::Malformed("an object has no key".into()))?;
        let lacks = |what: &str| ListingError::Malformed(format!("the object \"{key}\" has no {what}"));
        let (size, last_modified) =
            (self.size.ok_or_else(|| lacks("size"))?, self.last_modified.ok_or_else(|| lacks("time"))?);
        Ok(ListedObject { key, size, last_modified, e_tag: self.e_tag, storage_class: self.storage_class })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::location;

    fn page(body: &str) -> Result<ListingPage, ListingError> {
        parse(format!("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\">{body}</ListBucketResult>").as_bytes())
    }

    fn contents(key: &str) -> String {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2024-02-29T12:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>\
             <Size>7</Size><StorageClass>GLACIER</StorageClass><Owner><ID>o</ID></Owner></Contents>"
        )
    }

    #[test]
    fn keys_are_as_they_are() {
        for (written, key, is_readable) in [
            ("a b+%2F=ü", "a b+%2F=ü", true),
            ("a&amp;b&lt;&#x41;&#66;", "a&b<AB", true),
            ("<![CDATA[a&b]]>", "a&b", true),
            ("a//b", "a//b", false),
            ("/a", "/a", false),
            ("a/", "a/", false),
            ("./a/../b", "./a/../b", false),
            ("a&#x1;&#13;\r\n", "a\u{1}\r\r\n", false),
            (" a ", " a ", true),
        ] {
            let object = page(&contents(written)).unwrap().objects.pop().unwrap();
            assert_eq!(object.key, key);
            assert_eq!(object.meta().is_some(), is_readable, "{key:?}");
            assert_eq!(location::is_readable(key), is_readable, "{key:?}");
            assert_eq!((object.size, object.e_tag.as_deref()), (7, Some("\"e\"")));
            assert_eq!(object.archived(), Some("GLACIER"));
            assert_eq!(object.last_modified.to_rfc3339(), "2024-02-29T12:00:00+00:00");
        }
    }

    #[test]
    fn pages() {
        let token = "<NextContinuationToken>t&#x3D;</NextContinuationToken>";
        let after = |body: &str| page(body).map(|page| page.continuation_token);
        assert_eq!(after(""), Ok(None));
        assert_eq!(after(token), Ok(Some("t=".into())));
        assert_eq!(after(&format!("<IsTruncated>true</IsTruncated>{token}")), Ok(Some("t=".into())));
        assert_eq!(after(&format!("<IsTruncated>false</IsTruncated>{token}")), Ok(None));
        assert!(matches!(after("<IsTruncated>true</IsTruncated>"), Err(ListingError::Malformed(_))));
        let prefixes = page(
            "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>/</Prefix></CommonPrefixes>",
        );
        assert_eq!(prefixes.unwrap().common_prefixes, ["a/", "/"]);
        assert_eq!(parse(b"<ListBucketResult/>"), Ok(ListingPage::default()));
    }

    #[test]
    fn what_is_no_listing() {
        for text in ["", "plain", "<html><body>login<br></body></html>", "<ListAllMyBucketsResult/>", "<html>"] {
            assert_eq!(parse(text.as_bytes()), Err(ListingError::IsOther), "{text}");
        }
        assert_eq!(parse(b"<Error><Code>SlowDown</Code></Error>"), Err(ListingError::IsError));
        let whole = format!("<ListBucketResult>{}</ListBucketResult>", contents("a"));
        assert!(parse(whole.as_bytes()).is_ok());
        for end in "<ListBucketResult".len() + 1..whole.len() {
            assert!(matches!(parse(&whole.as_bytes()[..end]), Err(ListingError::Malformed(_))), "{end}");
        }
        for broken in ["<Contents><Size>1</Size></Contents>", "<Contents><Key>a</Key></Contents>", "&nbsp;"] {
            assert!(matches!(page(broken), Err(ListingError::Malformed(_))), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_key_is_read_as_it_was_written(key in "[^\u{0}]{1,20}") {
            // As S3 writes it: control characters as references.
            let written: String = key
                .chars()
                .map(|character| match character {
                    '&' | '<' | '>' => format!("&#{};", u32::from(character)),
                    character if character.is_control() => format!("&#x{:x};", u32::from(character)),
                    character => character.to_string(),
                })
                .collect();
            let object = page(&contents(&written)).unwrap().objects.pop().unwrap();
            prop_assert_eq!(&object.key, &key);
            prop_assert_eq!(object.meta().is_some(), location::is_readable(&key));
        }

        #[test]
        fn any_answer_is_a_page_or_an_error(answer in any::<Vec<u8>>(), body in "(<(/)?(Contents|Key|Size|IsTruncated)/?>|[0-9a-z&;#<]){0,20}") {
            parse(&answer).ok();
            page(&body).ok();
        }
    }
}
