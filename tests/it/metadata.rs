//! Metadata columns: `<table>$metadata`.

use datafusion_s3_testbed::Testbed;

use crate::harness::{batch, parquet, registered, rows};

async fn shop() -> Testbed {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..4_i64 {
        let key = format!("shop/sales/y={part}/a.parquet");
        testbed.put("testbed", &key, parquet(&batch(part * 10, 2))).await.unwrap();
        testbed.put("testbed", &format!("shop/lines/{part}.csv"), "id\n1\n2\n").await.unwrap();
    }
    testbed.put("testbed", "shop/own.csv", "_size,_path,id\n7,here,1\n").await.unwrap();
    testbed.put("testbed", "shop/odd$metadata.csv", "id\n5\n").await.unwrap();
    testbed
}

#[tokio::test]
async fn columns_tell_where_rows_come_from() {
    let testbed = shop().await;
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    assert_eq!(rows(&ctx, "SELECT * FROM s3.lines LIMIT 1").await, ["1"], "not part of *");
    let etag = testbed.put("testbed", "shop/lines/0.csv", "id\n1\n2\n").await.unwrap();
    s3.refresh().await.unwrap();
    let found =
        rows(&ctx, "SELECT _path, _file, _size, _etag, id FROM s3.lines$metadata WHERE _file = '0.csv' ORDER BY id")
            .await;
    let expected = |id| format!("s3://testbed/shop/lines/0.csv|0.csv|7|{etag}|{id}");
    assert_eq!(found, [expected(1), expected(2)]);
    let recent = "SELECT count(*) FROM s3.sales$metadata WHERE _last_modified > now() - INTERVAL '1 hour' AND y > 1";
    assert_eq!(rows(&ctx, recent).await, ["4"]);
    assert_eq!(
        rows(&ctx, "DESCRIBE s3.sales$metadata").await,
        [
            "id|Int64|NO",
            "name|Utf8View|NO",
            "y|Int64|YES",
            "_path|Utf8View|NO",
            "_file|Utf8View|NO",
            "_size|Int64|NO",
            "_last_modified|Timestamp(ms, \"UTC\")|NO",
            "_etag|Utf8View|YES",
        ]
    );
    // A table of that name comes first, and nothing of it is shown.
    assert_eq!(rows(&ctx, "SELECT id FROM s3.odd$metadata").await, ["5"]);
    assert_eq!(s3.table_names().await.unwrap(), ["lines", "odd$metadata", "own", "sales"]);
}

#[tokio::test]
async fn filters_on_them_choose_files() {
    let testbed = shop().await;
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    for table in ["sales", "lines"] {
        s3.table(table).await.unwrap();
    }
    for (sql, expected) in [
        ("SELECT id FROM s3.sales$metadata WHERE _path LIKE '%/y=2/%' ORDER BY id", &["20", "21"][..]),
        ("SELECT id FROM s3.sales$metadata WHERE _file = 'b.parquet'", &[]),
        ("SELECT count(*) FROM s3.sales$metadata WHERE y = 1 AND _size > 0", &["2"]),
        ("SELECT y, count(*) FROM s3.sales$metadata GROUP BY y, _path HAVING y < 1", &["0|2"]),
    ] {
        assert_eq!(rows(&ctx, sql).await, expected, "{sql}");
    }
    let plan = rows(&ctx, "EXPLAIN SELECT id FROM s3.lines$metadata WHERE _path LIKE '%/3.csv' AND _size < 100")
        .await
        .join("\n");
    assert!(plan.contains("shop/lines/3.csv") && !plan.contains("shop/lines/2.csv"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
}

#[tokio::test]
async fn columns_of_the_data_come_first() {
    let testbed = shop().await;
    let (ctx, _s3) = registered(&testbed, "s3://testbed/shop").await;
    assert_eq!(rows(&ctx, "SELECT _size, _path, _file, id FROM s3.own$metadata").await, ["7|here|own.csv|1"]);
    let path = "SELECT _file, id FROM s3.\"s3://testbed/shop/lines/$metadata\" WHERE _file > '3' ORDER BY id";
    assert_eq!(rows(&ctx, path).await, ["3.csv|1", "3.csv|2"]);
}
