//! Which files decide the columns of a table, what is declared, and files that fit neither.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use datafusion_s3::{CsvSettings, Format, S3Connector, S3ConnectorBuilder, SchemaPolicy, TableSettings};
use datafusion_s3_testbed::Testbed;

use crate::harness::{batch, connector, error, parquet, rows, session};

async fn put(testbed: &Testbed, key: &str, text: &str) {
    testbed.put("testbed", &format!("shop/{key}"), text.to_owned()).await.unwrap();
}

/// A session with the tables of `s3://testbed/shop`.
async fn shop(
    testbed: &Testbed,
    change: impl FnOnce(S3ConnectorBuilder) -> S3ConnectorBuilder,
) -> (SessionContext, S3Connector) {
    let ctx = session();
    let s3 = change(connector(testbed).with_root("s3://testbed/shop")).build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    testbed.reset_log();
    (ctx, s3)
}

fn declared(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

fn one(name: &str, values: ArrayRef) -> bytes::Bytes {
    parquet(&RecordBatch::try_from_iter([(name, values)]).unwrap())
}

async fn columns(s3: &S3Connector, table: &str) -> String {
    let table = s3.table(table).await.unwrap();
    table.columns().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn policies_choose_the_files_that_decide() {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..70 {
        let column = match part {
            0 => "first",
            35 => "middle",
            69 => "last",
            _ => "other",
        };
        let values: ArrayRef = Arc::new(Int32Array::from(vec![part]));
        testbed.put("testbed", &format!("shop/t/{part:02}.parquet"), one(column, values)).await.unwrap();
    }
    // The newest by time and then by key: all were written within a second or two.
    for (policy, expected, gets) in [
        (SchemaPolicy::Auto, "first Int32, last Int32", 2),
        (SchemaPolicy::First, "first Int32", 1),
        (SchemaPolicy::Newest, "last Int32", 1),
        (SchemaPolicy::Sample(1), "first Int32", 1),
        (SchemaPolicy::Sample(3), "first Int32, other Int32, last Int32", 3),
        (SchemaPolicy::Sample(100), "first Int32, other Int32, middle Int32, last Int32", 70),
        (SchemaPolicy::All, "first Int32, other Int32, middle Int32, last Int32", 70),
    ] {
        let (ctx, s3) = shop(&testbed, |builder| builder.with_schema_policy(policy)).await;
        assert_eq!(columns(&s3, "t").await, expected, "{policy:?}");
        let counts = testbed.counts();
        assert_eq!((counts.list, counts.get, counts.requests()), (1, gets, gets + 1), "{policy:?}");
        assert_eq!(rows(&ctx, "SELECT count(*) FROM s3.t").await, ["70"], "{policy:?}");
    }
}

#[tokio::test]
async fn strict_names_the_files_and_the_column() {
    let testbed = Testbed::start().await.unwrap();
    put(&testbed, "same/a.csv", "id,name\n1,x\n").await;
    put(&testbed, "same/b.csv", "name,id\ny,2\n").await;
    put(&testbed, "lacks/a.csv", "id,name\n1,x\n").await;
    put(&testbed, "lacks/b.csv", "id\n2\n").await;
    put(&testbed, "added/a.csv", "id\n1\n").await;
    put(&testbed, "added/b.csv", "id,name\n2,x\n").await;
    put(&testbed, "types/a.csv", "id\n1\n").await;
    put(&testbed, "types/b.csv", "id\nx\n").await;
    let (ctx, _s3) = shop(&testbed, |builder| builder.with_schema_policy(SchemaPolicy::Strict)).await;
    assert_eq!(rows(&ctx, "SELECT id, name FROM s3.same ORDER BY id").await, ["1|x", "2|y"]);
    for (table, part) in [
        ("lacks", "column \"name\" is in s3://testbed/shop/lacks/a.csv and not in s3://testbed/shop/lacks/b.csv"),
        ("added", "column \"name\" is in s3://testbed/shop/added/b.csv and not in s3://testbed/shop/added/a.csv"),
        ("types", "column \"id\" is Int64 in s3://testbed/shop/types/a.csv and Utf8 in s3://testbed/shop/types/b.csv"),
    ] {
        let message = error(&ctx, &format!("SELECT * FROM s3.{table}")).await;
        assert!(message.contains(part) && message.contains("schema_policy is strict"), "{message}");
    }
    // What is said of one table counts for it alone.
    let all = TableSettings::default().with_schema_policy(SchemaPolicy::All);
    let (ctx, _s3) =
        shop(&testbed, |builder| builder.with_schema_policy(SchemaPolicy::Strict).with_table("lacks", all)).await;
    assert_eq!(rows(&ctx, "SELECT id, name FROM s3.lacks ORDER BY id").await, ["1|x", "2|"]);
    assert!(error(&ctx, "SELECT * FROM s3.added").await.contains("strict"));
}

#[tokio::test]
async fn a_declared_schema_reads_nothing_to_open_a_table() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/p/year=01/a.parquet", parquet(&batch(1, 2))).await.unwrap();
    put(&testbed, "c/a.csv", "name,id\nx,1\n").await;
    put(&testbed, "c/b.csv", "id,more,price\n2,?,2.5\n").await;
    put(&testbed, "j/a.json", "{\"id\":1,\"price\":2}\n").await;
    put(&testbed, "j/b.json", "[{\"id\":2,\"price\":2.5}]\n").await;
    let (ctx, s3) = shop(&testbed, |builder| {
        builder
            .with_table(
                "p",
                TableSettings::default().with_schema(declared(&[
                    ("name", DataType::Utf8),
                    ("year", DataType::Int16),
                    ("id", DataType::Decimal128(30, 2)),
                    ("missing", DataType::Int32),
                ])),
            )
            .with_table(
                "c",
                TableSettings::default().with_schema(declared(&[
                    ("id", DataType::Int32),
                    ("price", DataType::Decimal128(5, 2)),
                    ("name", DataType::Utf8View),
                ])),
            )
            .with_table(
                "s3://testbed/shop/j",
                TableSettings::default().with_schema(declared(&[("price", DataType::Float64)])),
            )
    })
    .await;
    for (table, expected) in [
        ("p", "name Utf8, id Decimal128(30, 2), missing Int32, year Int16"),
        ("c", "id Int32, price Decimal128(5, 2), name Utf8View"),
        ("j", "price Float64"),
    ] {
        assert_eq!(columns(&s3, table).await, expected);
    }
    let counts = testbed.counts();
    assert_eq!((counts.list, counts.requests()), (3, 3), "no file");
    assert_eq!(rows(&ctx, "SELECT * FROM s3.p WHERE year = 1 ORDER BY id").await, ["n1|1.00||1", "n2|2.00||1"]);
    assert_eq!(rows(&ctx, "SELECT * FROM s3.c ORDER BY id").await, ["1||x", "2|2.50|"]);
    assert_eq!(rows(&ctx, "SELECT * FROM s3.j ORDER BY price").await, ["2.0", "2.5"]);
}

#[tokio::test]
async fn what_does_not_fit_a_declared_schema_names_file_and_column() {
    let testbed = Testbed::start().await.unwrap();
    put(&testbed, "j/a.json", "{\"id\":1}\n").await;
    put(&testbed, "j/b.json", "{\"id\":2.5}\n").await;
    put(&testbed, "nested.json", "{\"id\":1,\"points\":[{\"x\":1}]}\n{\"id\":2,\"points\":[{\"x\":1.5}]}\n").await;
    put(&testbed, "c.csv", "id\n1\nx\n").await;
    put(&testbed, "days/day=x/a.csv", "id\n1\n").await;
    testbed.put("testbed", "shop/p.parquet", one("id", Arc::new(Float64Array::from(vec![1.5])))).await.unwrap();
    let id = || TableSettings::default().with_schema(declared(&[("id", DataType::Int64), ("day", DataType::Date32)]));
    let point = DataType::Struct(vec![Field::new("x", DataType::Int64, true)].into());
    let points = declared(&[("id", DataType::Int64), ("points", DataType::new_list(point, true))]);
    let (ctx, _s3) = shop(&testbed, |builder| {
        let builder = builder.with_table("nested", TableSettings::default().with_schema(points));
        ["j", "c", "days", "p"].into_iter().fold(builder, |builder, table| builder.with_table(table, id()))
    })
    .await;
    for (table, parts) in [
        ("j", &["\"id\" is Int64 in the table", "Float64 in s3://testbed/shop/j/b.json"][..]),
        ("p", &["\"id\" is Int64 in the table", "Float64 in s3://testbed/shop/p.parquet"]),
        ("nested", &["column \"points\" is", "in s3://testbed/shop/nested.json"]),
        ("days", &["s3://testbed/shop/days/day=x/a.csv", "\"x\" is no Date32", "\"day\""]),
        ("c", &["Error while parsing value 'x' as type 'Int64'"]),
    ] {
        let message = error(&ctx, &format!("SELECT id FROM s3.{table}")).await;
        for part in parts {
            assert!(message.contains(part), "{table}: {message}");
        }
    }
}

/// Files past those that decided, which would be cast with a loss.
#[tokio::test]
async fn files_that_nobody_looked_at_are_checked_when_they_are_read() {
    let testbed = Testbed::start().await.unwrap();
    for part in 0..70 {
        let value = if part == 30 { "2.5" } else { "2" };
        put(&testbed, &format!("j/{part:02}.ndjson"), &format!("{{\"id\":{value}}}\n")).await;
        put(&testbed, &format!("c/{part:02}.csv"), &format!("id\n{value}\n")).await;
    }
    let (ctx, _s3) = shop(&testbed, |builder| builder.with_schema_policy(SchemaPolicy::First)).await;
    for (table, key) in [("j", "j/30.ndjson"), ("c", "c/30.csv")] {
        let message = error(&ctx, &format!("SELECT sum(id) FROM s3.{table}")).await;
        let part = format!("column \"id\" is Int64 in the table and Float64 in s3://testbed/shop/{key}");
        assert!(message.contains(&part) && message.contains("set schema_policy to all"), "{message}");
        // A few rows need only the first file.
        testbed.reset_log();
        assert_eq!(rows(&ctx, &format!("SELECT id FROM s3.{table} LIMIT 1")).await, ["2"]);
        assert_eq!(testbed.counts().requests(), 0, "{table}: it is in memory");
    }
    let (ctx, _s3) = shop(&testbed, |builder| builder.with_schema_policy(SchemaPolicy::All)).await;
    for table in ["j", "c"] {
        assert_eq!(rows(&ctx, &format!("SELECT sum(id) FROM s3.{table}")).await, ["140.5"], "{table}");
    }
}

#[tokio::test]
async fn text_is_read_as_it_is_declared_to_be_written() {
    let testbed = Testbed::start().await.unwrap();
    for (key, text) in [
        ("semicolon.csv", "id;name\n1;a,b\n2;'c;\n''d'\n"),
        ("no_header.csv", "1,x\n2,y\n"),
        ("named/a.csv", "1,x,?\n"),
        ("named/b.csv", "2,y,?\n"),
        ("comment.csv", "#made by a job\nid,name\n1,x\n#2,y\n3,#z\n"),
        ("escape.csv", "id,name\n1,\"a\\\"b\"\n"),
        ("short.csv", "id,name,price\n1,x,2\n2\n3,z\n"),
        ("long.csv", "id,name\n1,x\n2,y,z\n"),
        ("pipe.tsv", "id|name\n1|a\tb\n"),
        (
            "nulls.csv",
            "id,price,day,name\n1,NA,2024-02-29,x\nNA,2.5,\\N,NA\n3,,2024-03-01,\"NA\"\n4,1,2024-03-02,NAN\n",
        ),
        ("null_folder/a.csv", "id,price\n1,NULL\n"),
        ("null_folder/b.csv", "price,id\n2.5,NULL\n"),
        ("bom.csv", "\u{feff}id,name\r\n1,x\r\n"),
    ] {
        put(&testbed, key, text).await;
    }
    let csv = |settings: CsvSettings| TableSettings::default().with_csv(settings);
    let text = CsvSettings::default;
    let (ctx, s3) = shop(&testbed, |builder| {
        builder
            .with_table("semicolon", csv(text().with_delimiter(b';').with_quote(b'\'')))
            .with_table("no_header.csv", csv(text().with_header(false)))
            .with_table(
                "named",
                csv(text().with_header(false))
                    .with_schema(declared(&[("id", DataType::Int64), ("name", DataType::Utf8)])),
            )
            .with_table("comment", csv(text().with_comment(b'#')))
            .with_table("escape", csv(text().with_escape(b'\\')))
            .with_table("short", csv(text().with_pad_short_rows(true)))
            .with_table("nulls", csv(text().with_null("NA").with_null("\\N")))
            .with_table("null_folder", csv(text().with_null("NULL")))
            .with_table("pipe", csv(text().with_delimiter(b'|')))
    })
    .await;
    assert_eq!(columns(&s3, "no_header").await, "column_1 Int64, column_2 Utf8");
    assert_eq!(columns(&s3, "nulls").await, "id Int64, price Float64, day Date32, name Utf8");
    for (table, sql, expected) in [
        ("semicolon", "id, replace(name, chr(10), '/')", &["1|a,b", "2|c;/'d"][..]),
        ("no_header", "column_1, column_2", &["1|x", "2|y"]),
        ("named", "id, name", &["1|x", "2|y"]),
        ("comment", "id, name", &["1|x", "3|#z"]),
        ("escape", "id, name", &["1|a\"b"]),
        ("short", "id, name, price", &["1|x|2", "2||", "3|z|"]),
        ("pipe", "id, replace(name, chr(9), '/')", &["1|a/b"]),
        ("nulls", "id, price, day, name", &["1||2024-02-29|x", "3||2024-03-01|", "4|1.0|2024-03-02|NAN", "|2.5||"]),
        ("nulls", "count(*), count(name), sum(price)", &["4|2|3.5"]),
        ("null_folder", "id, price", &["1|", "|2.5"]),
        ("bom", "id, name", &["1|x"]),
    ] {
        let sql = format!("SELECT {sql} FROM s3.{table} ORDER BY 1");
        assert_eq!(rows(&ctx, &sql).await, expected, "{table}");
    }
    let message = error(&ctx, "SELECT * FROM s3.long").await;
    assert!(message.contains("s3://testbed/shop/long.csv") && message.contains("line 3"), "{message}");
}

#[tokio::test]
async fn settings_say_what_belongs_to_a_table() {
    let testbed = Testbed::start().await.unwrap();
    for key in
        ["logs/2024/01/a.csv", "logs/2024/02/a.csv", "logs/2025/01/a.csv", "logs/2025/01/b.tmp", "logs/old/x.csv"]
    {
        put(&testbed, key, &format!("key\n{key}\n")).await;
    }
    put(&testbed, "raw/part-0", "1|x\n").await;
    put(&testbed, "raw/part-1.gz.bak", "2|y\n").await;
    put(&testbed, "list.txt", "1\n2\n").await;
    let (ctx, s3) = shop(&testbed, |builder| {
        builder
            .with_table(
                "logs",
                TableSettings::default().with_template("{year}/{month}").with_exclude("old/**").with_alias("journal"),
            )
            .with_table(
                "raw",
                TableSettings::default()
                    .with_format(Format::Csv)
                    .with_csv(CsvSettings::default().with_header(false).with_delimiter(b'|'))
                    .with_schema(declared(&[("id", DataType::Int64), ("name", DataType::Utf8)]))
                    .with_exclude("*.bak"),
            )
            .with_table(
                "list.txt",
                TableSettings::default()
                    .with_format(Format::Csv)
                    .with_csv(CsvSettings::default().with_header(false))
                    .with_alias("numbers"),
            )
    })
    .await;
    assert_eq!(s3.table_names().await.unwrap(), ["journal", "logs", "numbers", "raw"]);
    let all = "SELECT key, year, month FROM s3.journal ORDER BY key";
    let expected = ["logs/2024/01/a.csv|2024|01", "logs/2024/02/a.csv|2024|02", "logs/2025/01/a.csv|2025|01"];
    assert_eq!(rows(&ctx, all).await, expected);
    assert_eq!(rows(&ctx, "SELECT key FROM s3.logs WHERE year = 2024 AND month = 2").await, ["logs/2024/02/a.csv"]);
    assert_eq!(rows(&ctx, "SELECT * FROM s3.raw").await, ["1|x"]);
    assert_eq!(rows(&ctx, "SELECT sum(column_1) FROM s3.numbers").await, ["3"]);
    let ignored =
        "SELECT key, reason FROM s3_information.objects WHERE table_name = 'logs' AND status = 'ignored' ORDER BY key";
    assert_eq!(
        rows(&ctx, ignored).await,
        [
            "shop/logs/2025/01/b.tmp|its name ends in no known extension",
            "shop/logs/old/x.csv|left out by include or exclude of the settings"
        ]
    );
    // Without a pattern, what lies elsewhere is an error; with one, only what it names is there.
    for (settings, outcome) in [
        (
            TableSettings::default().with_template("{year}/{month}"),
            Err("\"old/x.csv\" does not lie in folders like {year}/{month}"),
        ),
        (TableSettings::default().with_template("2024/{month}").with_include("2024/**"), Ok(2)),
        (TableSettings::default().with_template("{y}/01").with_include("*/01/*"), Ok(2)),
        (TableSettings::default().with_template("{y}/01"), Err("does not lie in folders like {y}/01")),
        (TableSettings::default().with_include("nothing/*"), Err("all of its 5 objects are ignored")),
    ] {
        let (ctx, _s3) = shop(&testbed, |builder| builder.with_table("logs/", settings.clone())).await;
        match outcome {
            Ok(count) => {
                assert_eq!(rows(&ctx, "SELECT count(*) FROM s3.logs").await, [format!("{count}")], "{settings:?}")
            }
            Err(part) => {
                let message = error(&ctx, "SELECT * FROM s3.logs").await;
                assert!(message.contains(part), "{message}");
            }
        }
    }
    // Without a root, an alias stands for a full path.
    let path = "s3://testbed/shop/logs/2024/01/";
    let s3 = connector(&testbed).with_table(path, TableSettings::default().with_alias("january")).build().unwrap();
    let ctx = session();
    s3.register(&ctx, "s3").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT key FROM s3.january").await, ["logs/2024/01/a.csv"]);
    assert_eq!(s3.table_names().await.unwrap(), ["january"]);
}

#[test]
fn settings_of_tables_are_checked() {
    let schema = |columns: &[(&str, DataType)]| TableSettings::default().with_schema(declared(columns));
    let csv = |settings: CsvSettings| TableSettings::default().with_csv(settings);
    let text = CsvSettings::default;
    for (key, settings, parts) in [
        ("t", schema(&[("a", DataType::Int8), ("a", DataType::Int16)]), &["schema", "\"t\"", "\"a\""][..]),
        ("t", schema(&[]), &["schema", "no columns"]),
        ("t", csv(text().with_delimiter(b'"')), &["csv", "same character"]),
        ("t", csv(text().with_delimiter(b'\n')), &["csv", "line end"]),
        ("t", TableSettings::default().with_schema_policy(SchemaPolicy::Sample(0)), &["schema_policy", "sample"]),
        ("s3://", TableSettings::default(), &["s3://", "bucket"]),
        ("t", TableSettings::default().with_include("[a"), &["include", "[a"]),
        ("t", TableSettings::default().with_template("year/month"), &["template", "{year}/{month}"]),
        ("t", TableSettings::default().with_template("{a}/x{b}"), &["template", "x{b}"]),
        ("t", TableSettings::default().with_template("{a}/{a}"), &["template", "twice"]),
        ("t", TableSettings::default().with_alias("s3://b"), &["aliases", "a name"]),
        ("t", TableSettings::default().with_alias("x").with_alias("x"), &["aliases", "\"x\" stands for"]),
    ] {
        let built = S3Connector::builder().with_environment(false).with_table(key, settings).build();
        let message = built.unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
    }
}
