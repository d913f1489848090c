//! One binary for all integration tests: each test links all of DataFusion.

mod harness;
mod smoke;
mod tpch;
