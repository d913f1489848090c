//! What each step costs: exact counts of requests, and which objects they touch.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::Subfolders;
use datafusion_s3_testbed::{Counts, Operation, Testbed};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::harness::{batch, connector, error, parquet, query, registered, rows, session};

/// LIST, GET and HEAD requests since the latest reset; nothing else may have been sent.
fn sent(testbed: &Testbed) -> (u64, u64, u64) {
    let counts = testbed.counts();
    assert_eq!(counts.requests(), counts.list + counts.get + counts.head, "{counts}");
    (counts.list, counts.get, counts.head)
}

fn gets(testbed: &Testbed) -> Vec<String> {
    testbed.log().into_iter().filter(|r| r.operation == Operation::Get).map(|r| r.key).collect()
}

/// About 2 MB in row groups of 10,000 rows, of values that do not compress.
fn large_parquet() -> Bytes {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    let mixed = (0..60_000_i64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(mixed.clone()))),
        ("name", Arc::new(StringArray::from_iter_values(mixed.map(|n| format!("{n:x}"))))),
    ];
    let batch = arrow::record_batch::RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10_000)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    assert!(writer.flushed_row_groups().len() >= 5);
    writer.into_inner().unwrap().into()
}

#[tokio::test]
async fn discovery_costs_a_list_for_each_thousand_children() {
    let testbed = Testbed::start().await.unwrap();
    for (root, children, pages) in [("few", 3, 1), ("full", 1_000, 1), ("over", 1_001, 2), ("many", 2_500, 3)] {
        for child in 0..children {
            // Folders with several objects each: their number does not count.
            let keys: &[&str] = if child % 2 == 0 { &["/a.csv", "/b.csv"] } else { &[".csv"] };
            for key in keys {
                testbed.put("testbed", &format!("{root}/t{child}{key}"), "id\n1\n").await.unwrap();
            }
        }
        testbed.reset_log();
        let (ctx, s3) = registered(&testbed, &format!("s3://testbed/{root}")).await;
        assert_eq!(sent(&testbed), (pages, 0, 0), "{root}");
        let shown = rows(&ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = 's3'").await;
        assert_eq!(shown.len(), children, "{root}");
        query(&ctx, "SHOW TABLES").await.unwrap();
        assert!(s3.has_table("t1").await.unwrap() && !s3.has_table("t9999").await.unwrap());
        assert_eq!(sent(&testbed), (pages, 0, 0), "{root}: names cost nothing");
    }
}

#[tokio::test]
async fn a_single_file_costs_one_get_or_two_and_then_what_is_not_in_memory() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/small.parquet", parquet(&batch(0, 100))).await.unwrap();
    let large = large_parquet();
    assert!(large.len() > 1_500_000, "{} bytes", large.len());
    testbed.put("testbed", "shop/large.parquet", large).await.unwrap();
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(8));
    connector(&testbed).with_root("s3://testbed/shop").build().unwrap().register(&ctx, "s3").await.unwrap();
    for (table, first, second) in [("small", 1, 0), ("large", 2, 1)] {
        let sql = format!("SELECT * FROM s3.{table} LIMIT 10");
        testbed.reset_log();
        assert_eq!(rows(&ctx, &sql).await.len(), 10);
        assert_eq!(sent(&testbed), (0, first, 0), "{table}: all of it, or its end and its first row group");

        testbed.reset_log();
        assert_eq!(rows(&ctx, &sql).await.len(), 10);
        assert_eq!(sent(&testbed), (0, second, 0), "{table}, again");

        testbed.reset_log();
        query(&ctx, &format!("SELECT count(*) FROM s3.{table}")).await.unwrap();
        assert_eq!(sent(&testbed), (0, 0, 0), "{table}: statistics count rows");
    }
}

