//! What lies in the bucket of the SQL suites: a folder for each suite, catalogued in `tests/README.md`.
//!
//! The same objects go into the testbed and into any other S3 server, so that both answer alike.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeListArray, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampSecondArray, UInt8Array,
};
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Int64Type, Schema};
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::arrow_avro::writer::AvroWriter;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::harness::parquet;

/// Keys relative to the place of the fixtures, and what lies there.
pub(crate) type Objects = Vec<(String, Bytes)>;

/// The fixtures of all suites that every S3 server can hold.
pub(crate) async fn shared() -> Objects {
    let mut objects = shop();
    objects.extend(formats().await);
    objects.extend(discovery());
    objects.extend(partitions());
    objects.extend(pushdown().await);
    objects.extend(schemas());
    objects.extend(errors().await);
    objects
}

/// What only S3 itself and the testbed hold: SeaweedFS loses the bytes of `x/` and folds `//`.
pub(crate) fn testbed_only() -> Objects {
    [
        ("shop/", ""),
        ("shop/transactions/", ""),
        ("shop/transactions/year=2024/", ""),
        ("discovery/jobs/", ""),
        ("partitions/sales/", ""),
        ("partitions/sales/year=2023/month=1/", "a marker with bytes is one all the same"),
    ]
    .map(|(key, text)| (key.to_owned(), text.into()))
    .into()
}

/// A root as a shop's jobs leave it behind, for the demo scripts.
fn shop() -> Objects {
    let mut objects = texts(&[
        ("customers.csv", "id,name,city\n1,Ada,Bern\n2,Bob,Ulm\n3,Cleo,\n"),
        (
            "users.json",
            concat!(
                "{\"id\":1,\"customer\":1,\"email\":\"ada@example.com\",\"tags\":[\"new\",\"vip\"]}\n",
                "{\"id\":2,\"customer\":3,\"email\":null,\"tags\":[]}\n",
            ),
        ),
        ("README.md", "What lies here is written by the nightly job.\n"),
        ("_SUCCESS", ""),
        (".articles.parquet.crc", "crc\0"),
        ("transactions_$folder$", ""),
        ("_temporary/0/_temporary/attempt_1/part-0.parquet", "half a file"),
        ("transactions/_SUCCESS", ""),
        ("transactions/_committed_4711", "{\"added\":[\"part-0.parquet\"]}"),
        ("transactions/_started_4711", ""),
        ("transactions/year=2024/month=1/.part-0.parquet.crc", "crc\0"),
    ]);
    objects.push(("articles.parquet".into(), parquet(&products())));
    for (index, (year, month)) in [(2023, 11), (2023, 12), (2024, 1), (2024, 2), (2024, 3)].into_iter().enumerate() {
        let first = 10 * index as i64;
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from_iter_values(first..first + 4))),
            ("article", Arc::new(Int64Array::from(vec![1, 2, 3, 1]))),
            ("customer", Arc::new(Int64Array::from(vec![1, 2, 3, 2]))),
            ("quantity", Arc::new(Int64Array::from(vec![1, 2, 3, index as i64 + 1]))),
        ];
        let key = format!("transactions/year={year}/month={month}/part-0.parquet");
        objects.push((key, parquet(&RecordBatch::try_from_iter(columns).unwrap())));
    }
    under("shop", objects)
}

