//! The errors of this crate: one public enum, a variant only where the user acts differently.

use std::sync::Arc;

use datafusion::error::DataFusionError;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a setting and a row.
///
/// Each message names the table, key or setting that it is about, and what to do next. No message holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not an S3 location, or lies where it must not. Correct the text.
    #[error("invalid location \"{location}\": {reason}")]
    InvalidLocation {
        /// The text as it was given.
        location: String,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },

    /// A setting is missing, malformed or contradicts another. Correct the setting.
    #[error("invalid setting {setting}: {reason}")]
    InvalidSetting {
        /// The setting's name as in [`ConnectorSettings`](crate::ConnectorSettings).
        setting: &'static str,
        /// What is wrong with it, and what to write instead.
        reason: String,
    },

    /// Nothing that could be a table lies under the root. Correct the root, or write data first.
    #[error("no tables under {root}: {reason}")]
    EmptyRoot {
        /// The root that was listed.
        root: String,
        /// What was found instead, and what to do.
        reason: String,
    },

    /// No table has that name. Correct the name, or refresh the connector.
    #[error("table \"{table}\" not found in {place}: {hint}")]
    TableNotFound {
        /// The name that was asked for.
        table: String,
        /// Where it was looked for.
        place: String,
        /// What is there instead.
        hint: String,
    },

    /// Several tables answer to that name. Use one of the full names.
    #[error("table name \"{table}\" is ambiguous in {place}: use one of {}", quoted(candidates))]
    AmbiguousName {
        /// The name that was asked for.
        table: String,
        /// Where it was looked for.
        place: String,
        /// Names that are unique.
        candidates: Vec<String>,
    },

    /// What lies at the table's location cannot be read as one table. Change the layout or the settings.
    #[error("{location} cannot be read as a table: {reason}")]
    NotATable {
        /// The object or folder.
        location: String,
        /// Which objects stand in the way, and what to do.
        reason: String,
    },

    /// An object is damaged, or not of the format that it claims. Replace or remove it.
    #[error("{location} cannot be read as {format}: {reason}")]
    InvalidFile {
        /// The object.
        location: String,
        /// The format that it was read as.
        format: String,
        /// What is wrong with its bytes, and what to do.
        reason: String,
    },

    /// The files of a table disagree about a column. Separate the files, or rewrite one of them.
    #[error("the columns of a table's files do not fit together: {reason}")]
    SchemaConflict {
        /// The two files, the column and both types.
        reason: String,
    },

    /// S3 has no such bucket or object. Check the spelling, or refresh the connector.
    #[error("{operation} {location}: not found: {reason}")]
    NotFound {
        /// The S3 operation.
        operation: &'static str,
        /// The bucket, folder or object.
        location: String,
        /// S3's code and what to do.
        reason: String,
    },

    /// S3 refused the identity. Change credentials or permissions.
    #[error("{operation} {location}: access denied: {reason}")]
    AccessDenied {
        /// The S3 operation.
        operation: &'static str,
        /// The bucket, folder or object.
        location: String,
        /// S3's code and what to do.
        reason: String,
    },

    /// An object was replaced or deleted after it was listed. Refresh the connector and run the query again.
    #[error("{location} changed while it was read: refresh the connector and run the query again")]
    ObjectChanged {
        /// The object.
        location: String,
    },

    /// An object lies in an archive of S3. Restore it, leave it out by a filter, or change the setting.
    #[error(
        "{location} is archived ({storage_class}): restore it and set archived_objects to read, leave its partition out by a filter, or set archived_objects to skip"
    )]
    Archived {
        /// The object.
        location: String,
        /// Its storage class, as the listing names it.
        storage_class: String,
    },

    /// Any other answer of the store: network, throttling, an answer that is not S3's.
    #[error("{operation} {location}: {source}")]
    Store {
        /// The S3 operation.
        operation: &'static str,
        /// The bucket, folder or object.
        location: String,
        /// The error of the HTTP client or of S3.
        source: Arc<object_store::Error>,
    },

    /// An error of DataFusion itself, as when a query of `head` fails.
    #[error(transparent)]
    DataFusion(#[from] DataFusionError),
}

