//! What lies in buckets: the cases of the table in `tests/README.md`, by their numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::{ArchivedObjects, S3Connector, S3ConnectorBuilder};
use datafusion_s3_testbed::Testbed;

use crate::fixtures::compressed;
use crate::harness::{batch, connector, error, parquet, registered, rows, session};

/// A bucket `lake` with these objects.
async fn lake(objects: &[(&str, &str)]) -> Testbed {
    let testbed = Testbed::builder().bucket("lake").start().await.unwrap();
    for (key, text) in objects {
        testbed.put("lake", key, (*text).to_owned()).await.unwrap();
    }
    testbed
}

async fn registered_by(builder: S3ConnectorBuilder) -> (SessionContext, S3Connector) {
    let (ctx, s3) = (session(), builder.build().unwrap());
    s3.register(&ctx, "s3").await.unwrap();
    (ctx, s3)
}

/// Rows 1, 2, 4: a key is bytes.
#[tokio::test]
async fn keys_are_byte_exact() {
    let names = ["a b", "a+b", "a=b", "a%2Fb", "a%20b", "\u{e9}", "e\u{301}", "a&b", "a'\"b", "<a>", "a#?b", "a*b~c"];
    let keys: Vec<(String, String)> =
        names.iter().enumerate().map(|(id, name)| (format!("shop/{name}.csv"), format!("id\n{id}\n"))).collect();
    let testbed = lake(&keys.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect::<Vec<_>>()).await;
    let (ctx, s3) = registered(&testbed, "s3://lake/shop").await;
    let mut expected = names.map(str::to_owned);
    expected.sort();
    assert_eq!(s3.table_names().await.unwrap(), expected);
    for (id, name) in names.iter().enumerate() {
        let sql = format!("SELECT id FROM s3.\"{}\"", name.replace('"', "\"\""));
        assert_eq!(rows(&ctx, &sql).await, [id.to_string()], "{name}");
    }
}