/// The same three rows in every format and compression, as files and as folders of files.
async fn formats() -> Objects {
    let rows = products();
    let (first, rest) = (rows.slice(0, 1), rows.slice(1, 2));
    let mut objects = vec![
        ("products_parquet.parquet".into(), parquet(&rows)),
        ("products_parq.parq".into(), parquet(&rows)),
        ("products_pq.pq".into(), parquet(&rows)),
        ("products_arrow.arrow".into(), arrow_file(&rows)),
        ("products_feather.feather".into(), arrow_file(&rows)),
        ("products_ipc.ipc".into(), arrow_file(&rows)),
        ("products_avro.avro".into(), avro(&rows)),
        ("products_csv.csv".into(), delimited(&rows, ",")),
        ("products_tsv.tsv".into(), delimited(&rows, "\t")),
        ("products_tab.tab".into(), delimited(&rows, "\t")),
        ("products_json.json".into(), json_lines(&rows)),
        ("products_ndjson.ndjson".into(), json_lines(&rows)),
        ("products_jsonl.jsonl".into(), json_lines(&rows)),
        ("products_array.json".into(), json_array(&rows)),
        ("PRODUCTS_UPPER.CSV".into(), delimited(&rows, ",")),
        // No extension: the first bytes tell.
        ("magic_parquet".into(), parquet(&rows)),
        ("magic_arrow".into(), arrow_file(&rows)),
        ("magic_avro".into(), avro(&rows)),
        ("magic_json".into(), json_lines(&rows)),
        ("magic_array".into(), json_array(&rows)),
        ("magic_json_gz".into(), compressed(&json_lines(&rows), CompressionTypeVariant::GZIP).await),
        ("magic_csv".into(), delimited(&rows, ",")),
        ("plain_folder/part-00000".into(), parquet(&first)),
        ("plain_folder/part-00001".into(), parquet(&rest)),
    ];
    type Encode = fn(&RecordBatch) -> Bytes;
    let folders: [(&str, Encode); 7] = [
        ("parquet", parquet),
        ("arrow", arrow_file),
        ("avro", avro),
        ("csv", |rows| delimited(rows, ",")),
        ("tsv", |rows| delimited(rows, "\t")),
        ("ndjson", json_lines),
        ("json", json_array),
    ];
    for (extension, encode) in folders {
        objects.push((format!("folder_{extension}/part-0.{extension}"), encode(&first)));
        objects.push((format!("folder_{extension}/part-1.{extension}"), encode(&rest)));
    }
    let texts: [(&str, Encode); 4] =
        [("csv", folders[3].1), ("tsv", folders[4].1), ("ndjson", json_lines), ("json", json_array)];
    for (extension, encode) in texts {
        for (suffix, compression) in [
            ("gz", CompressionTypeVariant::GZIP),
            ("bz2", CompressionTypeVariant::BZIP2),
            ("xz", CompressionTypeVariant::XZ),
            ("zst", CompressionTypeVariant::ZSTD),
        ] {
            let whole = compressed(&encode(&rows), compression).await;
            objects.push((format!("products_{extension}_{suffix}.{extension}.{suffix}"), whole));
        }
        let parts = [compressed(&encode(&first), CompressionTypeVariant::GZIP).await, {
            compressed(&encode(&rest), CompressionTypeVariant::GZIP).await
        }];
        for (index, part) in parts.into_iter().enumerate() {
            objects.push((format!("folder_{extension}_gz/part-{index}.{extension}.gz"), part));
        }
    }
    // A file of several members, as `cat a.gz b.gz` makes: the second has no header line.
    for (name, text) in [
        ("members.csv.gz", delimited(&rows, ",")),
        ("members_json.ndjson.gz", json_lines(&rows)),
        ("members_zst.csv.zst", delimited(&rows, ",")),
        ("members_bz2.csv.bz2", delimited(&rows, ",")),
        ("members_xz.csv.xz", delimited(&rows, ",")),
    ] {
        let compression = match name.rsplit('.').next() {
            Some("gz") => CompressionTypeVariant::GZIP,
            Some("bz2") => CompressionTypeVariant::BZIP2,
            Some("xz") => CompressionTypeVariant::XZ,
            _ => CompressionTypeVariant::ZSTD,
        };
        let mut file = Vec::new();
        let end = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for member in [text.slice(..end), text.slice(end..)] {
            file.extend(compressed(&member, compression).await);
        }
        objects.push((name.to_owned(), file.into()));
    }
    objects.extend(self::texts(&[
        ("bom.csv", "\u{feff}id,name\n1,Apfel\n"),
        ("par1.csv", "PAR1,PAR2\n1,2\n"),
        ("crlf.csv", "id,name\r\n1,Apfel\r\n2,Birne\r\n"),
        ("quoted.csv", "id,note\n1,\"two\nlines, one field\"\n2,\"a \"\"quote\"\"\"\n"),
        ("no_end.csv", "id,name\n1,Apfel\n2,Birne"),
        ("header_only.csv", "id,name\n"),
        ("types.csv", "flag,number,ratio,day,moment,text\ntrue,1,0.5,2024-02-29,2024-02-29T12:30:00,x\n"),
        ("empty_column.csv", "id,nothing\n1,\n2,\n"),
        ("leading_zeros.csv", "plz\n01067\n80331\n"),
        ("nested.json", "{\"id\":1,\"at\":{\"lat\":47.5,\"name\":\"Ulm\"},\"tags\":[\"a\",\"b\"]}\n{\"id\":2}\n"),
        ("blank_lines.ndjson", "{\"id\":1}\n\n{\"id\":2}\n\n"),
        ("pretty.json", "[\n  {\n    \"id\": 1,\n    \"name\": \"[}\"\n  },\n  {\n    \"id\": 2\n  }\n]\n"),
        ("widened_csv/part-0.csv", "id,price\n1,2\n"),
        ("widened_csv/part-1.csv", "id,price\n2,2.5\n"),
        ("widened_csv/part-2.csv", "id,price\n"),
        ("widened_json/part-0.json", "{\"id\":1,\"price\":2}\n"),
        ("widened_json/part-1.json", "{\"price\":2.5,\"id\":2,\"extra\":\"x\"}\n"),
    ]));
    let narrower =
        RecordBatch::try_from_iter([("name", rows.column(1).slice(0, 2)), ("id", rows.column(0).slice(0, 2))]);
    objects.push(("evolved/part-0.parquet".into(), parquet(&narrower.unwrap())));
    objects.push(("evolved/part-1.parquet".into(), parquet(&rest)));
    under("formats", objects)
}

