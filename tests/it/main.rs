//! One binary for all integration tests: each test links all of DataFusion.

mod compat;
mod faults;
mod fixtures;
mod harness;
mod inputs;
mod isolation;
mod listings;
mod metadata;
mod reads;
mod report;
mod requests;
mod s3sql;
mod schemas;
mod serialised;
mod slt;
mod tpch;
mod writers;
