//! [`S3Location`]: where an object or a folder lies. Everything that is joined to a root passes here.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A bucket, and a key in it or the prefix of a folder.
///
/// A key is bytes: it is taken as written, never percent-decoded, and `.` and `..` are segments like others, as they are
/// for S3 itself (though objects with such keys cannot be read). A location whose key is empty or ends in `/` is a folder.
///
/// ```
/// use datafusion_s3::S3Location;
/// let folder: S3Location = "s3://lake/shop/".parse()?;
/// assert!(folder.is_folder());
/// assert_eq!(folder.join("articles.parquet").to_string(), "s3://lake/shop/articles.parquet");
/// # Ok::<(), datafusion_s3::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct S3Location {
    bucket: String,
    key: String,
}

impl S3Location {
    /// The location of `key` in `bucket`, both taken as they are.
    pub(crate) fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        Self { bucket: bucket.into(), key: key.into() }
    }

    /// Whether a text claims to be an S3 location: it starts with `s3://` or `s3a://`.
    pub(crate) fn is_location(text: &str) -> bool {
        strip_scheme(text).is_some()
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The key, without a leading `/`; empty for the bucket itself.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether this is a folder (or a whole bucket): its key is empty or ends in `/`.
    pub fn is_folder(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// This location as a folder: with a `/` at its end where it had none.
    #[must_use]
    pub fn to_folder(&self) -> Self {
        if self.is_folder() { self.clone() } else { Self::new(&self.bucket, format!("{}/", self.key)) }
    }

    /// The location of `child`, a key relative to this folder.
    #[must_use]
    pub fn join(&self, child: &str) -> Self {
        let mut joined = self.to_folder();
        joined.key.push_str(child);
        joined
    }

    /// The part of `other`'s key below this folder, where `other` lies in it. This is the one check that confines a
    /// location to a root: `data/` does not contain `data2/x`.
    pub fn relative<'a>(&self, other: &'a Self) -> Option<&'a str> {
        if self.bucket != other.bucket || !self.is_folder() {
            return None;
        }
        other.key.strip_prefix(&self.key)
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

impl FromStr for S3Location {
    type Err = Error;

    /// Parses `s3://bucket/key` or `s3a://bucket/key`; the key may be empty.
    ///
    /// # Errors
    /// [`Error::InvalidLocation`] where the scheme is another, or the bucket's name is none.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::InvalidLocation { location: redact(text), reason: reason.into() };
        let rest = strip_scheme(text).ok_or_else(|| invalid("write it as s3://bucket/folder/"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid("the bucket's name is missing; write s3://bucket/folder/"));
        }
        if bucket.contains('@') {
            return Err(invalid("credentials do not belong in a location; use the settings or the environment"));
        }
        // https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html, with the upper case and the
        // underscores that old buckets may have.
        if !bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(invalid("a bucket's name holds letters, digits, dots and hyphens only"));
        }
        Ok(Self::new(bucket, key))
    }
}

/// Whether objects of this key can be read: `object_store` has no paths with empty segments, `.`, `..` or control
/// characters. The `/` at the end of a folder's key is left out.
pub(crate) fn is_readable(key: &str) -> bool {
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && !segment.bytes().any(|byte| byte.is_ascii_control());
    key.split('/').all(is_segment)
}

fn strip_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    (scheme.eq_ignore_ascii_case("s3") || scheme.eq_ignore_ascii_case("s3a")).then_some(rest)
}

/// What of a location or URL may be printed: what stands before `@` in its host may be a secret, which may hold a `/`.
pub(crate) fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((before, after)) = rest.rsplit_once('@') else { return text.to_owned() };
    // In a key, `@` is a character like others.
    if before.contains('/') && !before.contains(':') {
        return text.to_owned();
    }
    format!("{scheme}://***@{after}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses() {
        for (text, bucket, key) in [
            ("s3://b", "b", ""),
            ("s3://b/", "b", ""),
            ("S3A://b/x", "b", "x"),
            ("s3://b//x", "b", "/x"),
            ("s3://b/a%2Fb c+d=é?x#y", "b", "a%2Fb c+d=é?x#y"),
            ("s3://b/a/../b/", "b", "a/../b/"),
        ] {
            let location: S3Location = text.parse().unwrap();
            assert_eq!((location.bucket(), location.key()), (bucket, key), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for (text, part) in [
            ("b/x", "s3://bucket"),
            ("https://b/x", "s3://bucket"),
            ("s3:///x", "name is missing"),
            ("s3://", "name is missing"),
            ("s3://b ucket/x", "letters, digits"),
            ("s3://key:geheim@b/x", "credentials do not belong"),
            ("s3://geheim@b/x", "credentials do not belong"),
            ("s3://key:ge/geheim@b/x", "letters, digits"),
            ("s3://b c/mail@x.csv", "mail@x.csv"),
        ] {
            let error = text.parse::<S3Location>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn confines() {
        let relative = |root: &str, other: &str| {
            let (root, other): (S3Location, S3Location) = (root.parse().unwrap(), other.parse().unwrap());
            root.relative(&other).map(str::to_owned)
        };
        assert_eq!(relative("s3://b/data/", "s3://b/data/x").as_deref(), Some("x"));
        assert_eq!(relative("s3://b", "s3://b/x/y").as_deref(), Some("x/y"));
        assert_eq!(relative("s3://b/data/", "s3://b/data2/x"), None);
        assert_eq!(relative("s3://b/data/", "s3://c/data/x"), None);
        assert_eq!(relative("s3://b/data", "s3://b/data2"), None);
        assert_eq!(relative("s3://b/p=1/", "s3://b/p=10/x"), None);
    }

    proptest! {
        #[test]
        fn nothing_leaves_the_root(root in "[a-z]{1,3}(/[a-z.]{0,3}){0,3}", name in "(\\PC|[./%]){0,12}") {
            let root = S3Location::new("bucket", root).to_folder();
            let child = root.join(&name);
            prop_assert_eq!(root.relative(&child), Some(name.as_str()));
            prop_assert!(child.key().starts_with(root.key()));
            // What is parsed is what was said, and confined as such.
            if let Ok(parsed) = format!("s3://bucket/{name}").parse::<S3Location>() {
                prop_assert_eq!(parsed.key(), name.as_str());
                prop_assert_eq!(root.relative(&parsed).is_some(), name.starts_with(root.key()));
            }
        }
    }
}
