//! What goes wrong on the way, and what must come of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use datafusion_s3_testbed::{FaultAction, FaultRequest, Operation, Testbed, fault_fn};

use crate::harness::{batch, connector, error, parquet, rows, session};

fn respond(status: u16, content_type: &'static str, body: &'static str) -> FaultAction {
    FaultAction::Respond { status, content_type, body: Bytes::from_static(body.as_bytes()) }
}

const XML_ERROR: &str = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>x</Message></Error>";
const HTML: &str = "<!DOCTYPE html><html><body>Please log in</body></html>";
const NO_TOKEN: &str = "<?xml version=\"1.0\"?><ListBucketResult><Name>testbed</Name><IsTruncated>true</IsTruncated>\
    <Contents><Key>shop/a.csv</Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>1</Size></Contents></ListBucketResult>";

/// A server with three pages of children and a fault that strikes where `strikes` says so, once or always.
async fn faulty(
    action: FaultAction,
    is_once: bool,
    strikes: impl Fn(&FaultRequest<'_>) -> bool + Send + Sync + 'static,
) -> Testbed {
    let armed = AtomicBool::new(true);
    let fault = fault_fn(move |request: &FaultRequest<'_>| {
        if strikes(request) && (!is_once || armed.swap(false, Ordering::SeqCst)) {
            action.clone()
        } else {
            FaultAction::Pass
        }
    });
    let testbed = Testbed::builder().page_size(10).fault(Arc::new(fault)).start().await.unwrap();
    for child in 0..24 {
        testbed.put("testbed", &format!("shop/t{child:02}.csv"), "id\n1\n2\n").await.unwrap();
    }
    testbed.put("testbed", "shop/p.parquet", parquet(&batch(1, 2000))).await.unwrap();
    testbed
}

#[tokio::test]
async fn one_broken_page_of_a_listing_is_asked_for_again() {
    for (name, action) in [
        ("error with status 200", respond(200, "application/xml", XML_ERROR)),
        ("500", respond(500, "application/xml", XML_ERROR)),
        ("503", respond(503, "application/xml", XML_ERROR)),
        ("429", respond(429, "text/plain", "")),
        ("reset", FaultAction::Reset),
        ("cut", FaultAction::CutBody { after: 100 }),
    ] {
        for page in ["first", "second"] {
            let is_second = page == "second";
            let strikes = move |request: &FaultRequest<'_>| {
                request.operation == Operation::List && request.query.contains("continuation-token") == is_second
            };
            let testbed = faulty(action.clone(), true, strikes).await;
            let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
            let names = s3.table_names().await.unwrap_or_else(|error| panic!("{name}, {page} page: {error}"));
            assert_eq!(names.len(), 25, "{name}, {page} page");
            // A connection that ends before its answer may be opened again below the connector.
            assert!(testbed.counts().list >= 4, "{name}, {page} page: {}", testbed.counts());
        }
    }
}