/// Names: shown, hidden, ambiguous, in all sorts of writing.
fn discovery() -> Objects {
    let rows = parquet(&products());
    let mut objects = texts(&[
        ("customers.csv", "id,name\n1,Ada\n"),
        // Several of one name.
        ("articles.csv", "id,name\n1,from the file\n"),
        ("articles/part-0.csv", "id,name\n1,from the folder\n"),
        // Upper and lower case.
        ("Orders.csv", "id\n1\n"),
        ("items.csv", "id\n1\n"),
        ("Items.csv", "id\n2\n"),
        ("ITEMS.json", "{\"id\":3}\n"),
        // Names that SQL or URLs would take for something else.
        ("my table.csv", "id\n1\n"),
        ("v1.2.csv", "id\n1\n"),
        ("100%25.csv", "id\n1\n"),
        ("a+b=c.csv", "id\n1\n"),
        ("größe.csv", "id\n1\n"),
        ("select.csv", "id\n1\n"),
        // Not shown.
        ("_draft.csv", "id\n1\n"),
        (".secret.csv", "id\n1\n"),
        ("_SUCCESS", ""),
        ("_committed_1", "{}"),
        ("_started_1", ""),
        ("customers.csv.crc", "crc\0"),
        ("orders_$folder$", ""),
        ("empty.csv", ""),
        ("README.md", "not a table\n"),
        ("_temporary/0/part-0.csv", "id\n1\n"),
        (".staging/part-0.csv", "id\n1\n"),
        ("country=CH/part-0.csv", "id\n1\n"),
        // A folder of folders.
        ("archive/2023/part-0.csv", "id\n1\n"),
        ("archive/2024/part-0.csv", "id\n2\n"),
        // A folder whose name only starts like another's.
        ("archive2/part-0.csv", "id\n3\n"),
        // A folder with what jobs leave behind.
        ("jobs/part-0.csv", "id\n1\n"),
        ("jobs/part-1.csv", "id\n2\n"),
        ("jobs/_SUCCESS", ""),
        ("jobs/_temporary/0/part-2.csv", "id\n99\n"),
        ("jobs/.part-0.csv.crc", "crc\0"),
        ("jobs/_hidden.csv", "id\n99\n"),
        ("jobs/empty.csv", ""),
        ("jobs/notes.txt", "not data\n"),
        ("jobs/sub_$folder$", ""),
    ]);
    objects.push(("articles.parquet".into(), rows));
    let mut objects = under("discovery", objects);
    objects.extend(under("discovery2", texts(&[("outside.csv", "id\n1\n")])));
    objects
}

