//! [`Failure`]: why the shell stops, in the words that it prints.

use std::error::Error as StdError;
use std::io;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion_s3::Error;

/// Why the shell stops; each variant is an exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments are wrong.
    Usage(String),
    /// A statement failed, or the root has no tables.
    Query(String),
    /// Whoever read the output has had enough: a success.
    ClosedPipe,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::DataFusion(error) => error.into(),
            error => Self::Query(error.to_string()),
        }
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Query(message(&error))
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self::Query(error.to_string())
    }
}

/// Errors of writing to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Query(format!("cannot write the result: {error}")),
        }
    }
}

/// The message of the error at the root of it all, without the layers that it came through.
fn message(error: &DataFusionError) -> String {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        match current.downcast_ref::<Error>() {
            Some(Error::DataFusion(_)) | None => cause = current.source(),
            Some(error) => return error.to_string(),
        }
    }
    match error.find_root() {
        // `DataFusionError::message` gives the parser's error as Rust's debug text.
        DataFusionError::SQL(error, _) => error.to_string(),
        root @ DataFusionError::NotImplemented(_) => root.strip_backtrace(),
        root => root.message().into_owned(),
    }
}
