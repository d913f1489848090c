//! The testbed as clients see it: through `object_store`, and byte by byte.

mod client;
mod conformance;
mod faults;
mod protocol;
mod races;