/// `key=value` folders.
fn partitions() -> Objects {
    let mut objects = Vec::new();
    let ids = |first: i64, rows: i64| {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows));
        RecordBatch::try_from_iter([("id", ids)]).unwrap()
    };
    for (index, (year, month)) in [(2023, 1), (2023, 12), (2024, 1), (2024, 2), (2024, 10)].into_iter().enumerate() {
        let key = format!("sales/year={year}/month={month}/part-0.parquet");
        objects.push((key, parquet(&ids(10 * index as i64, 2))));
    }
    for (index, code) in ["1", "2", "__HIVE_DEFAULT_PARTITION__"].into_iter().enumerate() {
        objects.push((format!("nullable_parquet/code={code}/part-0.parquet"), parquet(&ids(10 * index as i64, 2))));
    }
    objects.push(("clash_arrow/id=7/part-0.arrow".into(), arrow_file(&products())));
    // More than a page of a listing. `day=09-a/` comes before `day=09/` by bytes, after it by names.
    for (table, last) in [("pages", "29"), ("pages_by_name", "09-a")] {
        for day in (0..29).map(|day| format!("{day:02}")).chain([last.to_owned()]) {
            for file in 0..40 {
                objects.push((format!("{table}/day={day}/{file:02}.ndjson"), b"{\"id\":1}\n".to_vec().into()));
            }
        }
    }
    for (year, month) in [(2023, "01"), (2024, "02")] {
        let file = in_files(year.into(), year, &[&month[1..]]);
        objects.push((format!("both/year={year}/month={month}/part-0.parquet"), file));
    }
    objects.extend(texts(&[
        ("days/day=2024-02-28/part-0.csv", "id\n1\n"),
        ("days/day=2024-02-29/part-0.csv", "id\n2\n"),
        ("days/day=2024-03-01/part-0.csv", "id\n3\n"),
        ("padded/month=01/part-0.csv", "id\n1\n"),
        ("padded/month=02/part-0.csv", "id\n2\n"),
        ("padded/month=10/part-0.csv", "id\n10\n"),
        ("hours/hour=2017-06-30T05/part-0.csv", "id\n1\n"),
        ("hours/hour=2017-06-30T06/part-0.csv", "id\n2\n"),
        ("prefixed/p=1/part-0.csv", "id\n1\n"),
        ("prefixed/p=10/part-0.csv", "id\n10\n"),
        ("prefixed/p=-1/part-0.csv", "id\n-1\n"),
        ("cities/city=a%2Fb/part-0.json", "{\"id\":1}\n"),
        ("cities/city=New%20York/part-0.json", "{\"id\":2}\n"),
        ("cities/city=La Paz/part-0.json", "{\"id\":3}\n"),
        ("cities/city=Zürich/part-0.json", "{\"id\":4}\n"),
        ("cities/city=a+b/part-0.json", "{\"id\":5}\n"),
        ("cities/city=100%2525/part-0.json", "{\"id\":6}\n"),
        ("cities/city=x=y/part-0.json", "{\"id\":7}\n"),
        ("cities/city=__HIVE_DEFAULT_PARTITION__/part-0.json", "{\"id\":8}\n"),
        ("nullable/code=1/part-0.csv", "id\n1\n"),
        ("nullable/code=2/part-0.csv", "id\n2\n"),
        ("nullable/code=__HIVE_DEFAULT_PARTITION__/part-0.csv", "id\n3\n"),
        ("encoded/sales%20year=2024/part-0.csv", "id\n1\n"),
        ("upper/Year=2024/part-0.csv", "id\n1\n"),
        ("regions.csv", "year,region\n2023,old\n2024,new\n"),
        ("marked/_SUCCESS", ""),
        ("marked/year=2024/_SUCCESS", ""),
        ("marked/year=2024/part-0.csv", "id\n1\n"),
        ("marked/year=2025/_SUCCESS", ""),
        // What does not fit.
        ("stray/part-0.csv", "id\n1\n"),
        ("stray/year=2024/part-0.csv", "id\n2\n"),
        ("depths/year=2023/part-0.csv", "id\n1\n"),
        ("depths/year=2024/month=1/part-0.csv", "id\n2\n"),
        ("swapped/year=2023/month=1/part-0.csv", "id\n1\n"),
        ("swapped/month=1/year=2024/part-0.csv", "id\n2\n"),
        ("clash/id=1/part-0.csv", "id,name\n9,x\n"),
        ("below/year=2024/part-0.csv", "id\n1\n"),
        ("below/year=2024/old/part-0.csv", "id\n2\n"),
    ]));
    under("partitions", objects)
}

