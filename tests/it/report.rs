//! What was found and why, as tables; and the information schema beside tables that are broken.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{CatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion_s3::ArchivedObjects;
use datafusion_s3_testbed::Testbed;

use crate::harness::{batch, connector, error, most_in_flight, parquet, registered, rows, session};

/// A root with tables, with what is none, and with two that are broken.
async fn shop() -> Testbed {
    let testbed = Testbed::start().await.unwrap();
    for (key, text) in [
        ("articles.csv", "id\n1\n"),
        ("broken.parquet", "not Parquet, but longer than a footer"),
        ("_draft.csv", "id\n1\n"),
        ("notes.txt", "what is this"),
        ("empty.csv", ""),
        ("sales/y=1/a.csv", "id\n1\n"),
        ("sales/y=2/a.csv", "id\n2\n"),
        ("sales/_SUCCESS", ""),
        ("sales//lost.csv", "id\n9\n"),
        ("sales/y=1/.a.csv.crc", "crc"),
        ("sales/y=1/README", "what is this"),
        ("mixed/a.csv", "id\n1\n"),
        ("mixed/b.json", "{\"id\":1}\n"),
    ] {
        testbed.put("testbed", &format!("shop/{key}"), text).await.unwrap();
    }
    testbed.put("testbed", "shop/users.parquet", parquet(&batch(1, 2))).await.unwrap();
    testbed
}

/// LIST and GET requests since the latest reset; nothing else may have been sent.
fn sent(testbed: &Testbed) -> (u64, u64) {
    let counts = testbed.counts();
    assert_eq!(counts.requests(), counts.list + counts.get, "{counts}");
    (counts.list, counts.get)
}

#[tokio::test]
async fn tables_tell_what_is_known_and_details_open_them() {
    let testbed = shop().await;
    let (ctx, _s3) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    let tables = "SELECT table_name, kind, format, files, bytes, status, error FROM s3_information.tables ORDER BY 1";
    let found = rows(&ctx, tables).await;
    let expected = [
        "articles|file|CSV|1|5|listed|",
        "broken|file|Parquet|1|37|listed|",
        "mixed|folder||||listed|",
        "sales|folder||||listed|",
    ];
    assert_eq!(found[..4], expected);
    assert!(found[4].starts_with("users|file|Parquet|1|"), "{found:?}");
    let places =
        rows(&ctx, "SELECT table_schema, location FROM s3_information.tables WHERE table_name = 'sales'").await;
    assert_eq!(places, ["s3|s3://testbed/shop/sales/"]);
    rows(&ctx, "EXPLAIN SELECT * FROM s3_information.objects").await;
    rows(&ctx, "EXPLAIN SELECT * FROM s3_information.details").await;
    assert_eq!(sent(&testbed), (0, 0));

    rows(&ctx, "SELECT * FROM s3.sales").await;
    testbed.reset_log();
    assert_eq!(rows(&ctx, tables).await[3], "sales|folder|CSV|2|10|open|");
    assert_eq!(sent(&testbed), (0, 0));

    let details =
        "SELECT table_name, files, status, error FROM s3_information.details WHERE table_name <> 'users' ORDER BY 1";
    let found = rows(&ctx, details).await;
    assert_eq!(sent(&testbed), (1, 2), "the listing of mixed/, articles and broken");
    assert_eq!((found[0].as_str(), found[3].as_str()), ("articles|1|open|", "sales|2|open|"));
    assert!(
        found[1].starts_with("broken|1|error|s3://testbed/shop/broken.parquet cannot be read as Parquet"),
        "{found:?}"
    );
    assert!(
        found[2].starts_with("mixed||error|s3://testbed/shop/mixed/ cannot be read as a table: it mixes"),
        "{found:?}"
    );
}

#[tokio::test]
async fn objects_tell_what_is_ignored_and_why() {
    let testbed = shop().await;
    let ctx = session();
    let s3 = connector(&testbed)
        .with_root("s3://testbed/shop")
        .with_archived_objects(ArchivedObjects::Skip)
        .build()
        .unwrap();
    testbed.put_in("testbed", "shop/sales/y=0/a.csv", Some("GLACIER"), "id\n0\n").await.unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    testbed.reset_log();
    let of = |filter: &str| {
        format!(
            "SELECT key, size, storage_class, status, reason FROM s3_information.objects WHERE {filter} ORDER BY key"
        )
    };
    let unreadable = "its key has an empty segment, . or .., or a control character, which cannot be read";
    let hidden = "hidden, since a part of its name starts with _ or .";
    assert_eq!(
        rows(&ctx, &of("table_name = 'sales'")).await,
        [
            &format!("shop/sales//lost.csv|5|STANDARD|ignored|{unreadable}"),
            &format!("shop/sales/_SUCCESS|0|STANDARD|ignored|{hidden}"),
            "shop/sales/y=0/a.csv|5|GLACIER|ignored|in an archived storage class, which the settings skip",
            "shop/sales/y=1/.a.csv.crc|3|STANDARD|ignored|a marker or checksum, not data",
            "shop/sales/y=1/README|12|STANDARD|ignored|its name ends in no known extension",
            "shop/sales/y=1/a.csv|5|STANDARD|used|",
            "shop/sales/y=2/a.csv|5|STANDARD|used|",
        ]
    );
    assert_eq!(sent(&testbed), (1, 0), "one table, one page");
    testbed.reset_log();
    assert_eq!(
        rows(&ctx, &of("table_name IS NULL")).await,
        [
            &format!("shop/_draft.csv|5|STANDARD|ignored|{hidden}"),
            "shop/empty.csv|0|STANDARD|ignored|empty, 0 bytes",
            "shop/notes.txt|12|STANDARD|ignored|its name ends in no known extension",
        ]
    );
    assert_eq!(rows(&ctx, &of("table_name = 'articles'")).await, ["shop/articles.csv|5|STANDARD|used|"]);
    assert_eq!(sent(&testbed), (0, 0));
    let mixed = rows(&ctx, &of("table_name = 'mixed'")).await;
    assert!(mixed.len() == 2 && mixed.iter().all(|row| row.contains("|ignored|it mixes formats")), "{mixed:?}");
    assert_eq!(
        rows(&ctx, "SELECT count(*), count(DISTINCT etag), count(last_modified) FROM s3_information.objects").await,
        ["15|10|15"]
    );
}

