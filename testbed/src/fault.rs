//! Faults: answers that a healthy server would not give.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::log::Operation;

/// Decides on each request, after it was logged, whether something goes wrong.
///
/// Closures become faults with [`fault_fn`].
pub trait Fault: fmt::Debug + Send + Sync {
    /// What happens to `request`.
    fn decide(&self, request: &FaultRequest<'_>) -> FaultAction;
}

/// The request that a [`Fault`] decides on.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct FaultRequest<'a> {
    /// The kind of operation.
    pub operation: Operation,
    /// The bucket, or an empty string.
    pub bucket: &'a str,
    /// The key, percent-decoded once; for [`Operation::List`] the prefix.
    pub key: &'a str,
    /// The query string as it was sent, without the question mark.
    pub query: &'a str,
    /// The `Range` header.
    pub range: Option<&'a str>,
    /// The number of the request, counted from zero at the start of the server.
    /// A request that is sent again has another number.
    pub sequence: u64,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultAction {
    /// Nothing out of the ordinary.
    Pass,
    /// This answer, instead of the operation.
    Respond {
        /// The HTTP status. One that is out of range becomes 500.
        status: u16,
        /// The `Content-Type` header.
        content_type: &'static str,
        /// The body.
        body: Bytes,
    },
    /// The ordinary answer, that much later.
    Delay(Duration),
    /// The ordinary answer, and an end of the connection after so many bytes of
    /// its body. A body that is not longer than that is sent whole.
    CutBody {
        /// Bytes of the body that are sent.
        after: u64,
    },
    /// An end of the connection, without an answer.
    Reset,
}

/// A [`Fault`] that asks a closure.
///
/// ```
/// use datafusion_s3_testbed::{FaultAction, FaultRequest, Operation, fault_fn};
///
/// let fault = fault_fn(|request: &FaultRequest<'_>| match request.operation {
///     Operation::List => FaultAction::Reset,
///     _ => FaultAction::Pass,
/// });
/// # let _ = fault;
/// ```
pub fn fault_fn<F>(decide: F) -> FaultFn<F>
where
    F: Fn(&FaultRequest<'_>) -> FaultAction + Send + Sync,
{
    FaultFn(decide)
}

/// See [`fault_fn`].
pub struct FaultFn<F>(F);

impl<F> fmt::Debug for FaultFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultFn").finish_non_exhaustive()
    }
}

impl<F> Fault for FaultFn<F>
where
    F: Fn(&FaultRequest<'_>) -> FaultAction + Send + Sync,
{
    fn decide(&self, request: &FaultRequest<'_>) -> FaultAction {
        (self.0)(request)
    }
}