#[tokio::test]
async fn what_is_no_listing_is_an_error() {
    for (name, action, part) in [
        ("HTML", respond(200, "text/html", HTML), "Please log in"),
        ("empty", respond(200, "application/xml", ""), "no listing"),
        ("no token", respond(200, "application/xml", NO_TOKEN), "continuation token"),
        ("binary", respond(200, "application/xml", "\u{0}\u{1}äöü"), "no listing"),
        ("404 in HTML", respond(404, "text/html", HTML), "404 Not Found"),
        ("403", respond(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>"), "s3:ListBucket"),
        ("400", respond(400, "application/xml", "<Error><Code>ExpiredToken</Code></Error>"), "session token"),
    ] {
        let testbed = faulty(action, false, |request| request.operation == Operation::List).await;
        let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
        let ctx = session();
        let error = s3.register(&ctx, "s3").await.expect_err(name).to_string();
        assert!(error.contains(part) && error.contains("s3://testbed/shop/"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_read_that_fails_once_gives_all_rows() {
    for (name, action) in [
        ("500", respond(500, "application/xml", XML_ERROR)),
        ("503", respond(503, "application/xml", XML_ERROR)),
        ("reset", FaultAction::Reset),
        ("cut", FaultAction::CutBody { after: 3 }),
    ] {
        for (table, expected) in [("p", "2000"), ("t03", "2")] {
            let testbed = faulty(action.clone(), true, |request| request.operation == Operation::Get).await;
            let ctx = session();
            let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
            s3.register(&ctx, "s3").await.unwrap();
            let sql = format!("SELECT count(DISTINCT id + 0) FROM s3.{table}");
            assert_eq!(rows(&ctx, &sql).await, [expected], "{name}, {table}");
        }
    }
}

#[tokio::test]
async fn a_refused_read_says_what_is_missing() {
    let denied = respond(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>");
    let testbed = faulty(denied, false, |request| request.operation == Operation::Get).await;
    let ctx = session();
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    for (table, key) in [("p", "p.parquet"), ("t03", "t03.csv")] {
        let error = error(&ctx, &format!("SELECT * FROM s3.{table}")).await;
        for part in [key, "access denied", "s3:GetObject"] {
            assert!(error.contains(part), "{table}: {error}");
        }
    }
}

#[tokio::test]
async fn a_failed_refresh_keeps_what_was_there() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let strikes = move |_: &FaultRequest<'_>| switch.load(Ordering::SeqCst);
    let testbed = faulty(respond(200, "text/html", HTML), false, strikes).await;
    let ctx = session();
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    broken.store(true, Ordering::SeqCst);
    assert!(s3.refresh().await.is_err());
    assert_eq!(s3.table_names().await.unwrap().len(), 25);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(rows(&ctx, "SELECT count(*) FROM s3.p").await, ["2000"]);
}

#[tokio::test]
async fn a_failed_first_listing_and_opening_are_tried_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let testbed =
        faulty(respond(200, "text/html", HTML), false, move |_: &FaultRequest<'_>| switch.load(Ordering::SeqCst)).await;
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    assert!(s3.table_names().await.is_err());
    broken.store(false, Ordering::SeqCst);
    assert_eq!(s3.table_names().await.unwrap().len(), 25);
    broken.store(true, Ordering::SeqCst);
    assert!(s3.table("p").await.is_err());
    broken.store(false, Ordering::SeqCst);
    assert_eq!(s3.table("p").await.unwrap().columns().len(), 2);
}

#[tokio::test]
async fn a_denied_folder_hides_no_schema() {
    let denied = respond(403, "application/xml", "<Error><Code>AccessDenied</Code></Error>");
    let strikes = |request: &FaultRequest<'_>| request.operation == Operation::List && request.key == "lake/secret/";
    let testbed = faulty(denied, false, strikes).await;
    for folder in ["open", "secret"] {
        testbed.put("testbed", &format!("lake/{folder}/t.csv"), "id\n1\n").await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/lake").build().unwrap();
    let ctx = session();
    s3.register_catalog(&ctx, "lake").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM lake.open.t").await, ["1"]);
    let error = error(&ctx, "SELECT id FROM lake.secret.t").await;
    for part in ["s3://testbed/lake/secret/", "access denied", "s3:ListBucket"] {
        assert!(error.contains(part), "{error}");
    }
    let shown = rows(&ctx, "SELECT table_schema FROM information_schema.tables WHERE table_name = 't'").await;
    assert_eq!(shown, ["open"]);
    assert!(rows(&ctx, "SELECT schema_name FROM information_schema.schemata").await.contains(&"secret".to_owned()));
}

#[tokio::test]
async fn a_failed_refresh_of_one_folder_keeps_its_tables() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let strikes = move |request: &FaultRequest<'_>| {
        switch.load(Ordering::SeqCst) && request.operation == Operation::List && request.key == "lake/a/"
    };
    let testbed = faulty(respond(200, "text/html", HTML), false, strikes).await;
    for folder in ["a", "b"] {
        testbed.put("testbed", &format!("lake/{folder}/t.csv"), "id\n1\n").await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/lake").build().unwrap();
    let ctx = session();
    s3.register_catalog(&ctx, "lake").await.unwrap();
    broken.store(true, Ordering::SeqCst);
    testbed.put("testbed", "lake/b/new.csv", "id\n2\n").await.unwrap();
    testbed.put("testbed", "lake/c/t.csv", "id\n3\n").await.unwrap();
    assert!(s3.refresh().await.is_err());
    for (table, id) in [("a.t", "1"), ("b.t", "1"), ("b.new", "2"), ("c.t", "3")] {
        assert_eq!(rows(&ctx, &format!("SELECT id FROM lake.{table}")).await, [id], "{table}");
    }
}