/// Row 3: partition values are decoded once.
#[tokio::test]
async fn partition_values_are_decoded_once() {
    let testbed = lake(&[
        ("shop/t/p=a%2Fb/x.csv", "id\n1\n"),
        ("shop/t/p=a%252Fb/x.csv", "id\n2\n"),
        ("shop/t/p=a+b/x.csv", "id\n3\n"),
    ])
    .await;
    let (ctx, _s3) = registered(&testbed, "s3://lake/shop").await;
    assert_eq!(rows(&ctx, "SELECT p, id FROM s3.t ORDER BY id").await, ["a/b|1", "a%2Fb|2", "a+b|3"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t WHERE p = 'a/b'").await, ["1"]);
}

/// Rows 5 to 9: keys that cannot be read are ignored, say why when they are asked for, and do not fail their neighbours.
#[tokio::test]
async fn keys_that_cannot_be_read_leave_their_neighbours_alone() {
    let testbed = lake(&[
        ("shop/good.csv", "id\n1\n"),
        ("shop/t/a.csv", "id\n2\n"),
        ("shop/t//b.csv", "id\n9\n"),
        ("shop//c.csv", "id\n9\n"),
        ("/shop/good.csv", "id\n9\n"),
        ("shop/good.csv/", "id\n9\n"),
        ("shop/../outside.csv", "id\n9\n"),
        ("shop/./d.csv", "id\n9\n"),
        ("shop/t/../../e.csv", "id\n9\n"),
        ("shop/tab\there.csv", "id\n9\n"),
        ("shop/line\r\nend.csv", "id\n9\n"),
        ("shop/t/bell\u{7}.csv", "id\n9\n"),
    ])
    .await;
    let (ctx, s3) = registered(&testbed, "s3://lake/shop").await;
    // `good.csv/` with bytes is a folder, and not the object `good.csv`.
    assert_eq!(s3.table_names().await.unwrap(), ["good", "good.csv/", "t"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.\"good.csv\"").await, ["1"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t").await, ["2"]);
    for name in ["tab\there", "../", "/"] {
        let message = error(&ctx, &format!("SELECT * FROM s3.\"{name}\"")).await;
        assert!(
            message.contains("its key has an empty segment, . or .., or a control character"),
            "{name:?}: {message}"
        );
    }
    for path in
        ["s3://lake/shop//c.csv", "s3://lake//shop/good.csv", "s3://lake/shop/./d.csv", "s3://lake/shop/t/../../e.csv"]
    {
        let message = error(&ctx, &format!("SELECT * FROM s3.\"{path}\"")).await;
        assert!(message.contains("cannot be read") || message.contains("outside of the root"), "{path}: {message}");
    }
    // A catalog meets them, too, and the bucket itself as a root.
    let lake = connector(&testbed).with_root("s3://lake").build().unwrap();
    lake.register_catalog(&ctx, "lake").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id FROM lake.shop.t").await, ["2"]);
    assert_eq!(lake.table_names().await.unwrap(), ["shop"]);
}

/// Rows 10 to 15: what jobs leave behind is no data.
#[tokio::test]
async fn markers_hidden_and_empty_objects_are_no_rows() {
    let testbed = lake(&[
        ("shop/t/", ""),
        ("shop/t/a.csv", "id\n1\n"),
        ("shop/t/b.csv", "id\n2\n"),
        ("shop/t_$folder$", ""),
        ("shop/t/_SUCCESS", ""),
        ("shop/t/.a.csv.crc", "crc"),
        ("shop/t/_committed_1", "{}"),
        ("shop/t/_started_1", "{}"),
        ("shop/t/_temporary/0/c.csv", "id\n9\n"),
        ("shop/t/_hidden.csv", "id\n9\n"),
        ("shop/t/.hidden.csv", "id\n9\n"),
        ("shop/t/_metadata", "PAR1"),
        ("shop/t/_common_metadata", "PAR1"),
        ("shop/t/empty.csv", ""),
        ("shop/delta/_delta_log/0.json", "{}"),
        ("shop/delta/a.csv", "id\n9\n"),
        ("shop/ice/metadata/v1.metadata.json", "{}"),
        ("shop/ice/data/a.csv", "id\n9\n"),
        ("shop/hudi/.hoodie/hoodie.properties", "x"),
        ("shop/hudi/a.csv", "id\n9\n"),
    ])
    .await;
    let (ctx, _s3) = registered(&testbed, "s3://lake/shop").await;
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t ORDER BY id").await, ["1", "2"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.\"s3://lake/shop/t/_hidden.csv\"").await, ["9"], "named in full");
    for (table, format) in [("delta", "Delta Lake"), ("ice", "Iceberg"), ("hudi", "Hudi")] {
        let message = error(&ctx, &format!("SELECT * FROM s3.{table}")).await;
        assert!(message.contains(&format!("it is a table of {format}")), "{message}");
    }
    let counted =
        "SELECT status, count(*) FROM s3_information.objects WHERE table_name = 't' GROUP BY status ORDER BY 1";
    assert_eq!(rows(&ctx, counted).await, ["ignored|11", "used|2"], "none is dropped in silence");
}

/// Row 16: a Parquet file that is cut off anywhere is an error with its key.
#[tokio::test]
async fn truncated_parquet_files() {
    let testbed = lake(&[]).await;
    let file = parquet(&batch(1, 3));
    for length in (1..file.len()).step_by(7) {
        testbed.put("lake", &format!("cut/{length:05}.parquet"), file.slice(..length)).await.unwrap();
    }
    let (ctx, s3) = registered(&testbed, "s3://lake/cut").await;
    for table in s3.table_names().await.unwrap() {
        let message = error(&ctx, &format!("SELECT * FROM s3.\"{table}\"")).await;
        assert!(message.contains(&format!("s3://lake/cut/{table}.parquet cannot be read as Parquet")), "{message}");
    }
}

/// Row 17: a footer that exceeds the first read costs one more.
#[tokio::test]
async fn a_large_footer_costs_one_more_read() {
    let testbed = lake(&[]).await;
    let column: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let columns = (0..6_000).map(|index| (format!("column_{index}_with_a_long_name"), Arc::clone(&column)));
    let file = parquet(&RecordBatch::try_from_iter(columns).unwrap());
    assert!(file.len() > 1024 * 1024, "not read whole: {}", file.len());
    testbed.put("lake", "shop/wide.parquet", file).await.unwrap();
    let (ctx, _s3) = registered(&testbed, "s3://lake/shop").await;
    testbed.reset_log();
    assert_eq!(rows(&ctx, "SELECT column_5999_with_a_long_name FROM s3.wide").await, ["7"]);
    let counts = testbed.counts();
    assert_eq!((counts.get, counts.requests()), (3, 3), "the end, the rest of the footer, the column");
}

/// Rows 21 to 25: the edges of text.
#[tokio::test]
async fn text_has_all_of_its_rows() {
    let quoted: String = (0..40_000).map(|id| format!("{id},\"line one\nline, \"\"two\"\" of {id}\"\n")).collect();
    let lines: String = (0..60_000).map(|id| format!("{id},x{id}\r\n")).collect();
    let testbed = lake(&[
        ("shop/bom.csv", "\u{feff}id,name\n1,x\n"),
        ("shop/quoted.csv", &format!("id,name\n{quoted}")),
        ("shop/crlf.csv", &format!("id,name\r\n{lines}")),
        ("shop/ragged.csv", "id,name\n1,x\n2\n"),
    ])
    .await;
    let mut members = Vec::new();
    for text in ["id\n1\n", "2\n", "3\n"] {
        members.extend(compressed(&text.into(), CompressionTypeVariant::GZIP).await);
    }
    testbed.put("lake", "shop/members.csv.gz", members).await.unwrap();
    // Small batches, so that records lie across the edges of reads.
    let config = SessionConfig::new().with_target_partitions(8).with_batch_size(1000);
    let ctx = SessionContext::new_with_config(config);
    let s3 = connector(&testbed).with_root("s3://lake/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id, name FROM s3.bom").await, ["1|x"]);
    let sums = "SELECT count(*), sum(id), count(DISTINCT name), min(character_length(name)) FROM s3";
    assert_eq!(rows(&ctx, &format!("{sums}.quoted")).await, ["40000|799980000|40000|25"]);
    assert_eq!(rows(&ctx, &format!("{sums}.crlf")).await, ["60000|1799970000|60000|2"]);
    assert_eq!(rows(&ctx, "SELECT count(*), sum(id) FROM s3.members").await, ["3|6"]);
    let message = error(&ctx, "SELECT * FROM s3.ragged").await;
    assert!(message.contains("s3://lake/shop/ragged.csv") && message.contains("line 3"), "{message}");
}

/// Row 28: what lies in an archive is known from the listing.
#[tokio::test]
async fn archived_objects() {
    let testbed = lake(&[("shop/t/y=2024/a.csv", "id\n1\n"), ("shop/t/y=2025/a.csv", "id\n2\n")]).await;
    testbed.put_in("lake", "shop/t/y=2023/a.csv", Some("DEEP_ARCHIVE"), "id\n0\n").await.unwrap();
    testbed.put_in("lake", "shop/cold.csv", Some("GLACIER"), "id\n3\n").await.unwrap();
    testbed.put_in("lake", "shop/instant.csv", Some("GLACIER_IR"), "id\n4\n").await.unwrap();
    let builder = connector(&testbed).with_root("s3://lake/shop");
    let all = "SELECT id FROM s3.t ORDER BY id";

    let (ctx, _s3) = registered_by(builder.clone()).await;
    testbed.reset_log();
    let message = error(&ctx, all).await;
    assert!(message.contains("s3://lake/shop/t/y=2023/a.csv is archived (DEEP_ARCHIVE)"), "{message}");
    assert_eq!(testbed.counts().get, 2, "the headers of the other files");
    assert_eq!(rows(&ctx, "SELECT id FROM s3.t WHERE y > 2023 ORDER BY id").await, ["1", "2"]);
    assert_eq!(rows(&ctx, "SELECT id FROM s3.instant").await, ["4"]);
    let message = error(&ctx, "SELECT id FROM s3.cold").await;
    assert!(message.contains("s3://lake/shop/cold.csv is archived (GLACIER)"), "{message}");

    let (ctx, _s3) = registered_by(builder.clone().with_archived_objects(ArchivedObjects::Skip)).await;
    assert_eq!(rows(&ctx, all).await, ["1", "2"]);

    let (ctx, _s3) = registered_by(builder.with_archived_objects(ArchivedObjects::Read)).await;
    let message = error(&ctx, all).await;
    assert!(message.contains("GET s3://lake/shop/t/y=2023/a.csv: "), "{message}");
    testbed.put("lake", "shop/t/y=2023/a.csv", "id\n0\n").await.unwrap();
    assert_eq!(rows(&ctx, all).await, ["0", "1", "2"]);
}
