//! The SQL suites against an S3 server that is not ours: `tests/compat/seaweedfs.sh run cargo test …`.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use datafusion_s3::S3Connector;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::fixtures;
use crate::slt::{Place, SUITES};

/// Writes that are in flight together.
const WRITES: usize = 16;

#[tokio::test]
async fn the_sql_suites_pass_on_another_server() {
    let Some(place) = place().await else {
        // Not by `eprintln!`, which a passing test keeps to itself.
        writeln!(io::stderr(), "compat: skipped: S3_COMPAT_ENDPOINT is not set; run tests/compat/seaweedfs.sh run cargo test --workspace --all-features compat").unwrap();
        return;
    };
    for suite in SUITES {
        place.run_suite(suite).await;
    }
    place.run_demos().await;
}

/// A folder of this run in the bucket of the environment, with the fixtures in it.
async fn place() -> Option<Place> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = variable("S3_COMPAT_ENDPOINT")?;
    let required = |name: &str| variable(name).unwrap_or_else(|| panic!("{name} goes with S3_COMPAT_ENDPOINT"));
    let (id, secret) = (required("S3_COMPAT_ACCESS_KEY_ID"), required("S3_COMPAT_SECRET_ACCESS_KEY"));
    let bucket = required("S3_COMPAT_BUCKET");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let prefix = format!("run-{:x}-{:x}/", since.as_nanos(), std::process::id());

    let store = AmazonS3Builder::new()
        .with_endpoint(&endpoint)
        .with_region("us-east-1")
        .with_access_key_id(&id)
        .with_secret_access_key(&secret)
        .with_bucket_name(&bucket)
        .with_allow_http(true)
        .build()
        .unwrap();
    stream::iter(fixtures::shared().await)
        .map(|(key, bytes)| {
            let (store, key) = (&store, format!("{prefix}{key}"));
            async move {
                // Parsed, not made from: the latter would encode what is encoded already.
                let path = Path::parse(&key).unwrap();
                store.put(&path, PutPayload::from(bytes)).await.map_err(|error| format!("{key}: {error}"))
            }
        })
        .buffer_unordered(WRITES)
        .try_for_each(|_| async { Ok(()) })
        .await
        .unwrap();

    let connector = S3Connector::builder()
        .with_environment(false)
        .with_endpoint(endpoint)
        .with_region("us-east-1")
        .with_access_key(id, secret)
        .with_allow_http(true);
    Some(Place { connector, bucket, prefix })
}
