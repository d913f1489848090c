//! One binary for all integration tests: each test links all of DataFusion.

mod compat;
mod fixtures;
mod harness;
mod s3sql;
mod slt;
mod smoke;
