//! Through `object_store`'s client, as most tests use the testbed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion_s3_testbed::{Identity, Operation, Testbed};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

/// A builder of a client of `bucket` that does not retry.
pub(crate) fn builder(testbed: &Testbed, bucket: &str) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(testbed.endpoint())
        .with_allow_http(true)
        .with_region(testbed.region())
        .with_bucket_name(bucket)
        .with_retry(RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() })
}

/// A client of `bucket` with the default identity.
pub(crate) fn client(testbed: &Testbed, bucket: &str) -> AmazonS3 {
    builder(testbed, bucket)
        .with_access_key_id(testbed.access_key_id())
        .with_secret_access_key(testbed.secret_access_key())
        .build()
        .unwrap()
}

async fn keys(store: &dyn ObjectStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(Path::from);
    let listed: Vec<_> = store.list(prefix.as_ref()).try_collect().await.unwrap();
    listed.into_iter().map(|meta| meta.location.to_string()).collect()
}

#[tokio::test]
async fn objects_and_ranges() {
    let testbed = Testbed::start().await.unwrap();
    let store = client(&testbed, "testbed");
    let path = Path::from("dir/hello world+ü=1.txt");
    let put = store.put(&path, "hello world".into()).await.unwrap();
    assert_eq!(testbed.keys("testbed"), [path.as_ref()]);
    assert_eq!(testbed.get("testbed", path.as_ref()).await.unwrap(), "hello world");
    // The MD5 digest, as S3 has it.
    assert_eq!(put.e_tag.as_deref(), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));

    assert_eq!(store.get_range(&path, 6..8).await.unwrap(), "wo");
    for (range, expected) in [
        (GetRange::Suffix(3), "rld"),
        (GetRange::Suffix(300), "hello world"),
        (GetRange::Offset(6), "world"),
        (GetRange::Bounded(6..300), "world"),
    ] {
        let options = GetOptions::new().with_range(Some(range));
        let result = store.get_opts(&path, options).await.unwrap();
        assert_eq!(result.meta.size, 11);
        assert_eq!(result.meta.e_tag, put.e_tag);
        assert_eq!(result.bytes().await.unwrap(), expected);
    }
    store.get_range(&path, 11..12).await.unwrap_err();

    let log = testbed.log();
    assert_eq!(log.len(), 7);
    assert_eq!(log[0].operation, Operation::Put);
    assert_eq!(log[1].key, path.as_ref());
    assert_eq!(log[1].range.as_deref(), Some("bytes=6-7"));
    assert_eq!((log[1].status, log[1].bytes), (206, 2));
    assert_eq!(log[1].access_key_id.as_deref(), Some(testbed.access_key_id()));
    assert_eq!(log[6].status, 416);

    store.delete(&path).await.unwrap();
    let error = store.head(&path).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn conditional_reads() {
    let testbed = Testbed::start().await.unwrap();
    let store = client(&testbed, "testbed");
    let path = Path::from("a");
    let first = testbed.put("testbed", "a", "first").await.unwrap();
    let second = testbed.put("testbed", "a", "second").await.unwrap();
    assert_ne!(first, second);
    let with = |if_match: &str| GetOptions::new().with_if_match(Some(if_match));
    let error = store.get_opts(&path, with(&first)).await.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error}");
    let result = store.get_opts(&path, with(&second)).await.unwrap();
    assert_eq!(result.bytes().await.unwrap(), "second");
    let options = GetOptions::new().with_if_none_match(Some(second.as_str()));
    let error = store.get_opts(&path, options).await.unwrap_err();
    assert!(matches!(error, Error::NotModified { .. }), "{error}");
    assert_eq!(testbed.log()[0].if_match, Some(first));
}

#[tokio::test]
async fn pages_of_a_listing() {
    let testbed = Testbed::builder().page_size(7).start().await.unwrap();
    for n in 0..100 {
        let key = format!("year={}/{n:03}.csv", 2000 + n / 10);
        testbed.put("testbed", &key, "x").await.unwrap();
    }
    let store = client(&testbed, "testbed");
    let before = testbed.counts();
    assert_eq!(keys(&store, None).await, testbed.keys("testbed"));
    assert_eq!((testbed.counts() - before).list, 15);

    testbed.reset_log();
    let root = store.list_with_delimiter(None).await.unwrap();
    assert_eq!(root.common_prefixes.len(), 10);
    assert!(root.objects.is_empty());
    let counts = testbed.counts();
    assert_eq!((counts.list, counts.requests()), (2, 2));
    assert_eq!(keys(&store, Some("year=2009")).await.len(), 10);
    assert_eq!(testbed.log()[2].key, "year=2009/");

    let offset = Path::from("year=2009/094.csv");
    let rest: Vec<_> = store.list_with_offset(None, &offset).try_collect().await.unwrap();
    assert_eq!(rest.len(), 5);
}

#[tokio::test]
async fn two_hundred_thousand_keys() {
    const KEYS: usize = 200_000;
    let testbed = Testbed::start().await.unwrap();
    for n in 0..KEYS {
        let key = format!("part={:03}/{n:06}", n % 200);
        testbed.put("testbed", &key, Bytes::new()).await.unwrap();
    }
    let store = client(&testbed, "testbed");
    let listed = store.list(None).try_fold(0, async |sum, _| Ok(sum + 1)).await.unwrap();
    assert_eq!(listed, KEYS);
    assert_eq!(testbed.counts().requests(), 200);
    assert_eq!(store.list_with_delimiter(None).await.unwrap().common_prefixes.len(), 200);
    assert_eq!(testbed.counts().requests(), 201);
}

