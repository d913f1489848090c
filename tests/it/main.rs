//! One binary for all integration tests: each test links all of DataFusion.

mod faults;
mod harness;
mod isolation;
mod requests;
mod smoke;
mod tpch;