#[tokio::test]
async fn a_few_rows_of_many_files_are_read_from_the_first_files() {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..20_i64 {
        testbed.put("testbed", &format!("shop/t/{part:02}.parquet"), parquet(&batch(part * 10, 5))).await.unwrap();
        testbed.put("testbed", &format!("shop/c/{part:02}.csv"), format!("id\n{part}\n{part}\n")).await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/shop").with_cache_bytes(0).build().unwrap();
    let ctx = session();
    s3.register(&ctx, "s3").await.unwrap();
    for table in ["t", "c"] {
        s3.table(table).await.unwrap();
    }
    for (sql, expected, gets) in [
        // Without memory, each file costs a read for its footer and one for its rows.
        ("SELECT id FROM s3.t LIMIT 3", 3, 2),
        ("SELECT id FROM s3.t LIMIT 12", 12, 6),
        ("SELECT id FROM s3.t LIMIT 2 OFFSET 6", 2, 4),
        ("SELECT id FROM s3.c LIMIT 2", 2, 1),
        ("SELECT id FROM s3.c LIMIT 5", 5, 3),
        ("SELECT id FROM s3.t LIMIT 0", 0, 0),
    ] {
        testbed.reset_log();
        assert_eq!(rows(&ctx, sql).await.len(), expected, "{sql}");
        assert_eq!(sent(&testbed), (0, gets, 0), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_are_read_many_at_a_time() {
    let testbed = Testbed::builder().latency(std::time::Duration::from_millis(50)).start().await.unwrap();
    for part in 0..100_i64 {
        testbed.put("testbed", &format!("shop/t/{part:02}.parquet"), parquet(&batch(part * 2, 2))).await.unwrap();
    }
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    s3.table("t").await.unwrap();
    testbed.reset_log();
    assert_eq!(rows(&ctx, "SELECT sum(id) FROM s3.t").await, ["19900"]);
    assert_eq!(sent(&testbed), (0, 98, 0), "each file once; two were read to open the table");
    // Two partitions alone would never have more than two.
    let log = testbed.log();
    let open = |at| log.iter().filter(|r| r.started <= at && at < r.started + r.elapsed).count();
    let most = log.iter().map(|r| open(r.started)).max();
    assert!(most > Some(8), "{most:?} in flight");
}

#[tokio::test]
async fn columns_of_csv_go_by_the_header_of_each_file() {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..80 {
        let text = if part == 70 { "b,a\n2,1\n" } else { "a,b\n1,2\n" };
        testbed.put("testbed", &format!("shop/swapped/{part}.csv"), text).await.unwrap();
        testbed.put("testbed", &format!("shop/equal/{part}.csv"), format!("a,b\n1,{part}\n")).await.unwrap();
    }
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    assert_eq!(rows(&ctx, "SELECT sum(a), sum(b) FROM s3.swapped").await, ["80|160"]);
    assert_eq!(sent(&testbed), (1, 80, 0), "one page, and each file once");
    testbed.reset_log();
    assert_eq!(rows(&ctx, "SELECT sum(a), sum(b) FROM s3.equal").await, ["80|3160"]);
    assert_eq!(sent(&testbed), (1, 80, 0), "one page, and each file once");
}

#[tokio::test]
async fn a_parquet_file_that_nobody_looked_at_is_not_cast() {
    use arrow::array::{ArrayRef, Float64Array};
    let testbed = Testbed::start().await.unwrap();
    for part in 0..70_i64 {
        let ratio: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        let other = arrow::record_batch::RecordBatch::try_from_iter([("id", ratio)]).unwrap();
        let file = parquet(&if part == 30 { other } else { batch(part, 1) });
        testbed.put("testbed", &format!("shop/t/{part:02}.parquet"), file).await.unwrap();
    }
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    let message = error(&ctx, "SELECT sum(id) FROM s3.t").await;
    for part in ["\"id\" is Int64", "Float64 in s3://testbed/shop/t/30.parquet"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn one_partition_of_a_thousand_reads_no_other() {
    let testbed = Testbed::start().await.unwrap();
    for day in 0..1_001_i64 {
        let key = format!("shop/sales/day={day:04}/part.parquet");
        testbed.put("testbed", &key, parquet(&batch(day * 10, 2))).await.unwrap();
    }
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    s3.table("sales").await.unwrap();
    assert_eq!(sent(&testbed), (2, 2, 0), "two pages, the first file and the newest");

    for (filter, day, expected) in [
        ("day = '0500'", "0500", vec!["5000|n5000|0500", "5001|n5001|0500"]),
        ("day BETWEEN '0501' AND '0501x' AND id > 5010", "0501", vec!["5011|n5011|0501"]),
        ("day LIKE '0502'", "0502", vec!["5020|n5020|0502", "5021|n5021|0502"]),
        ("day IN ('0503', 'none')", "0503", vec!["5030|n5030|0503", "5031|n5031|0503"]),
    ] {
        testbed.reset_log();
        let sql = format!("SELECT * FROM s3.sales WHERE {filter} ORDER BY id");
        assert_eq!(rows(&ctx, &sql).await, expected, "{filter}");
        let keys = gets(&testbed);
        assert!(!keys.is_empty() && keys.iter().all(|key| key.contains(day)), "{filter}: {keys:?}");
        assert_eq!(sent(&testbed), (0, 1, 0), "{filter}: all of its file");
    }
    testbed.reset_log();
    assert!(rows(&ctx, "SELECT * FROM s3.sales WHERE day = 'none'").await.is_empty());
    assert_eq!(testbed.counts(), Counts::default());
}

#[tokio::test]
async fn a_partition_is_chosen_by_a_subquery() {
    let testbed = Testbed::start().await.unwrap();
    for day in 1..4_i64 {
        testbed.put("testbed", &format!("shop/sales/day={day}/a.parquet"), parquet(&batch(day, 1))).await.unwrap();
    }
    testbed.put("testbed", "shop/days.csv", "day\n2\n").await.unwrap();
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    for filter in [
        "day = (SELECT max(day) FROM s3.days)",
        "day IN (SELECT day FROM s3.days)",
        "day > (SELECT min(day) FROM s3.sales) AND day < (SELECT max(day) FROM s3.sales)",
        "EXISTS (SELECT 1 FROM s3.days d WHERE d.day = sales.day)",
    ] {
        let sql = format!("SELECT id, day FROM s3.sales WHERE {filter}");
        assert_eq!(rows(&ctx, &sql).await, ["2|2"], "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_first_queries_open_a_table_once() {
    let testbed = Testbed::builder().latency(std::time::Duration::from_millis(5)).start().await.unwrap();
    for part in 0..3_i64 {
        testbed.put("testbed", &format!("shop/t/{part}.parquet"), parquet(&batch(part * 10, 5))).await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    let ctx = session();
    futures::future::join_all((0..16).map(|_| s3.register(&ctx, "s3"))).await.into_iter().for_each(Result::unwrap);
    assert_eq!(sent(&testbed), (1, 0, 0), "one listing for all who register");

    testbed.reset_log();
    let tables = futures::future::join_all((0..16).map(|_| s3.table("t"))).await;
    let first = tables[0].as_ref().unwrap();
    assert!(tables.iter().all(|table| Arc::ptr_eq(table.as_ref().unwrap(), first)));
    assert_eq!(sent(&testbed), (1, 3, 0));

    s3.refresh().await.unwrap();
    testbed.reset_log();
    let queries = (0..16).map(|_| {
        let ctx = ctx.clone();
        tokio::spawn(async move { rows(&ctx, "SELECT count(*) FROM s3.t").await })
    });
    for result in futures::future::join_all(queries).await {
        assert_eq!(result.unwrap(), ["15"]);
    }
    assert_eq!(sent(&testbed), (1, 0, 0), "footers of unchanged objects are kept over a refresh");
}

#[tokio::test]
async fn a_broken_table_hurts_itself_only() {
    let testbed = Testbed::start().await.unwrap();
    for (key, body) in [
        ("broken.parquet", Bytes::from_static(b"not parquet, but long enough for a footer")),
        ("short.parquet", Bytes::from_static(b"PAR1")),
        ("good.parquet", parquet(&batch(1, 2))),
        ("mixed/a.csv", "a\n1\n".into()),
        ("mixed/b.parquet", parquet(&batch(1, 1))),
        ("folders/a/b.csv", "a\n1\n".into()),
        ("twice/y=1/y=2/a.csv", "a\n1\n".into()),
        ("bad.json", "{\"a\": 1}\n{\"a\": \n".into()),
        ("ok.csv", "a\n7\n".into()),
    ] {
        testbed.put("testbed", &format!("shop/{key}"), body).await.unwrap();
    }
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    let shown = "SELECT table_name FROM information_schema.tables WHERE table_schema = 's3' ORDER BY 1";
    let expected = ["bad", "broken", "folders", "good", "mixed", "ok", "short", "twice"];
    assert_eq!(rows(&ctx, shown).await, expected);
    for (table, parts) in [
        ("broken", &["s3://testbed/shop/broken.parquet", "PAR1", "replace it"][..]),
        ("short", &["s3://testbed/shop/short.parquet", "truncated"]),
        ("mixed", &["s3://testbed/shop/mixed/", "\"a.csv\" is CSV", "\"b.parquet\" is Parquet"]),
        ("folders", &["s3://testbed/shop/folders/a/", "subfolders"]),
        ("twice", &["s3://testbed/shop/twice/", "\"y\"", "rename"]),
        ("bad", &["s3://testbed/shop/bad.json", "JSON"]),
        ("oks", &["\"oks\"", "refresh"]),
    ] {
        let error = error(&ctx, &format!("SELECT * FROM s3.{table}")).await;
        for part in parts {
            assert!(error.contains(part), "{table}: {error} lacks {part}");
        }
    }
    assert_eq!(rows(&ctx, "SELECT a, id FROM s3.ok, s3.good ORDER BY id").await, ["7|1", "7|2"]);
    assert_eq!(rows(&ctx, shown).await, expected);
}

#[tokio::test]
async fn a_folder_of_very_many_folders_is_refused_after_two_pages() {
    let testbed = Testbed::start().await.unwrap();
    for folder in 0..20_000 {
        for file in 0..10 {
            testbed.put("testbed", &format!("lake/raw/f{folder:05}/{file}.csv"), "a\n1\n").await.unwrap();
        }
    }
    let (ctx, s3) = registered(&testbed, "s3://testbed/lake").await;
    testbed.reset_log();
    let error = error(&ctx, "SELECT * FROM s3.raw").await;
    assert!(error.contains("folder of folders") && error.contains("s3://testbed/lake/raw/f00000/"), "{error}");
    assert_eq!(sent(&testbed), (2, 0, 0), "a page of objects, a page of folders");

    for file in 0..1_100 {
        testbed.put("testbed", &format!("lake/ice/data/{file:04}.parquet"), "x").await.unwrap();
    }
    testbed.put("testbed", "lake/ice/metadata/v1.metadata.json", "{}").await.unwrap();
    s3.refresh().await.unwrap();
    let error = crate::harness::error(&ctx, "SELECT * FROM s3.ice").await;
    assert!(error.contains("Iceberg"), "{error}");
}

#[tokio::test]
async fn every_read_of_every_format_says_if_match() {
    use arrow::ipc::writer::FileWriter;
    use datafusion::arrow_avro::writer::AvroWriter;
    let testbed = Testbed::start().await.unwrap();
    let one = batch(1, 3);
    let mut ipc = FileWriter::try_new(Vec::new(), &one.schema()).unwrap();
    ipc.write(&one).unwrap();
    ipc.finish().unwrap();
    let mut avro = AvroWriter::new(Vec::new(), one.schema().as_ref().clone()).unwrap();
    avro.write(&one).unwrap();
    avro.finish().unwrap();
    for (key, body) in [
        ("p.parquet", parquet(&one)),
        ("c.csv", "id,name\n1,n1\n2,n2\n3,n3\n".into()),
        ("t.tsv", "id\tname\n1\tn1\n2\tn2\n3\tn3\n".into()),
        ("j.json", "{\"id\":1,\"name\":\"n1\"}\n{\"id\":2,\"name\":\"n2\"}\n{\"id\":3,\"name\":\"n3\"}\n".into()),
        ("l.json", "[{\"id\":1,\"name\":\"n1\"},{\"id\":2,\"name\":\"n2\"},{\"id\":3,\"name\":\"n3\"}]".into()),
        ("a.arrow", ipc.into_inner().unwrap().into()),
        ("v.avro", avro.into_inner().into()),
        ("bare/one", "{\"id\":1,\"name\":\"n1\"}\n{\"id\":2,\"name\":\"n2\"}\n{\"id\":3,\"name\":\"n3\"}\n".into()),
    ] {
        testbed.put("testbed", &format!("shop/{key}"), body).await.unwrap();
    }
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    s3.register_object_store(&ctx).unwrap();
    let sql = "COPY s3.p TO 's3://testbed/shop/z.csv.gz' STORED AS CSV OPTIONS ('format.compression' 'gzip')";
    query(&ctx, sql).await.unwrap();
    query(&ctx, "COPY s3.p TO 's3://testbed/shop/w.arrow' STORED AS ARROW").await.unwrap();
    s3.refresh().await.unwrap();
    for table in ["p", "c", "t", "j", "l", "a", "v", "bare", "z", "w"] {
        let sql = format!("SELECT id, name FROM s3.{table} ORDER BY id");
        assert_eq!(rows(&ctx, &sql).await, ["1|n1", "2|n2", "3|n3"], "{table}");
        assert_eq!(
            s3.table(table).await.unwrap().head(2).await.unwrap().iter().map(|b| b.num_rows()).sum::<usize>(),
            2
        );
    }
    let reads: Vec<_> = testbed.log().into_iter().filter(|r| r.operation == Operation::Get).collect();
    assert!(reads.len() >= 10);
    for read in reads {
        assert!(read.if_match.is_some(), "{read:?}");
    }
    assert_eq!(testbed.counts().head, 0);
}

#[tokio::test]
async fn connectors_with_the_same_settings_do_not_lose_each_others_pins() {
    let testbed = Testbed::start().await.unwrap();
    for root in ["x", "y"] {
        testbed.put("testbed", &format!("{root}/t.csv"), "a\n1\n").await.unwrap();
    }
    let ctx = session();
    let connectors = ["x", "y"].map(|root| (root, connector(&testbed).with_root(format!("s3://testbed/{root}"))));
    for (schema, builder) in connectors {
        builder.build().unwrap().register(&ctx, schema).await.unwrap();
    }
    assert_eq!(rows(&ctx, "SELECT x.a + y.a FROM x.t x, y.t y").await, ["2"]);
    for read in testbed.log().iter().filter(|r| r.operation == Operation::Get) {
        assert!(read.if_match.is_some(), "{read:?}");
    }
}

#[tokio::test]
async fn a_written_file_is_a_table_after_a_refresh() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/in.csv", "id\n1\n2\n").await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    let copy = "COPY (SELECT id * 10 AS id FROM s3.in) TO 's3://testbed/shop/out.parquet'";
    assert!(error(&ctx, copy).await.contains("No suitable object store"), "only where it was asked for");
    s3.register_object_store(&ctx).unwrap();
    query(&ctx, copy).await.unwrap();
    assert!(testbed.keys("testbed").contains(&"shop/out.parquet".to_owned()));
    assert!(error(&ctx, "SELECT * FROM s3.out").await.contains("refresh"));
    s3.refresh().await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM s3.out ORDER BY id").await, ["10", "20"]);
    // Written again, the old rows are not mixed with the new ones.
    query(&ctx, "COPY (SELECT id * 99 AS id FROM s3.in) TO 's3://testbed/shop/out.parquet'").await.unwrap();
    s3.refresh().await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM s3.out ORDER BY id").await, ["99", "198"]);
}

#[tokio::test]
async fn a_table_tells_about_itself() {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..3_i64 {
        testbed.put("testbed", &format!("shop/t/y=202{part}/a.parquet"), parquet(&batch(part, 4))).await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/shop").with_name("prod").build().unwrap();
    assert_eq!((s3.name(), s3.source_type()), ("prod", "s3"));
    assert_eq!(s3.root().unwrap().to_string(), "s3://testbed/shop/");
    assert_eq!(testbed.counts().requests(), 0, "building costs nothing");
    let table = s3.table("t").await.unwrap();
    assert_eq!((table.name(), table.location().to_string().as_str()), ("t", "s3://testbed/shop/t/"));
    let columns: Vec<String> = table.columns().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    assert_eq!(columns, ["id Int64", "name Utf8View", "y Int64"]);
    assert_eq!(table.schema().fields(), table.columns());
    for (n, expected) in [(0, 0), (1, 1), (5, 5), (100, 12)] {
        let found: usize = table.head(n).await.unwrap().iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(found, expected, "head({n})");
    }
    let counts = s3.request_counts();
    assert_eq!((counts.list, counts.get, counts.head), sent(&testbed), "counted as the server counts");
    // A limit drops answers that are still under way.
    assert!(counts.bytes > 0 && counts.bytes <= testbed.counts().bytes);
}

#[tokio::test]
async fn a_catalog_has_folders_as_schemas() {
    let testbed = Testbed::start().await.unwrap();
    for (key, body) in [
        ("lake/sales/orders.csv", "id\n1\n"),
        ("lake/sales/items/a.csv", "id\n2\n"),
        ("lake/stock/parts.csv", "id\n3\n"),
        ("lake/stray.csv", "id\n4\n"),
        ("lake/empty/_SUCCESS", ""),
        ("lake/_hidden/x.csv", "id\n5\n"),
    ] {
        testbed.put("testbed", key, body).await.unwrap();
    }
    let s3 = connector(&testbed).with_root("s3://testbed/lake").build().unwrap();
    let (one, two) = (session(), session());
    s3.register_catalog(&one, "lake").await.unwrap();
    assert_eq!(sent(&testbed), (4, 0, 0), "the root and its three folders");
    s3.register_catalog(&two, "lake").await.unwrap();
    let shown = "SELECT table_schema, table_name FROM information_schema.tables \
                 WHERE table_catalog = 'lake' AND table_type = 'BASE TABLE' ORDER BY 1, 2";
    testbed.reset_log();
    for ctx in [&one, &two] {
        assert_eq!(rows(ctx, shown).await, ["sales|items", "sales|orders", "stock|parts"]);
        assert_eq!(sent(&testbed), (0, 0, 0));
    }
    let sql = "SELECT o.id + i.id + p.id FROM lake.sales.orders o, lake.sales.items i, lake.stock.parts p";
    assert_eq!(rows(&one, sql).await, ["6"]);
    assert!(error(&one, "SELECT * FROM lake.empty.x").await.contains("s3://testbed/lake/empty/"));

    testbed.put("testbed", "lake/new/fresh.csv", "id\n9\n").await.unwrap();
    s3.refresh().await.unwrap();
    for ctx in [&one, &two] {
        assert_eq!(rows(ctx, "SELECT id FROM lake.new.fresh").await, ["9"], "every session sees a refresh");
    }
}

#[tokio::test]
async fn a_catalog_that_cannot_be_registered_leaves_no_trace() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/t.csv", "id\n1\n").await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    let error = s3.register_catalog(&ctx, "lake").await.unwrap_err().to_string();
    assert!(error.contains("s3://testbed/shop/") && error.contains("use register"), "{error}");
    assert!(ctx.catalog("lake").is_none());
    s3.refresh().await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t").await, ["1"]);
}

#[tokio::test]
async fn subfolders_belong_where_the_settings_say_so() {
    let testbed = Testbed::start().await.unwrap();
    for (key, body) in [("t/a.csv", "id\n1\n"), ("t/x/b.csv", "id\n2\n"), ("t/x/y/c.csv", "id\n3\n")] {
        testbed.put("testbed", key, body).await.unwrap();
    }
    let ctx = session();
    let s3 = connector(&testbed).with_root("s3://testbed").with_subfolders(Subfolders::Recurse).build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t ORDER BY id").await, ["1", "2", "3"]);
    let (strict, _) = registered(&testbed, "s3://testbed").await;
    assert!(error(&strict, "SELECT * FROM s3.t").await.contains("x/b.csv"));
}
