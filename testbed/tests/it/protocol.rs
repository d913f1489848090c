//! Byte by byte, for what `object_store`'s client does not send or show.

use datafusion_s3_testbed::{Operation, Testbed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends an unsigned request and returns the whole answer.
async fn ask(testbed: &Testbed, method: &str, target: &str, headers: &str) -> String {
    let address = testbed.endpoint().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if headers.contains("host:") { String::new() } else { format!("host: {address}\r\n") };
    let request = format!("{method} {target} HTTP/1.1\r\n{host}{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn open(keys: &[&str]) -> Testbed {
    let testbed =
        Testbed::builder().public_bucket("open").denied_bucket("secret").region("eu-west-1").start().await.unwrap();
    for key in keys {
        testbed.put("open", key, key.to_string()).await.unwrap();
    }
    testbed
}

fn element<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let rest = answer.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.split_once("\r\n\r\n")?.0.lines();
    lines.find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

#[tokio::test]
async fn keys_that_are_no_paths() {
    let keys = ["/a", "a", "a b+c", "a/../b", "a/./b", "a//b", "dir/", "line\nbreak", "ü%2F"];
    let testbed = open(&keys).await;
    assert_eq!(testbed.keys("open"), keys);
    for (key, target) in [
        ("/a", "/open//a"),
        ("a//b", "/open/a//b"),
        ("a/../b", "/open/a/../b"),
        ("a/./b", "/open/a/./b"),
        ("dir/", "/open/dir/"),
        ("line\nbreak", "/open/line%0Abreak"),
        ("ü%2F", "/open/%C3%BC%252F"),
        ("a b+c", "/open/a%20b+c"),
    ] {
        let answer = ask(&testbed, "GET", target, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
        assert!(answer.ends_with(key), "{target}: {answer}");
        assert_eq!(testbed.log().last().unwrap().key, key);
    }
    let answer = ask(&testbed, "GET", "/open?list-type=2&encoding-type=url&prefix=a+b", "").await;
    assert_eq!(element(&answer, "Key"), Some("a+b%2Bc"));
    assert_eq!(testbed.log().last().unwrap().key, "a b");
    assert!(testbed.delete("open", "a//b").await);
    assert!(!testbed.delete("open", "a//b").await);
}

#[tokio::test]
async fn a_page_of_a_listing() {
    let testbed = open(&["a/1", "a/2", "b", "c/1", "d"]).await;
    let target = "/open/?list-type=2&delimiter=%2F&max-keys=2";
    let page = ask(&testbed, "GET", target, "").await;
    assert_eq!(element(&page, "KeyCount"), Some("2"));
    assert_eq!(element(&page, "MaxKeys"), Some("2"));
    assert_eq!(element(&page, "IsTruncated"), Some("true"));
    assert_eq!(element(&page, "CommonPrefixes"), Some("<Prefix>a/</Prefix>"));
    assert_eq!(element(&page, "Key"), Some("b"));
    assert_eq!(element(&page, "Size"), Some("1"));
    assert_eq!(element(&page, "StorageClass"), Some("STANDARD"));
    let token = element(&page, "NextContinuationToken").unwrap();
    let page = ask(&testbed, "GET", &format!("{target}&continuation-token={token}"), "").await;
    assert_eq!(element(&page, "IsTruncated"), Some("false"));
    assert_eq!(element(&page, "Key"), Some("d"));
    assert_eq!(testbed.counts().list, 2);

    let page = ask(&testbed, "GET", "/open?list-type=2&continuation-token=x", "").await;
    assert!(page.starts_with("HTTP/1.1 400"), "{page}");
    assert_eq!(element(&page, "Code"), Some("InvalidArgument"));
    let page = ask(&testbed, "GET", "/open?list-type=2&start-after=b", "").await;
    assert_eq!(element(&page, "Key"), Some("c/1"));
}

#[tokio::test]
async fn headers_of_answers() {
    let testbed = open(&["a"]).await;
    let answer = ask(&testbed, "HEAD", "/open", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(header(&answer, "x-amz-bucket-region"), Some("eu-west-1"));
    assert_eq!(header(&answer, "x-amz-request-id"), Some("0000000000000000"));
    let answer = ask(&testbed, "HEAD", "/secret", "").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(header(&answer, "x-amz-bucket-region"), Some("eu-west-1"));
    let answer = ask(&testbed, "HEAD", "/nowhere", "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(header(&answer, "x-amz-bucket-region"), None);
    assert_eq!(testbed.counts().head, 3);

    let answer = ask(&testbed, "GET", "/open/a", "range: bytes=0-0\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 206"), "{answer}");
    assert_eq!(header(&answer, "content-range"), Some("bytes 0-0/1"));
    assert_eq!(header(&answer, "content-length"), Some("1"));
    let etag = header(&answer, "etag").unwrap();
    let answer = ask(&testbed, "GET", "/open/a", &format!("if-none-match: {etag}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    assert_eq!(header(&answer, "etag"), Some(etag));
    let answer = ask(&testbed, "GET", "/open/b", "").await;
    assert_eq!(element(&answer, "Code"), Some("NoSuchKey"));
    let answer = ask(&testbed, "HEAD", "/open/a", "").await;
    assert_eq!(header(&answer, "content-length"), Some("1"));
}

#[tokio::test]
async fn virtual_hosted_style() {
    let testbed = open(&["dir/a"]).await;
    let answer = ask(&testbed, "GET", "/dir/a", "host: open.localhost:1234\r\n").await;
    assert!(answer.ends_with("dir/a"), "{answer}");
    let record = testbed.log().remove(0);
    assert_eq!((record.operation, &*record.bucket, &*record.key), (Operation::Get, "open", "dir/a"));
    let answer = ask(&testbed, "GET", "/open/dir/a", "host: localhost:1234\r\n").await;
    assert!(answer.ends_with("dir/a"), "{answer}");
}