/// Enough rows and files to see what is read and what is not.
async fn pushdown() -> Objects {
    let batch = |first: i64, rows: i64| {
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(Int64Array::from_iter_values(first..first + rows))),
            ("name", Arc::new(StringArray::from_iter_values((first..first + rows).map(|id| format!("n{id}"))))),
            (
                "price",
                Arc::new(Float64Array::from_iter(
                    (first..first + rows).map(|id| (id % 10 != 0).then_some(id as f64 / 4.0)),
                )),
            ),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let mut objects = vec![("groups.parquet".into(), row_groups(&batch(0, 1000), 100))];
    for (index, (year, month)) in [(2023, 1), (2023, 2), (2024, 1), (2024, 2)].into_iter().enumerate() {
        let key = format!("events/year={year}/month={month}/part-0.parquet");
        objects.push((key, parquet(&batch(100 * index as i64, 100))));
    }
    // More files than opening a table looks at: 70 of one row each.
    for index in 0..70 {
        objects.push((format!("many/part-{index:02}.parquet"), parquet(&batch(index, 1))));
    }
    let hundred = batch(0, 100);
    let packed = compressed(&json_lines(&hundred), CompressionTypeVariant::ZSTD).await;
    objects.extend([
        ("packed.ndjson.zst".into(), packed),
        ("lines.csv".into(), delimited(&hundred, ",")),
        ("lines_json.ndjson".into(), json_lines(&hundred)),
        ("array.json".into(), json_array(&hundred)),
        ("ipc.arrow".into(), arrow_file(&hundred)),
        ("rows.avro".into(), avro(&hundred)),
        ("years.csv".into(), "year,label\n2023,old\n2024,new\n".into()),
    ]);
    under("pushdown", objects)
}

/// What cannot be read, one table for each reason.
async fn errors() -> Objects {
    let rows = products();
    let whole = parquet(&rows);
    let mut objects = texts(&[
        ("fine.csv", "id\n1\n"),
        ("empty.csv", ""),
        ("only_markers/_SUCCESS", ""),
        ("only_markers/part-0.csv", ""),
        ("only_hidden/_draft.csv", "id\n1\n"),
        ("unknown/data.xyz", "what is this\n"),
        ("notes.txt", "what is this\n"),
        ("csv_named_parquet.parquet", "id,name\n1,Apfel\n2,Birne\n"),
        ("tiny.parquet", "PAR1"),
        ("long_footer.parquet", "????????????PAR1"),
        ("encrypted.parquet", "PARE????????PARE"),
        ("csv_named_arrow.arrow", "id,name\n1,Apfel\n"),
        ("csv_named_avro.avro", "id,name\n1,Apfel\n"),
        ("csv_named_json.json", "id,name\n1,Apfel\n"),
        ("plain_gzip.csv.gz", "id,name\n1,Apfel\n"),
        ("bom.json", "\u{feff}{\"id\":1}\n"),
        ("broken.json", "{\"id\":1}\n{\"id\":\n"),
        ("ragged.csv", "id,name\n1,Apfel\n2\n3,Kirsche,rot\n"),
        ("scalar.json", "1\n2\n"),
        ("mixed/part-0.csv", "id\n1\n"),
        ("mixed_gz/part-0.csv", "id\n1\n"),
        ("delta/_delta_log/00000000000000000000.json", "{\"protocol\":{}}\n"),
        ("hudi/.hoodie/hoodie.properties", "hoodie.table.name=x\n"),
        ("iceberg/metadata/v1.metadata.json", "{\"format-version\":2}\n"),
        ("lance/_versions/1.manifest", "manifest"),
        ("acid/base_0000002/bucket_00000", "ORC"),
        ("json_types/part-0.json", "{\"id\":1}\n"),
        ("json_types/part-1.json", "{\"id\":\"x\"}\n"),
        ("namespace/a/part-0.csv", "id\n1\n"),
        ("namespace/b/part-0.csv", "id\n1\n"),
        ("subfolder/part-0.csv", "id\n1\n"),
        ("subfolder/old/part-0.csv", "id\n1\n"),
        ("late_text.csv", &late_text()),
    ]);
    let mut damaged = whole.to_vec();
    // Within the first column's pages.
    damaged[4..40].fill(0xff);
    let gzipped = compressed(&delimited(&rows, ","), CompressionTypeVariant::GZIP).await;
    let text_id: ArrayRef = Arc::new(StringArray::from(vec!["one"]));
    let data = ["delta/part-0.parquet", "hudi/part-0.parquet", "iceberg/data/part-0.parquet", "mixed/part-1.parquet"];
    objects.extend(data.map(|key| (key.to_owned(), whole.clone())));
    objects.extend([
        ("truncated.parquet".into(), whole.slice(..whole.len() / 2)),
        ("damaged.parquet".into(), damaged.into()),
        ("parquet_named.csv".into(), whole.clone()),
        ("avro_named.json".into(), avro(&rows)),
        ("gzip_named.csv".into(), gzipped.clone()),
        ("cut_gzip.csv.gz".into(), gzipped.slice(..gzipped.len() / 2)),
        ("cut_arrow.arrow".into(), arrow_file(&rows).slice(..100)),
        ("cut_avro.avro".into(), avro(&rows).slice(..20)),
        ("mixed_gz/part-1.csv.gz".into(), gzipped),
        ("one_bad/part-0.parquet".into(), whole.clone()),
        ("one_bad/part-1.parquet".into(), whole.slice(..whole.len() - 10)),
        ("large_and_float/part-0.parquet".into(), parquet(&one("id", Arc::new(Int64Array::from(vec![(1 << 53) + 1]))))),
        ("large_and_float/part-1.parquet".into(), parquet(&one("id", Arc::new(Float64Array::from(vec![0.5]))))),
        ("contradiction/year=2024/part-0.parquet".into(), in_files(1, 1999, &["1"])),
        ("contradiction_range/month=04/part-0.parquet".into(), in_files(1, 2024, &["1", "3"])),
        ("types/part-0.parquet".into(), whole),
        ("types/part-1.parquet".into(), parquet(&one("id", text_id))),
    ]);
    under("errors", objects)
}

