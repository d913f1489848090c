//! When listings are believed, and what they cost.

use std::time::Duration;

use datafusion::prelude::SessionContext;
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::{Operation, Testbed};

use crate::harness::{connector, error, query, rows, session};

const NONE: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);

/// LIST and GET requests since the latest reset; nothing else may have been sent.
fn sent(testbed: &Testbed) -> (u64, u64) {
    let counts = testbed.counts();
    assert_eq!(counts.requests(), counts.list + counts.get, "{counts}");
    (counts.list, counts.get)
}

async fn registered(testbed: &Testbed, ttl: Duration) -> (SessionContext, S3Connector) {
    let ctx = session();
    let s3 = connector(testbed).with_root("s3://testbed/shop").with_listing_ttl(ttl).build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    (ctx, s3)
}

#[tokio::test]
async fn a_listing_is_believed_for_its_time_to_live() {
    let testbed = Testbed::start().await.unwrap();
    for key in ["shop/file.csv", "shop/folder/a.csv"] {
        testbed.put("testbed", key, "id\n1\n").await.unwrap();
    }
    let path = "\"s3://testbed/shop/file.csv\"";
    // What a later query costs in LIST and GET, and what it sees after each object has got other rows of the same size.
    for (ttl, table, first, later, seen) in [
        (HOUR, "file", (0, 1), (0, 0), "1"),
        (HOUR, "folder", (1, 1), (0, 0), "1"),
        (HOUR, path, (0, 1), (0, 0), "1"),
        // An object is looked up, a folder listed again; what has not changed is not read again.
        (NONE, "file", (1, 1), (1, 0), "2"),
        (NONE, "folder", (1, 1), (1, 0), "2"),
        (NONE, path, (0, 1), (1, 0), "2"),
    ] {
        for key in ["shop/file.csv", "shop/folder/a.csv"] {
            testbed.put("testbed", key, "id\n1\n").await.unwrap();
        }
        let (ctx, _s3) = registered(&testbed, ttl).await;
        let sql = format!("SELECT id FROM s3.{table}");
        for expected in [first, later, later] {
            testbed.reset_log();
            assert_eq!(rows(&ctx, &sql).await, ["1"], "{ttl:?} {table}");
            assert_eq!(sent(&testbed), expected, "{ttl:?} {table}");
        }
        for key in ["shop/file.csv", "shop/folder/a.csv"] {
            testbed.put("testbed", key, "id\n2\n").await.unwrap();
        }
        assert_eq!(rows(&ctx, &sql).await, [seen], "{ttl:?} {table}");
    }
}

#[tokio::test]
async fn tables_come_and_go_with_a_listing() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/old.csv", "id\n1\n").await.unwrap();
    testbed.put("testbed", "shop/gone/a.csv", "id\n1\n").await.unwrap();
    let (fresh, fresh_s3) = registered(&testbed, NONE).await;
    let (kept, kept_s3) = registered(&testbed, HOUR).await;
    testbed.put("testbed", "shop/new.csv", "id\n3\n").await.unwrap();
    testbed.delete("testbed", "shop/gone/a.csv").await;
    testbed.delete("testbed", "shop/old.csv").await;
    testbed.put("testbed", "shop/old.json", "{\"id\": 2}\n").await.unwrap();

    testbed.reset_log();
    assert_eq!(rows(&fresh, "SELECT id FROM s3.new").await, ["3"]);
    assert_eq!(rows(&fresh, "SELECT id FROM s3.old").await, ["2"], "another file of that name");
    assert!(error(&fresh, "SELECT id FROM s3.gone").await.contains("\"gone\" not found"));
    assert_eq!(fresh_s3.table_names().await.unwrap(), ["new", "old"]);
    let shown = "SELECT table_name FROM information_schema.tables WHERE table_schema = 's3' ORDER BY 1";
    assert_eq!(rows(&fresh, shown).await, ["new", "old"]);

    testbed.reset_log();
    assert!(error(&kept, "SELECT id FROM s3.new").await.contains("refresh"));
    assert_eq!(kept_s3.table_names().await.unwrap(), ["gone", "old"]);
    assert!(!kept_s3.has_table("new").await.unwrap());
    kept_s3.register(&kept, "again").await.unwrap();
    assert_eq!(sent(&testbed), (0, 0), "within the time to live");
    assert!(fresh_s3.has_table("new").await.unwrap());
    assert_eq!(sent(&testbed), (1, 0));
}