#[tokio::test]
async fn a_table_that_cannot_be_listed_is_a_row() {
    let testbed = shop().await;
    let (ctx, _s3) = registered(&testbed, "s3://testbed/shop").await;
    for key in testbed.keys("testbed").into_iter().filter(|key| key.starts_with("shop/sales/")) {
        testbed.delete("testbed", &key).await;
    }
    assert_eq!(rows(&ctx, "SELECT * FROM s3_information.objects WHERE table_name = 'sales'").await.len(), 0);
    let found = rows(&ctx, "SELECT status, error FROM s3_information.details WHERE table_name = 'sales'").await;
    assert!(
        found[0].starts_with("error|s3://testbed/shop/sales/ cannot be read as a table: nothing lies there"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_information_schema_works_beside_broken_tables() {
    let testbed = shop().await;
    for table in 0..20 {
        testbed.put("testbed", &format!("shop/more_{table:02}.csv"), "a,b\n1,2\n").await.unwrap();
    }
    testbed.set_latency(Duration::from_millis(20));
    let (ctx, _s3) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    let columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 's3' ORDER BY 1, 2";
    let found = rows(&ctx, columns).await;
    assert_eq!(found[..3], ["articles|id|Int64", "more_00|a|Int64", "more_00|b|Int64"]);
    assert_eq!(found[41..], ["sales|id|Int64", "sales|y|Int64", "users|id|Int64", "users|name|Utf8View"]);
    assert!(most_in_flight(&testbed) >= 10, "{}", most_in_flight(&testbed));
    assert_eq!(rows(&ctx, "SHOW COLUMNS FROM s3.users").await.len(), 2);
    assert!(error(&ctx, "SELECT * FROM s3.broken").await.contains("cannot be read as Parquet"));
    assert!(error(&ctx, "SHOW COLUMNS FROM s3.broken").await.contains("cannot be read as Parquet"));
    // What tells of tables is beside them.
    let shown = "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema LIKE 's3%' AND table_name NOT LIKE 'more%' ORDER BY 1, 2";
    let expected = ["articles", "broken", "mixed", "sales", "users"].map(|name| format!("s3|{name}|BASE TABLE"));
    let views = ["details", "objects", "tables"].map(|name| format!("s3_information|{name}|VIEW"));
    assert_eq!(rows(&ctx, shown).await, [&expected[..], &views].concat());
}

#[tokio::test]
async fn the_catalog_of_a_session_keeps_its_own_schemas() {
    let testbed = shop().await;
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    let catalog = ctx.catalog("datafusion").unwrap();
    let mine = || Arc::new(MemorySchemaProvider::new()) as Arc<dyn SchemaProvider>;
    catalog.register_schema("mine", mine()).unwrap();
    s3.register(&ctx, "again").await.unwrap();
    let names = |catalog: &Arc<dyn CatalogProvider>| {
        let mut names = catalog.schema_names();
        names.sort();
        names
    };
    let all = ["again", "again_information", "mine", "public", "s3", "s3_information"];
    assert_eq!(names(&catalog), all);
    assert_eq!(names(&ctx.catalog("datafusion").unwrap()), all);
    assert!(catalog.schema("nothing").is_none());
    // What is registered later replaces what was there, in both directions.
    assert!(catalog.register_schema("again", mine()).unwrap().is_some());
    assert!(catalog.schema("again").unwrap().table_names().is_empty());
    s3.register(&ctx, "again").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM again.articles").await, ["1"]);
    assert!(catalog.deregister_schema("again", true).unwrap().is_some());
    assert!(catalog.deregister_schema("mine", true).unwrap().is_some());
    assert_eq!(names(&catalog), ["public", "s3", "s3_information"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.articles").await, ["1"]);
}

#[tokio::test]
async fn a_catalog_tells_of_all_its_schemas() {
    let testbed = shop().await;
    testbed.put("testbed", "hr/people.csv", "id\n1\n").await.unwrap();
    let ctx = session();
    let s3 = connector(&testbed).with_root("s3://testbed").build().unwrap();
    s3.register_catalog(&ctx, "lake").await.unwrap();
    let found = rows(&ctx, "SELECT table_schema, table_name FROM lake.s3_information.tables WHERE table_name LIKE '%es' OR table_schema = 'hr' ORDER BY 1, 2").await;
    assert_eq!(found, ["hr|people", "shop|articles", "shop|sales"]);
    testbed.reset_log();
    let objects =
        "SELECT key FROM lake.s3_information.objects WHERE table_schema = 'shop' AND table_name = 'mixed' ORDER BY 1";
    assert_eq!(rows(&ctx, objects).await, ["shop/mixed/a.csv", "shop/mixed/b.json"]);
    assert_eq!(sent(&testbed), (1, 0));
    let columns =
        "SELECT table_name FROM information_schema.columns WHERE table_catalog = 'lake' AND table_schema = 'hr'";
    assert_eq!(rows(&ctx, columns).await, ["people"]);
}