#[tokio::test]
async fn multipart_uploads() {
    let testbed = Testbed::start().await.unwrap();
    let store = client(&testbed, "testbed");
    let path = Path::from("big");
    let mut upload = store.put_multipart(&path).await.unwrap();
    let part = Bytes::from(vec![7; 5 * 1024 * 1024]);
    upload.put_part(PutPayload::from(part.clone())).await.unwrap();
    upload.put_part(PutPayload::from("end")).await.unwrap();
    assert!(testbed.keys("testbed").is_empty());
    let put = upload.complete().await.unwrap();
    assert!(put.e_tag.unwrap().ends_with("-2\""));
    let found = testbed.get("testbed", "big").await.unwrap();
    assert_eq!(found.len(), part.len() + 3);
    assert_eq!(store.get_range(&path, part.len() as u64..found.len() as u64).await.unwrap(), "end");

    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(PutPayload::from("small")).await.unwrap();
    upload.put_part(PutPayload::from("small")).await.unwrap();
    let error = upload.complete().await.unwrap_err().to_string();
    assert!(error.contains("EntityTooSmall"), "{error}");
    upload.abort().await.unwrap();
}

#[tokio::test]
async fn identities() {
    let testbed = Testbed::builder()
        .bucket("shop")
        .bucket("lake")
        .public_bucket("open")
        .denied_bucket("secret")
        .identity(Identity::new("ONE", "1"))
        .identity(Identity::new("TWO", "2").with_session_token("token"))
        .identity(Identity::new("SIX", "6").only_buckets(["lake"]))
        .region("eu-west-1")
        .start()
        .await
        .unwrap();
    for bucket in ["shop", "lake", "open", "secret"] {
        testbed.put(bucket, "a", "a").await.unwrap();
    }
    let get = async |bucket: &str, id: &str, secret: &str, token: Option<&str>, region: &str| {
        let mut builder =
            builder(&testbed, bucket).with_access_key_id(id).with_secret_access_key(secret).with_region(region);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        let store = builder.build().unwrap();
        match store.get(&Path::from("a")).await {
            Ok(_) => "ok".to_owned(),
            Err(error) => {
                let text = format!("{error:?}");
                let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
                code.map_or(text.clone(), |(code, _)| code.to_owned())
            }
        }
    };
    let here = "eu-west-1";
    assert_eq!(get("shop", "ONE", "1", None, here).await, "ok");
    assert_eq!(get("shop", "ONE", "wrong", None, here).await, "SignatureDoesNotMatch");
    assert_eq!(get("shop", "NIL", "1", None, here).await, "InvalidAccessKeyId");
    assert_eq!(get("shop", "ONE", "1", None, "us-east-1").await, "AuthorizationHeaderMalformed");
    assert_eq!(get("shop", "TWO", "2", Some("token"), here).await, "ok");
    assert_eq!(get("shop", "TWO", "2", Some("other"), here).await, "InvalidToken");
    assert_eq!(get("shop", "TWO", "2", None, here).await, "InvalidAccessKeyId");
    assert_eq!(get("shop", "SIX", "6", None, here).await, "AccessDenied");
    assert_eq!(get("lake", "SIX", "6", None, here).await, "ok");
    assert_eq!(get("secret", "ONE", "1", None, here).await, "AccessDenied");
    assert_eq!(get("nowhere", "ONE", "1", None, here).await, "NoSuchBucket");

    let anonymous = |bucket| builder(&testbed, bucket).with_skip_signature(true).build().unwrap();
    let path = Path::from("a");
    assert_eq!(anonymous("open").get(&path).await.unwrap().bytes().await.unwrap(), "a");
    assert_eq!(keys(&anonymous("open"), None).await, ["a"]);
    let error = anonymous("shop").get(&path).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
    let error = anonymous("open").put(&path, "b".into()).await.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
}

#[tokio::test]
async fn a_bucket_over_a_store() {
    let inner = Arc::new(InMemory::new());
    inner.put(&Path::from("old/a"), "a".into()).await.unwrap();
    let testbed = Testbed::builder().bucket_with_store("lake", Arc::clone(&inner) as _).start().await.unwrap();
    let store = client(&testbed, "lake");
    assert_eq!(keys(&store, None).await, ["old/a"]);
    store.put(&Path::from("new/b"), "b".into()).await.unwrap();
    assert_eq!(inner.get(&Path::from("new/b")).await.unwrap().bytes().await.unwrap(), "b");

    // Behind the back of the testbed: the object changes, and its entity tag with it.
    let path = Path::from("old/a");
    let before = store.head(&path).await.unwrap();
    inner.put(&path, "changed".into()).await.unwrap();
    let after = store.get(&path).await.unwrap();
    assert_ne!(before.e_tag, after.meta.e_tag);
    assert_eq!(after.bytes().await.unwrap(), "changed");
    inner.delete(&path).await.unwrap();
    let error = store.get(&path).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_testbed_ends_it() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "a", "a").await.unwrap();
    let store = client(&testbed, "testbed");
    let path = Path::from("a");
    store.get(&path).await.unwrap();
    drop(testbed);
    // The tasks end when the runtime gets to them.
    for _ in 0..100 {
        if store.get(&path).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still answered");
}
