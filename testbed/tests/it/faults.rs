//! Faults, latency and rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion_s3_testbed::{FaultAction, FaultRequest, Operation, Testbed, fault_fn};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, RetryConfig};

use crate::client::{builder, client};

async fn faulty(decide: impl Fn(&FaultRequest<'_>) -> FaultAction + Send + Sync + 'static) -> Testbed {
    let fault = Arc::new(fault_fn(decide));
    let testbed = Testbed::builder().fault(fault).start().await.unwrap();
    testbed.put("testbed", "a", vec![1; 100_000]).await.unwrap();
    testbed
}

#[tokio::test]
async fn an_answer_instead() {
    let failures = AtomicU64::new(2);
    let testbed = faulty(move |request| {
        let fails = request.operation == Operation::Get
            && request.key == "a"
            && failures.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if !fails {
            return FaultAction::Pass;
        }
        FaultAction::Respond {
            status: 503,
            content_type: "application/xml",
            body: Bytes::from_static(b"<Error><Code>SlowDown</Code></Error>"),
        }
    })
    .await;
    let store = builder(&testbed, "testbed")
        .with_access_key_id(testbed.access_key_id())
        .with_secret_access_key(testbed.secret_access_key())
        .with_retry(RetryConfig::default())
        .build()
        .unwrap();
    let bytes = store.get(&Path::from("a")).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len(), 100_000);
    let statuses: Vec<_> = testbed.log().iter().map(|record| record.status).collect();
    assert_eq!(statuses, [503, 503, 200]);
}

#[tokio::test]
async fn a_body_that_is_cut() {
    let testbed = faulty(|_| FaultAction::CutBody { after: 70_000 }).await;
    let store = client(&testbed, "testbed");
    let mut stream = store.get(&Path::from("a")).await.unwrap().into_stream();
    let mut bytes = 0;
    let error = loop {
        match stream.next().await.expect("an error before the end") {
            Ok(piece) => bytes += piece.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(bytes, 70_000, "{error}");
    assert_eq!(testbed.counts().bytes, 70_000);
    // Short enough to be whole.
    store.get_range(&Path::from("a"), 0..70_000).await.unwrap();
}

#[tokio::test]
async fn no_answer() {
    let testbed = faulty(|_| FaultAction::Reset).await;
    client(&testbed, "testbed").get(&Path::from("a")).await.unwrap_err();
    assert_eq!(testbed.log()[0].status, 0);
}

#[tokio::test]
async fn latency_and_rate() {
    let testbed = faulty(|request| match request.key {
        "late" => FaultAction::Delay(Duration::from_millis(80)),
        _ => FaultAction::Pass,
    })
    .await;
    let store = client(&testbed, "testbed");
    let took = async |key: &str| {
        let begin = Instant::now();
        if let Ok(result) = store.get(&Path::from(key)).await {
            result.bytes().await.unwrap();
        }
        begin.elapsed()
    };
    assert!(took("late").await >= Duration::from_millis(80));
    testbed.set_latency(Duration::from_millis(50));
    assert!(took("a").await >= Duration::from_millis(50));
    assert!(took("late").await >= Duration::from_millis(130));
    testbed.set_latency(Duration::ZERO);
    testbed.set_rate(Some(1_000_000));
    // 100 ms, less what a body may catch up.
    assert!(took("a").await >= Duration::from_millis(85));
    assert_eq!(testbed.log().last().unwrap().bytes, 100_000);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_counted() {
    let testbed = Testbed::builder().latency(Duration::from_secs(60)).start().await.unwrap();
    let store = client(&testbed, "testbed");
    let path = Path::from("a");
    let get = store.get(&path);
    assert!(tokio::time::timeout(Duration::from_millis(200), get).await.is_err());
    let counts = testbed.counts();
    assert_eq!((counts.get, counts.requests(), counts.bytes), (1, 1, 0));
    assert_eq!(counts.to_string(), "1 request (1 GET), 0 bytes");
}