/// The address that `object_store` asks for an instance's role.
const METADATA_SERVICE: &str = "http://169.254.169.254/";

impl Error {
    /// Sorts an error of the store by what the user does next.
    pub(crate) fn from_store(
        operation: &'static str,
        location: impl Into<String>,
        source: impl Into<Arc<object_store::Error>>,
    ) -> Self {
        let (location, source) = (location.into(), source.into());
        let text = source.to_string();
        let code = s3_code(&text);
        match (&*source, code) {
            (_, Some("NoSuchBucket")) => Self::NotFound {
                operation,
                location,
                reason: "the bucket does not exist (NoSuchBucket): check its spelling, the endpoint and the region"
                    .into(),
            },
            (_, Some(code @ ("SignatureDoesNotMatch" | "InvalidAccessKeyId" | "ExpiredToken" | "InvalidToken"))) => {
                Self::AccessDenied {
                    operation,
                    location,
                    reason: format!(
                        "the credentials were not accepted ({code}): check access key, secret and session token"
                    ),
                }
            }
            // Without credentials in the settings or the environment, `object_store` asks the instance's metadata service.
            _ if text.contains(METADATA_SERVICE) => Self::AccessDenied {
                operation,
                location,
                reason: "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or anonymous for a public bucket (this machine has no role of its own)".into(),
            },
            (object_store::Error::NotFound { .. }, code) => Self::NotFound {
                operation,
                location,
                reason: format!(
                    "{}: it was deleted, or never there; refresh the connector",
                    code.unwrap_or("HTTP 404")
                ),
            },
            // `object_store` calls any error of a LIST generic, so that only S3's code tells a refusal.
            (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, code)
            | (_, code @ Some("AccessDenied" | "AllAccessDisabled")) => Self::AccessDenied {
                operation,
                location,
                reason: format!("{}: this identity needs {}", code.unwrap_or("HTTP 403"), permission(operation)),
            },
            (object_store::Error::Precondition { .. }, _) => Self::ObjectChanged { location },
            _ => Self::Store { operation, location, source },
        }
    }
}

/// The IAM permission that an S3 operation needs.
fn permission(operation: &str) -> &'static str {
    match operation {
        "LIST" => "s3:ListBucket on the bucket (for this prefix)",
        _ => "s3:GetObject on the object",
    }
}

/// S3's error code in the text of an error: the element `<Code>` of its XML answer.
fn s3_code(text: &str) -> Option<&str> {
    let start = text.find("<Code>")? + "<Code>".len();
    let length = text[start..].find("</Code>")?;
    Some(&text[start..start + length])
}

/// `"a", "b" or "c"`.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::DataFusion(error) => error,
            error => Self::External(Box::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_code_is_found_in_an_error_body() {
        let body =
            "server returned: <?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>x</Message></Error>";
        assert_eq!(s3_code(body), Some("NoSuchBucket"));
        assert_eq!(s3_code("connection refused"), None);
        assert_eq!(s3_code("<Code>cut"), None);
    }

    #[test]
    fn a_denied_listing_is_denied_though_the_store_calls_it_generic() {
        let source = "403 Forbidden: <Error><Code>AccessDenied</Code></Error>".into();
        let source = object_store::Error::Generic { store: "S3", source };
        let error = Error::from_store("LIST", "s3://lake/", source);
        assert!(matches!(&error, Error::AccessDenied { reason, .. } if reason.contains("s3:ListBucket")), "{error}");
    }

    #[test]
    fn missing_credentials_say_what_to_set() {
        let source = "Error performing PUT http://169.254.169.254/latest/api/token: connection refused".into();
        let error = Error::from_store("LIST", "s3://lake/", object_store::Error::Generic { store: "S3", source });
        assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    }

    #[test]
    fn candidates_are_quoted() {
        assert_eq!(quoted::<&str>(&[]), "");
        assert_eq!(quoted(&["a"]), "\"a\"");
        assert_eq!(quoted(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
    }
}
