//! Plans are DataFusion's own: serialised and read again, they give the same rows without our reader of Parquet files.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::ipc::writer::FileWriter;
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use datafusion::arrow_avro::writer::AvroWriter;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::bytes::{physical_plan_from_bytes, physical_plan_to_bytes};
use datafusion_s3::{CsvSettings, TableSettings};
use datafusion_s3_testbed::Testbed;

use crate::harness::{batch, connector, parquet};

fn arrow(batch: &RecordBatch) -> Bytes {
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap().into()
}

fn avro(batch: &RecordBatch) -> Bytes {
    let mut writer = AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().into()
}

/// Tables of the ids 0 to 99, in all formats.
async fn load(testbed: &Testbed) {
    let put = async |key: &str, body: Bytes| testbed.put("testbed", &format!("shop/{key}"), body).await.unwrap();
    for part in 0..10_i64 {
        put(&format!("parts/decade={part}/a.parquet"), parquet(&batch(part * 10, 10))).await;
    }
    for part in 0..100_i64 {
        put(&format!("many/{part:03}.parquet"), parquet(&batch(part, 1))).await;
    }
    let text = |start: &str, line: fn(i64) -> String| {
        Bytes::from(std::iter::once(start.to_owned()).chain((0..100).map(line)).collect::<String>())
    };
    put("comma.csv", text("id,name\n", |id| format!("{id},n{id}\n"))).await;
    put("tab.tsv", text("id\tname\n", |id| format!("{id}\tn{id}\n"))).await;
    put("lines.json", text("", |id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}\n"))).await;
    // Files with other columns, which are read by sources of their own, and text as settings declare it.
    put("headers/a.csv", text("id,name\n", |id| format!("{id},n{id}\n"))).await;
    put("headers/b.csv", text("more,name,id\n", |id| format!("{},n{id},{}\n", id % 3, id + 100))).await;
    put(
        "dialect.csv",
        text("#by a job\nid;name;more\n", |id| {
            format!("{id};'n;{id}';{}\n", if id % 10 == 0 { "NA".to_owned() } else { id.to_string() })
        }),
    )
    .await;
    put("columns.arrow", arrow(&batch(0, 100))).await;
    put("rows.avro", avro(&batch(0, 100))).await;
}

/// The rows of a plan in a session, in any order.
async fn rows(plan: Arc<dyn ExecutionPlan>, session: &SessionContext) -> Vec<String> {
    let batches = collect(plan, session.task_ctx()).await.unwrap();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = table.lines().map(|line| line.replace(' ', "")).collect();
    lines.sort();
    lines
}

/// Asserts that all leaves are stock, and returns their number.
fn stock_leaves(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut leaves = 0;
    plan.apply(|node| {
        if node.children().is_empty() {
            let source = node.downcast_ref::<DataSourceExec>().expect("a leaf is a DataSourceExec");
            assert!(source.data_source().downcast_ref::<FileScanConfig>().is_some(), "over a FileScanConfig");
            leaves += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    leaves
}

#[tokio::test]
async fn a_serialised_plan_gives_the_same_rows_without_our_reader() {
    let testbed = Testbed::start().await.unwrap();
    load(&testbed).await;
    let config = SessionConfig::new().with_target_partitions(4);
    let ctx = SessionContext::new_with_config(config.clone());
    let dialect = CsvSettings::default().with_delimiter(b';').with_quote(b'\'').with_comment(b'#').with_null("NA");
    let s3 = connector(&testbed)
        .with_root("s3://testbed/shop")
        .with_table("dialect", TableSettings::default().with_csv(dialect))
        .build()
        .unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    s3.register_object_store(&ctx).unwrap();
    let copy = "COPY (SELECT * FROM s3.comma) TO 's3://testbed/shop/packed.csv.gz' STORED AS CSV \
                OPTIONS ('format.compression' 'gzip', 'format.has_header' 'true')";
    ctx.sql(copy).await.unwrap().collect().await.unwrap();
    s3.refresh().await.unwrap();
    // Another process: it knows the settings, and nothing else.
    let twin = connector(&testbed).build().unwrap();
    let runtime =
        RuntimeEnvBuilder::new().with_object_store_registry(twin.object_store_registry()).build_arc().unwrap();
    let worker = SessionContext::new_with_config_rt(config, runtime);

    let tables = ["parts", "many", "comma", "tab", "packed", "lines", "columns", "rows"];
    let mut queries: Vec<(String, usize)> = vec![
        ("SELECT decade, sum(id) FROM s3.parts WHERE decade IN (2, 3) AND id % 2 = 0 GROUP BY decade".into(), 1),
        ("SELECT p.id, c.name FROM s3.parts p JOIN s3.comma c ON p.id = c.id WHERE c.id BETWEEN 30 AND 40".into(), 2),
        ("SELECT id, name, more FROM s3.headers".into(), 2),
        ("SELECT more, count(*), sum(id) FROM s3.headers GROUP BY more".into(), 2),
        ("SELECT name FROM s3.headers WHERE id BETWEEN 98 AND 103".into(), 2),
        ("SELECT * FROM s3.dialect".into(), 1),
        ("SELECT id FROM s3.dialect WHERE more IS NULL OR more = 5".into(), 1),
        ("SELECT _file, sum(id) FROM s3.headers$metadata GROUP BY _file".into(), 2),
    ];
    for table in tables {
        queries.push((format!("SELECT id, name FROM s3.{table}"), 1));
        queries.push((format!("SELECT name FROM s3.{table} WHERE id > 90 AND name <> 'n95'"), 1));
        queries.push((format!("SELECT name, id FROM s3.{table} ORDER BY id DESC LIMIT 3"), 1));
        queries.push((format!("SELECT count(id), min(name), sum(id) FROM s3.{table} WHERE id < 50"), 1));
        queries.push((format!("SELECT id FROM s3.{table} LIMIT 7"), 1));
    }
    let mut requests = 0;
    for (sql, leaves) in queries {
        let plan = ctx.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        assert_eq!(stock_leaves(&plan), leaves, "{sql}");
        let bytes = physical_plan_to_bytes(Arc::clone(&plan)).unwrap();
        let read = physical_plan_from_bytes(&bytes, &worker.task_ctx()).unwrap();
        let expected = rows(plan, &ctx).await;
        assert!(expected.len() > 4, "{sql}: {expected:?}");
        testbed.reset_log();
        assert_eq!(rows(read, &worker).await, expected, "{sql}");
        requests += testbed.counts().get;
    }
    assert!(requests > 100, "{requests}: read anew, not from what this process keeps");
}

/// What a plan loses on its way must not become other rows.
#[tokio::test]
async fn a_serialised_plan_of_an_array_is_right_or_an_error() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/array.json", "[{\"id\":1},{\"id\":2}]").await.unwrap();
    let ctx = SessionContext::new();
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    let plan = ctx.sql("SELECT id FROM s3.array").await.unwrap().create_physical_plan().await.unwrap();
    let bytes = physical_plan_to_bytes(plan).unwrap();
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(s3.object_store_registry()).build_arc().unwrap();
    let worker = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    let read = physical_plan_from_bytes(&bytes, &worker.task_ctx()).unwrap();
    let message = collect(read, worker.task_ctx()).await.expect_err("arrays are lines to it").to_string();
    assert!(message.to_lowercase().contains("json"), "{message}");
}
