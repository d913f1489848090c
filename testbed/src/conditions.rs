//! Conditional requests: the headers that make an answer depend on the object.

use hyper::header::{ETAG, HeaderMap, IF_MATCH, IF_NONE_MATCH};
use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Result, s3_error};

use crate::bucket::Entry;

/// The conditions of a GET or HEAD.
#[derive(Debug, Default)]
pub(crate) struct ReadConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

impl ReadConditions {
    /// Whether `entry` may be read: 412 or 304 if not.
    ///
    /// As in RFC 9110, a condition on the entity tag overrides the one on time.
    pub(crate) fn check(&self, entry: &Entry) -> S3Result<()> {
        let modified = Timestamp::from(entry.last_modified);
        let unchanged = match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) => matches(condition, entry),
            (None, Some(time)) => modified <= *time,
            (None, None) => true,
        };
        if !unchanged {
            return Err(precondition_failed());
        }
        let wanted = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => !matches(condition, entry),
            (None, Some(time)) => modified > *time,
            (None, None) => true,
        };
        if wanted {
            return Ok(());
        }
        let mut error = s3_error!(NotModified, "Not Modified");
        if let Ok(etag) = entry.etag().to_http_header() {
            error.set_headers(HeaderMap::from_iter([(ETAG, etag)]));
        }
        Err(error)
    }
}

/// The conditions of a write.
#[derive(Debug, Default)]
pub(crate) struct WriteConditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
}

impl WriteConditions {
    /// The conditions that the headers of a request state.
    pub(crate) fn parse(headers: &HeaderMap) -> S3Result<Self> {
        let condition = |name| {
            let value = headers.get(name).map(|value| value.as_bytes());
            value.map(ETagCondition::parse_http_header).transpose()
        };
        let invalid = |error| s3_error!(error, InvalidArgument, "Invalid condition");
        Ok(Self {
            if_match: condition(IF_MATCH).map_err(invalid)?,
            if_none_match: condition(IF_NONE_MATCH).map_err(invalid)?,
        })
    }

    /// Whether an object may take the place of `entry`, or of none.
    pub(crate) fn check(&self, entry: Option<&Entry>) -> S3Result<()> {
        match (&self.if_match, entry) {
            (Some(_), None) => {
                return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
            }
            (Some(condition), Some(entry)) if !matches(condition, entry) => {
                return Err(precondition_failed());
            }
            _ => {}
        }
        match (&self.if_none_match, entry) {
            (Some(condition), Some(entry)) if matches(condition, entry) => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

fn matches(condition: &ETagCondition, entry: &Entry) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == entry.etag,
    }
}

fn precondition_failed() -> s3s::S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}
