//! How a [`Testbed`] is set up.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use s3s::service::S3ServiceBuilder;

use crate::access::{Audience, Gate, Identity, LocalHosts, Policy};
use crate::backend::{Backend, Shared};
use crate::bucket::Bucket;
use crate::fault::Fault;
use crate::listing::MOST_KEYS;
use crate::log::Log;
use crate::multipart::Uploads;
use crate::server::Testbed;
use crate::wire::{Pace, Wire};

/// Sets a [`Testbed`] up.
///
/// Without a bucket it has one, `testbed`; without an identity it has one whose
/// keys the testbed tells; its region is `us-east-1`.
#[derive(Debug, Default)]
#[must_use]
pub struct TestbedBuilder {
    buckets: BTreeMap<String, BucketSetup>,
    identities: Vec<Identity>,
    region: Option<String>,
    latency: Duration,
    rate: Option<u64>,
    page_size: Option<usize>,
    fault: Option<Arc<dyn Fault>>,
}

#[derive(Debug, Default)]
struct BucketSetup {
    store: Option<Arc<dyn ObjectStore>>,
    audience: Audience,
}

impl TestbedBuilder {
    /// Adds a bucket that is kept in memory.
    pub fn bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.entry(name.into()).or_default();
        self
    }

    /// Adds a bucket over `store`, with the keys that it lists when the server starts.
    ///
    /// From then on the store should be written to through the testbed only:
    /// keys that are added behind its back do not exist.
    pub fn bucket_with_store(mut self, name: impl Into<String>, store: Arc<dyn ObjectStore>) -> Self {
        self.buckets.entry(name.into()).or_default().store = Some(store);
        self
    }

    /// Adds a bucket that unsigned requests may read, or makes it one.
    pub fn public_bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.entry(name.into()).or_default().audience = Audience::Public;
        self
    }

    /// Adds a bucket that exists but denies every request, or makes it one.
    pub fn denied_bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.entry(name.into()).or_default().audience = Audience::Nobody;
        self
    }

    /// Adds an identity. The first one is the default that the testbed tells.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Sets the region. Signatures for another one are refused.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Sets the time from the arrival of a request to the first byte of its answer.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Limits the bodies of answers to so many bytes in a second, on each connection.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Limits the keys and common prefixes of a page of a listing, beyond what
    /// a request asks for and S3's own limit of 1000.
    pub fn page_size(mut self, keys: usize) -> Self {
        self.page_size = Some(keys);
        self
    }

    /// Lets `fault` decide on each request.
    pub fn fault(mut self, fault: Arc<dyn Fault>) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Starts the server, on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// If a bucket's or the region's name is none in S3, if a store cannot be
    /// listed, or if there is no port to listen on.
    pub async fn start(mut self) -> io::Result<Testbed> {
        if self.buckets.is_empty() {
            self = self.bucket("testbed");
        }
        if self.identities.is_empty() {
            self = self.identity(Identity::new("AKIATESTBED", "testbed-secret-access-key"));
        }
        let region = self.region.unwrap_or_else(|| "us-east-1".to_owned());
        let region_header = HeaderValue::from_str(&region).map_err(invalid)?;

        let mut buckets = BTreeMap::new();
        let mut audiences = BTreeMap::new();
        for (name, setup) in self.buckets {
            if !s3s::path::check_bucket_name(&name) {
                return Err(invalid(format!("not a bucket name: {name:?}")));
            }
            let store = setup.store.unwrap_or_else(|| Arc::new(InMemory::new()));
            let bucket = Bucket::open(store).await.map_err(io::Error::other)?;
            audiences.insert(name.clone(), setup.audience);
            buckets.insert(name, bucket);
        }
        let shared = Arc::new(Shared {
            buckets,
            uploads: Uploads::default(),
            region: region.clone(),
            // A page of no keys that is truncated would never end.
            page_size: self.page_size.unwrap_or(MOST_KEYS).max(1),
        });
        let policy = Arc::new(Policy { region, identities: self.identities, buckets: audiences });

        let mut service = S3ServiceBuilder::new(Backend(Arc::clone(&shared)));
        service.set_auth(Gate(Arc::clone(&policy)));
        service.set_access(Gate(Arc::clone(&policy)));
        service.set_host(LocalHosts);
        let pace = Arc::new(Pace::default());
        pace.set_latency(self.latency);
        pace.set_rate(self.rate);
        let wire =
            Wire { service: service.build(), policy, region: region_header, fault: self.fault, log: Log::new(), pace };
        Testbed::serve(wire, shared).await
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
