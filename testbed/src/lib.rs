//! An S3 server in this process, for tests, benches and examples.
//!
//! The server speaks S3's protocol over a socket of the loopback interface, so
//! that a client is tested as it is used: signatures are checked, listings come
//! in pages, errors are S3's errors. What it adds to S3 is that it tells what it
//! was asked ([`Testbed::log`], [`Testbed::counts`]) and that it misbehaves on
//! request: latency, a limited rate, and [faults](Fault).
//!
//! ```
//! use datafusion_s3_testbed::Testbed;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let testbed = Testbed::builder().bucket("shop").start().await?;
//! testbed.put("shop", "orders/2024.csv", "id,total\n1,2\n").await?;
//! assert_eq!(testbed.keys("shop"), ["orders/2024.csv"]);
//! assert_eq!(testbed.counts().requests(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! A bucket holds hundreds of thousands of keys without its listings getting
//! slower, and any key that S3 allows: `a//b`, `dir/`, control characters.

mod access;
mod alias;
mod backend;
mod body;
mod bucket;
mod builder;
mod conditions;
mod fault;
mod hex;
mod index;
mod listing;
mod log;
mod multipart;
mod server;
mod token;
mod wire;

pub use access::Identity;
pub use builder::TestbedBuilder;
pub use fault::{Fault, FaultAction, FaultFn, FaultRequest, fault_fn};
pub use log::{Counts, Operation, RequestRecord};
pub use server::Testbed;