/// Files of one table with other columns, order or types.
fn schemas() -> Objects {
    let rows = products();
    let mut objects = texts(&[
        ("headers/part-0.csv", "id,name\n1,Apfel\n"),
        ("headers/part-1.csv", "name,id\nBirne,2\n"),
        ("headers/part-2.csv", "extra,name\n7,\"Kirsche,\nrot\"\n"),
        ("json_kinds/part-0.json", "{\"id\":1}\n"),
        ("json_kinds/part-1.json", "[{\"id\":2,\"name\":\"x\"}]\n"),
        ("case/part-0.csv", "id\n1\n"),
        ("case/part-1.csv", "ID\n2\n"),
    ]);
    let int32 = |values: &[i32]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
    let int64 = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let point = |fields: Vec<(&str, ArrayRef)>| {
        let fields = fields
            .into_iter()
            .map(|(name, values)| (Arc::new(Field::new(name, values.data_type().clone(), false)), values));
        Arc::new(StructArray::from(fields.collect::<Vec<_>>())) as ArrayRef
    };
    let decimals = |value: i128, precision, scale| {
        let values = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale);
        Arc::new(values.unwrap()) as ArrayRef
    };
    let narrow: [(&str, ArrayRef); 9] = [
        ("id", int32(&[1])),
        ("small", Arc::new(UInt8Array::from(vec![200]))),
        ("ratio", Arc::new(Float32Array::from(vec![0.5]))),
        ("price", decimals(150, 5, 2)),
        ("day", Arc::new(Date32Array::from(vec![19_782]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![1_709_208_000_001]).with_timezone("UTC"))),
        ("name", Arc::new(StringArray::from(vec!["Apfel"]))),
        ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]))),
        ("point", point(vec![("x", int32(&[3]))])),
    ];
    let wide: [(&str, ArrayRef); 9] = [
        ("point", point(vec![("y", Arc::new(StringArray::from(vec!["hoch"]))), ("x", int64(&[4_000_000_000]))])),
        ("tags", Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(4_000_000_000), None])]))),
        ("name", Arc::new(DictionaryArray::<Int8Type>::from_iter(["Birne"]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_709_208_000_000_002]).with_timezone("+02:00"))),
        ("day", Arc::new(TimestampSecondArray::from(vec![1_709_208_000]))),
        ("price", decimals(12_345_678, 10, 4)),
        ("ratio", int64(&[1 << 53])),
        ("small", Arc::new(Int8Array::from(vec![-100]))),
        ("id", int64(&[4_000_000_000])),
    ];
    let partly: [(&str, ArrayRef); 2] = [("ratio", Arc::new(Float64Array::from(vec![0.1]))), ("id", int64(&[7]))];
    for (format, encode) in [("parquet", parquet as fn(&RecordBatch) -> Bytes), ("arrow", arrow_file)] {
        for (index, columns) in [&narrow[..], &wide, &partly].into_iter().enumerate() {
            let batch = RecordBatch::try_from_iter(columns.iter().cloned()).unwrap();
            objects.push((format!("widened_{format}/part-{index}.{format}"), encode(&batch)));
        }
    }
    objects.push(("widened_avro/part-0.avro".into(), avro(&one("id", int32(&[1])))));
    objects.push(("widened_avro/part-1.avro".into(), avro(&one("id", int64(&[4_000_000_000])))));
    objects.push(("swapped_arrow/part-0.arrow".into(), arrow_file(&rows)));
    objects.push(("swapped_arrow/part-1.arrow".into(), arrow_file(&reversed(&rows))));
    under("schemas", objects)
}

