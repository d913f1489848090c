//! Readers and writers of the same object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion_s3_testbed::Testbed;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use crate::client::client;

/// A store whose reads begin late: between the testbed's look into its index
/// and the read, there is time for a write.
async fn late_reads() -> Testbed {
    let config = ThrottleConfig { wait_get_per_call: Duration::from_millis(5), ..ThrottleConfig::default() };
    let store = ThrottledStore::new(InMemory::new(), config);
    Testbed::builder().bucket_with_store("testbed", Arc::new(store)).start().await.unwrap()
}

#[tokio::test]
async fn an_entity_tag_belongs_to_its_bytes() {
    const WRITERS: usize = 4;
    const WRITES: usize = 50;
    let testbed = Arc::new(late_reads().await);
    let first = testbed.put("testbed", "a", "first").await.unwrap();
    let mut written = HashMap::from([(first, "first".to_owned())]);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let testbed = Arc::clone(&testbed);
        writers.push(tokio::spawn(async move {
            let mut written = Vec::new();
            for n in 0..WRITES {
                let body = format!("{writer} {}", "x".repeat(n % 7));
                let etag = testbed.put("testbed", "a", body.clone()).await.unwrap();
                written.push((etag, body));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            written
        }));
    }
    let store = client(&testbed, "testbed");
    let path = Path::from("a");
    let mut read = Vec::new();
    while writers.iter().any(|writer| !writer.is_finished()) {
        let result = store.get(&path).await.unwrap();
        let etag = result.meta.e_tag.clone().unwrap();
        read.push((etag, result.bytes().await.unwrap()));
    }
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    assert!(read.len() > 3, "{} reads", read.len());
    for (etag, body) in read {
        assert_eq!(body, written[&etag]);
    }
}