#[tokio::test]
async fn a_view_sees_what_a_query_sees() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/t/a.csv", "id\n1\n").await.unwrap();
    let (ctx, _s3) = registered(&testbed, NONE).await;
    query(&ctx, "CREATE VIEW v AS SELECT sum(id) AS total FROM s3.t").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT total FROM v").await, ["1"]);
    testbed.put("testbed", "shop/t/b.csv", "id\n2\n").await.unwrap();
    // A plan that was made just now is executed as it was made.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(rows(&ctx, "SELECT total FROM v").await, ["3"]);
    testbed.put("testbed", "shop/t/b.csv", "id\nx\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let message = error(&ctx, "SELECT total FROM v").await;
    assert!(message.contains("s3://testbed/shop/t/") && message.contains("create the view anew"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_listing_is_shared_by_those_who_ask_at_the_same_time() {
    let testbed = Testbed::builder().latency(Duration::from_millis(50)).start().await.unwrap();
    testbed.put("testbed", "shop/t/a.csv", "id\n1\n").await.unwrap();
    let (ctx, s3) = registered(&testbed, NONE).await;
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t").await, ["1"]);
    testbed.reset_log();
    let tables = futures::future::join_all((0..16).map(|_| s3.table("t"))).await;
    assert!(tables.iter().all(Result::is_ok));
    assert_eq!(sent(&testbed), (1, 0));
    testbed.reset_log();
    for names in futures::future::join_all((0..4).map(|_| s3.table_names())).await {
        assert_eq!(names.unwrap(), ["t"]);
    }
    assert!(sent(&testbed).0 <= 2, "one for those who wait, one for those who came while it was under way");
}

/// The prefixes that were listed, with what they began after.
fn listed(testbed: &Testbed) -> Vec<String> {
    testbed.log().into_iter().filter(|record| record.operation == Operation::List).map(|record| record.key).collect()
}

#[tokio::test]
async fn a_filter_on_partitions_lists_the_folders_that_pass_as_they_are_spelled() {
    let testbed = Testbed::start().await.unwrap();
    // 30 days of 40 objects, and 2 years of 12 months of 50, of which some months have a zero in front.
    for day in 0..30 {
        for file in 0..40 {
            let key = format!("shop/days/day={day:02}/{file:02}.json");
            testbed.put("testbed", &key, format!("{{\"n\": {}}}\n", day * 40 + file)).await.unwrap();
        }
        testbed.put("testbed", &format!("shop/days/day={day:02}/_SUCCESS"), "").await.unwrap();
    }
    for month in 0..24 {
        let (year, month) = (2023 + month / 12, month % 12 + 1);
        let null = "__HIVE_DEFAULT_PARTITION__".to_owned();
        let month = if (year, month) == (2024, 12) { null } else { format!("{month:02}") };
        for file in 0..50 {
            let key = format!("shop/months/year={year}/month={month}/{file:02}.json");
            testbed.put("testbed", &key, "{\"n\": 1}\n").await.unwrap();
        }
    }
    let (ctx, s3) = registered(&testbed, HOUR).await;
    testbed.reset_log();
    s3.table("days").await.unwrap();
    // A page of objects, one of folders, and the last folder; its newest file and the first of all.
    assert_eq!(sent(&testbed), (3, 2), "{:?}", listed(&testbed));
    let total: u64 = (0..1_200).sum();
    for (filter, expected, lists) in [
        ("day = 5", vec![(200..240).sum::<u64>()], 0),
        ("day = '25'", vec![(1_000..1_040).sum()], 1),
        ("day = '25'", vec![(1_000..1_040).sum()], 0),
        ("day IN ('27', '99') AND n > 1000", vec![(1_080..1_120).sum()], 1),
        // Neighbours together: 24, 26 and 28, of the others all are known.
        ("true", vec![total], 3),
        ("day > '28'", vec![(1_160..1_200).sum()], 0),
    ] {
        testbed.reset_log();
        let found = rows(&ctx, &format!("SELECT sum(n) FROM s3.days WHERE {filter}")).await;
        assert_eq!(found, expected.iter().map(u64::to_string).collect::<Vec<_>>(), "{filter}");
        assert_eq!(testbed.counts().list, lists, "{filter}: {:?}", listed(&testbed));
    }

    testbed.reset_log();
    s3.table("months").await.unwrap();
    // A page of objects, the years, the months of each, and the last month.
    assert_eq!(sent(&testbed), (5, 2), "{:?}", listed(&testbed));
    for (filter, expected, lists) in [
        ("year = 2024 AND month = 9", "50", 1),
        // The last folder by key, which was listed to open the table.
        ("month IS NULL", "50", 0),
        ("year = 2024 AND month BETWEEN 10 AND 11", "100", 1),
        ("month = '03'", "100", 0),
        ("true", "1200", 1),
    ] {
        testbed.reset_log();
        assert_eq!(rows(&ctx, &format!("SELECT count(n) FROM s3.months WHERE {filter}")).await, [expected], "{filter}");
        assert_eq!(testbed.counts().list, lists, "{filter}: {:?}", listed(&testbed));
    }
    assert_eq!(s3.table("months").await.unwrap().file_count(), 1_200);
}

#[tokio::test]
async fn irregular_folders_are_listed_as_a_whole_and_say_what_is_wrong() {
    let testbed = Testbed::start().await.unwrap();
    for (table, stray) in [
        ("fine", "_tmp/x.json"),
        // Before `day=09/` by bytes, after it by names.
        ("order", "day=09-a/_x"),
        ("inner", "x.json"),
        ("plain", "other/x.json"),
        ("key", "hour=1/x.json"),
        ("deep", "day=27/hour=1/x.json"),
        ("format", "day=27/x.parquet"),
        ("note", "day=27/README"),
    ] {
        for day in 0..30 {
            for file in 0..40 {
                let key = format!("shop/{table}/day={day:02}/{file:02}.json");
                testbed.put("testbed", &key, "{\"n\": 1}\n").await.unwrap();
            }
        }
        testbed.put("testbed", &format!("shop/{table}/{stray}"), "{\"n\": 1}\n").await.unwrap();
    }
    let (ctx, _s3) = registered(&testbed, HOUR).await;
    for table in ["fine", "note", "order"] {
        assert_eq!(rows(&ctx, &format!("SELECT count(n) FROM s3.{table}")).await, ["1200"], "{table}");
    }
    for (table, parts) in [
        ("inner", ["\"day=00/00.json\"", "\"x.json\""]),
        ("plain", ["\"other/x.json\"", "subfolders"]),
        ("key", ["\"day=00/00.json\"", "\"hour=1/x.json\""]),
        ("deep", ["day=27/hour=1/x.json", "(day, hour)"]),
        ("format", ["day=27/x.parquet", "is Parquet"]),
    ] {
        let message = error(&ctx, &format!("SELECT count(n) FROM s3.{table} WHERE day > '26'")).await;
        for part in parts {
            assert!(message.contains(part), "{table}: {message} lacks {part}");
        }
    }
}