/// A file with an id, and columns that may be those of its folders, too.
fn in_files(id: i64, year: i32, months: &[&str]) -> Bytes {
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from(vec![id; months.len()]))),
        ("year", Arc::new(Int32Array::from(vec![year; months.len()]))),
        ("month", Arc::new(months.iter().map(|month| month.parse::<i16>().ok()).collect::<Int16Array>())),
        ("name", Arc::new(StringArray::from(vec!["x"; months.len()]))),
    ];
    parquet(&RecordBatch::try_from_iter(columns).unwrap())
}

/// A batch of one column.
fn one(name: &str, values: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([(name, values)]).unwrap()
}

/// The rows of most fixtures: text that CSV must quote, and a NULL.
fn products() -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
    ]);
    // 2024-02-28 and the two days after.
    let days = Date32Array::from(vec![19781, 19782, 19783]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec!["Apfel", "Birne, \"gelb\"", "Çilek"])),
        Arc::new(Float64Array::from(vec![Some(0.5), None, Some(2.25)])),
        Arc::new(days),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// A number in each of the lines that inference looks at, a text after them.
fn late_text() -> String {
    let numbers = (0..1500).map(|number| format!("{number}\n"));
    std::iter::once("id\n".to_owned()).chain(numbers).chain(["text\n".to_owned()]).collect()
}

fn delimited(rows: &RecordBatch, delimiter: &str) -> Bytes {
    let mut file = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new().with_delimiter(delimiter.as_bytes()[0]).build(&mut file);
    writer.write(rows).unwrap();
    drop(writer);
    file.into()
}

fn json_lines(rows: &RecordBatch) -> Bytes {
    let mut file = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut file);
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    file.into()
}

fn json_array(rows: &RecordBatch) -> Bytes {
    let mut file = Vec::new();
    let mut writer = arrow::json::ArrayWriter::new(&mut file);
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    file.into()
}

/// The same columns in the other order.
fn reversed(rows: &RecordBatch) -> RecordBatch {
    let order: Vec<usize> = (0..rows.num_columns()).rev().collect();
    rows.project(&order).unwrap()
}

fn arrow_file(rows: &RecordBatch) -> Bytes {
    let mut file = Vec::new();
    let mut writer = FileWriter::try_new(&mut file, &rows.schema()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    drop(writer);
    file.into()
}

fn avro(rows: &RecordBatch) -> Bytes {
    let mut writer = AvroWriter::new(Vec::new(), rows.schema().as_ref().clone()).unwrap();
    writer.write(rows).unwrap();
    writer.finish().unwrap();
    writer.into_inner().into()
}

fn row_groups(rows: &RecordBatch, group: usize) -> Bytes {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
    file.into()
}

pub(crate) async fn compressed(bytes: &Bytes, compression: CompressionTypeVariant) -> Bytes {
    let plain = stream::iter([Ok(bytes.clone())]).boxed();
    let compressing = FileCompressionType::from(compression).convert_to_compress_stream(plain).unwrap();
    let chunks: Vec<Bytes> = compressing.try_collect().await.unwrap();
    chunks.concat().into()
}

fn texts(objects: &[(&str, &str)]) -> Objects {
    objects.iter().map(|(key, text)| ((*key).to_owned(), Bytes::from((*text).to_owned()))).collect()
}

fn under(folder: &str, objects: Objects) -> Objects {
    objects.into_iter().map(|(key, bytes)| (format!("{folder}/{key}"), bytes)).collect()
}
