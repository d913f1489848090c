//! Who may see what: identities, roots, sessions, secrets, and versions of objects.

use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::{Identity, Testbed};

use crate::harness::{batch, connector, error, parquet, query, registered, rows, session};

const SECRET: &str = "geheim-secret-access-key";
const TOKEN: &str = "geheim-session-token";

#[tokio::test]
async fn each_connector_signs_with_its_own_key() {
    let testbed = Testbed::builder()
        .bucket("one")
        .bucket("two")
        .bucket("both")
        .identity(Identity::new("AKIAONE", "secret-one").only_buckets(["one", "both"]))
        .identity(Identity::new("AKIATWO", "secret-two").only_buckets(["two", "both"]))
        .start()
        .await
        .unwrap();
    for (bucket, factor) in [("one", 1), ("two", 2), ("both", 4)] {
        testbed.put(bucket, "shop/t.csv", format!("id,f\n1,{factor}\n")).await.unwrap();
        testbed.put(bucket, "shop/p.parquet", parquet(&batch(factor, 1))).await.unwrap();
    }
    let ctx = session();
    for (schema, key, secret, bucket) in [
        ("one", "AKIAONE", "secret-one", "one"),
        ("two", "AKIATWO", "secret-two", "two"),
        ("both1", "AKIAONE", "secret-one", "both"),
        ("both2", "AKIATWO", "secret-two", "both"),
    ] {
        testbed.reset_log();
        let builder = connector(&testbed).with_access_key(key, secret).with_root(format!("s3://{bucket}/shop"));
        builder.with_cache_bytes(0).build().unwrap().register(&ctx, schema).await.unwrap();
        for table in ["t", "p"] {
            rows(&ctx, &format!("SELECT * FROM {schema}.{table}")).await;
        }
        let log = testbed.log();
        assert!(log.len() >= 4);
        for record in log {
            assert_eq!(record.access_key_id.as_deref(), Some(key), "{record:?}");
            assert!(matches!(record.status, 200 | 206), "{record:?}");
        }
    }
    testbed.reset_log();
    let sql = "SELECT a.f + b.f + c.f + d.f, p.id, q.id FROM one.t a JOIN two.t b ON a.id = b.id JOIN both1.t c ON b.id = c.id \
               JOIN both2.t d ON c.id = d.id CROSS JOIN one.p p CROSS JOIN two.p q";
    assert_eq!(rows(&ctx, sql).await, ["11|1|2"]);
    for record in testbed.log() {
        let key = record.access_key_id.as_deref();
        assert!(record.bucket != "one" || key == Some("AKIAONE"), "{record:?}");
        assert!(record.bucket != "two" || key == Some("AKIATWO"), "{record:?}");
    }
    let foreign = connector(&testbed).with_access_key("AKIAONE", "secret-one").with_root("s3://two/").build().unwrap();
    let error = foreign.register(&ctx, "x").await.unwrap_err().to_string();
    for part in ["s3://two/", "access denied", "AccessDenied", "s3:ListBucket"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let identity = Identity::new("AKIATEMP", SECRET).with_session_token(TOKEN);
    let testbed = Testbed::builder().identity(identity).start().await.unwrap();
    testbed.put("testbed", "shop/t.csv", "id\n1\n").await.unwrap();
    testbed.put("testbed", "shop/p.parquet", parquet(&batch(1, 1))).await.unwrap();
    testbed.put("testbed", "shop/broken.parquet", "x").await.unwrap();
    let builder = connector(&testbed)
        .with_access_key("AKIATEMP", SECRET)
        .with_session_token(TOKEN)
        .with_root("s3://testbed/shop");
    let s3 = builder.clone().build().unwrap();
    let ctx = session();
    s3.register(&ctx, "s3").await.unwrap();
    let mut printed = vec![format!("{builder:?}"), format!("{s3:?}"), format!("{:?}", s3.object_store_registry())];
    for table in ["t", "p"] {
        let table = s3.table(table).await.unwrap();
        printed.push(format!("{table:?} {:?}", table.schema()));
    }
    printed.push(format!("{:?}", ctx.runtime_env()));
    for sql in [
        "EXPLAIN SELECT * FROM s3.t",
        "EXPLAIN VERBOSE SELECT * FROM s3.p",
        "EXPLAIN ANALYZE VERBOSE SELECT * FROM s3.p, s3.t",
        "SHOW ALL",
        "SELECT * FROM information_schema.tables",
    ] {
        printed.push(rows(&ctx, sql).await.join("\n"));
    }
    let plan = ctx.sql("SELECT * FROM s3.t").await.unwrap().create_physical_plan().await.unwrap();
    printed.push(format!("{plan:?}"));
    for name in ["broken", "none"] {
        let error = s3.table(name).await.unwrap_err();
        printed.push(format!("{error} {error:?}"));
    }
    for builder in [
        builder.clone().with_root("s3://missing/"),
        builder.clone().with_session_token("geheim-other"),
        builder.clone().with_access_key("AKIATEMP", "geheim-wrong"),
        builder.clone().with_endpoint("http://127.0.0.1:1/").with_root("ftp://x"),
        builder.clone().with_anonymous(true),
    ] {
        let error = match builder.build() {
            Ok(s3) => s3.table_names().await.unwrap_err(),
            Err(error) => error,
        };
        printed.push(format!("{error} {error:?}"));
    }
    assert_eq!(printed.len(), 19);
    for text in printed {
        assert!(!text.is_empty() && !text.contains("geheim"), "{text}");
    }
}

#[tokio::test]
async fn a_root_confines_without_a_request() {
    let testbed = Testbed::builder().bucket("testbed").bucket("other").start().await.unwrap();
    for key in ["data/t.csv", "data2/t.csv", "secret.csv"] {
        testbed.put("testbed", key, "id\n1\n").await.unwrap();
    }
    testbed.put("other", "data/t.csv", "id\n1\n").await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/data/").await;
    testbed.reset_log();
    for name in [
        "s3://other/data/t.csv",
        "s3a://other/data/t.csv",
        "s3://testbed/data2/t.csv",
        "s3://testbed/data2/",
        "s3://testbed/secret.csv",
        "s3://testbed/",
        "s3://testbed",
        "s3://testbed/data",
        "s3://testbed/data/../secret.csv",
        "s3://testbed/data/x/../../secret.csv",
        "s3://testbed/data/./t.csv",
        "s3://testbed/data/..",
        "s3://testbed//data/t.csv",
        "../secret",
        "../secret.csv",
        "../data2/t.csv",
        "data2/t.csv",
        "/secret.csv",
        "t.csv/../../secret.csv",
        "",
        "..",
        "/",
    ] {
        let error = error(&ctx, &format!("SELECT * FROM s3.\"{name}\"")).await;
        assert!(s3.table(name).await.is_err(), "{name}");
        assert!(error.contains(name), "{name}: {error}");
    }
    assert_eq!(testbed.counts().requests(), 0, "{:?}", testbed.log());
    assert_eq!(rows(&ctx, "SELECT id FROM s3.\"s3://testbed/data/t.csv\"").await, ["1"]);
}

#[tokio::test]
async fn registering_gives_a_session_no_store_of_the_whole_bucket() {
    let testbed = Testbed::start().await.unwrap();
    for key in ["lake/shop/t.csv", "lake/shop/c.parquet", "outside.csv"] {
        let body = if key.ends_with(".csv") { "id\n1\n".into() } else { parquet(&batch(1, 1)) };
        testbed.put("testbed", key, body).await.unwrap();
    }
    let outside = "CREATE EXTERNAL TABLE outside STORED AS CSV LOCATION 's3://testbed/outside.csv'";
    let (as_schema, as_catalog) = (session(), session());
    connector(&testbed).with_root("s3://testbed/lake/shop").build().unwrap().register(&as_schema, "s3").await.unwrap();
    let lake = connector(&testbed).with_root("s3://testbed/lake").build().unwrap();
    lake.register_catalog(&as_catalog, "lake").await.unwrap();
    for (ctx, tables) in [(&as_schema, ["s3.t", "s3.c"]), (&as_catalog, ["lake.shop.t", "lake.shop.c"])] {
        for table in tables {
            assert_eq!(rows(ctx, &format!("SELECT id FROM {table}")).await, ["1"], "{table}");
        }
        testbed.reset_log();
        let message = error(ctx, outside).await;
        assert!(message.contains("No suitable object store"), "{message}");
        assert_eq!(testbed.counts().requests(), 0);
    }
    lake.register_object_store(&as_catalog).unwrap();
    query(&as_catalog, outside).await.unwrap();
}

#[tokio::test]
async fn without_a_root_paths_are_names() {
    let testbed = Testbed::builder().bucket("testbed").denied_bucket("denied").start().await.unwrap();
    for (key, body) in [
        ("f.csv", "id\n1\n"),
        ("dir/a.csv", "id\n2\n"),
        ("dir/b.csv", "id\n3\n"),
        ("spark.csv/part-0.csv", "id\n4\n"),
        ("bare", "{\"id\":5}\n"),
        ("deep/x/a.csv", "id\n6\n"),
        ("a b+c=d%2Fé#?.csv", "id\n7\n"),
    ] {
        testbed.put("testbed", key, body).await.unwrap();
    }
    let s3 = connector(&testbed).build().unwrap();
    let ctx = session();
    s3.register(&ctx, "s3").await.unwrap();
    assert_eq!(testbed.counts().requests(), 0);
    assert!(s3.table_names().await.unwrap().is_empty());
    for (path, expected) in [
        ("f.csv", &["1"][..]),
        ("dir/", &["2", "3"]),
        ("dir", &["2", "3"]),
        ("spark.csv", &["4"]),
        ("spark.csv/", &["4"]),
        ("bare", &["5"]),
        ("deep/x", &["6"]),
        ("a b+c=d%2Fé#?.csv", &["7"]),
    ] {
        let sql = format!("SELECT id FROM s3.\"s3://testbed/{path}\" ORDER BY id");
        assert_eq!(rows(&ctx, &sql).await, expected, "{path}");
    }
    for (location, parts) in [
        ("s3://testbed/none.csv", &["s3://testbed/none.csv", "nothing lies there", "check the spelling"][..]),
        ("s3://testbed/none/", &["s3://testbed/none/", "nothing lies there", "check the spelling"]),
        ("s3://testbed/none", &["s3://testbed/none", "nothing lies there", "check the spelling"]),
        ("s3://testbed/deep/", &["s3://testbed/deep/x/", "folder of folders"]),
        ("s3://missing/f.csv", &["s3://missing/f.csv", "NoSuchBucket", "check its spelling"]),
        ("s3://missing/dir/", &["s3://missing/dir/", "NoSuchBucket", "check its spelling"]),
        ("s3://denied/f.csv", &["s3://denied/f.csv", "AccessDenied", "this identity needs"]),
        ("s3://denied/", &["s3://denied/", "AccessDenied", "this identity needs"]),
        ("f.csv", &["f.csv", "full path"]),
    ] {
        let error = error(&ctx, &format!("SELECT * FROM s3.\"{location}\"")).await;
        for part in parts {
            assert!(error.contains(part), "{location}: {error} lacks {part}");
        }
    }
}

#[tokio::test]
async fn equal_keys_in_two_buckets_never_mix() {
    let testbed = Testbed::builder().bucket("one").bucket("two").start().await.unwrap();
    for key in ["t.parquet", "t.csv"] {
        for (bucket, first) in [("one", 10), ("two", 50)] {
            let body = if key == "t.csv" { format!("id\n{first}\n").into() } else { parquet(&batch(first, 2)) };
            testbed.put(bucket, key, body).await.unwrap();
        }
        assert_eq!(testbed.get("one", key).await.unwrap().len(), testbed.get("two", key).await.unwrap().len());
    }
    let ctx = session();
    connector(&testbed).build().unwrap().register(&ctx, "s3").await.unwrap();
    for _ in 0..2 {
        for (bucket, first) in [("one", "10"), ("two", "50")] {
            for key in ["t.parquet", "t.csv"] {
                let sql = format!("SELECT min(id) FROM s3.\"s3://{bucket}/{key}\"");
                assert_eq!(rows(&ctx, &sql).await, [first], "{bucket} {key}");
                let sql = format!("SELECT id FROM s3.\"s3://{bucket}/{key}\" ORDER BY id LIMIT 1");
                assert_eq!(rows(&ctx, &sql).await, [first], "{bucket} {key}");
            }
        }
    }
}

#[tokio::test]
async fn a_plan_runs_in_a_session_that_did_not_plan_it() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/p.parquet", parquet(&batch(1, 2))).await.unwrap();
    testbed.put("testbed", "shop/c.csv", "id\n1\n2\n").await.unwrap();
    let (ctx, s3) = uncached(&testbed, "s3://testbed/shop").await;
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(s3.object_store_registry()).build_arc().unwrap();
    let worker = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    // A connector with the same settings, as a worker in another process has.
    let twin = connector(&testbed).build().unwrap();
    let runtime =
        RuntimeEnvBuilder::new().with_object_store_registry(twin.object_store_registry()).build_arc().unwrap();
    let stranger = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    for table in ["p", "c"] {
        for (other, is_pinned) in [(&worker, true), (&stranger, false)] {
            let frame = ctx.sql(&format!("SELECT id FROM s3.{table}")).await.unwrap();
            let plan = frame.create_physical_plan().await.unwrap();
            testbed.reset_log();
            let batches = collect(plan, other.task_ctx()).await.unwrap();
            assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2, "{table}");
            let log = testbed.log();
            assert!(!log.is_empty());
            assert!(!is_pinned || log.iter().all(|read| read.if_match.is_some()), "{table}: {log:?}");
        }
    }
    assert!(worker.runtime_env().object_store_registry.get_store(&"gs://x".parse().unwrap()).is_err());
}

/// As [`registered`], without memory: every read is a request.
async fn uncached(testbed: &Testbed, root: &str) -> (SessionContext, S3Connector) {
    let ctx = session();
    let s3 = connector(testbed).with_root(root).with_cache_bytes(0).build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    (ctx, s3)
}

/// Bodies of the same size, so that only the etag tells them apart.
const VERSIONS: [(&str, &str); 2] = [("a,b\n1,2\n", "b,a\n9,8\n"), ("{\"a\":1,\"b\":2}\n", "{\"b\":9,\"a\":8}\n")];

#[tokio::test]
async fn a_replaced_object_is_an_error_until_a_refresh() {
    let testbed = Testbed::start().await.unwrap();
    for (extension, (old, new)) in ["csv", "json"].into_iter().zip(VERSIONS) {
        assert_eq!(old.len(), new.len());
        let key = format!("shop/t.{extension}");
        testbed.put("testbed", &key, old).await.unwrap();
        let (ctx, s3) = uncached(&testbed, "s3://testbed/shop").await;
        assert_eq!(rows(&ctx, "SELECT a, b FROM s3.t").await, ["1|2"]);
        testbed.put("testbed", &key, new).await.unwrap();
        let error = error(&ctx, "SELECT a, b FROM s3.t").await;
        assert!(error.contains(&key) && error.contains("refresh the connector"), "{error}");
        s3.refresh().await.unwrap();
        assert_eq!(rows(&ctx, "SELECT a, b FROM s3.t").await, ["8|9"]);
        testbed.delete("testbed", &key).await;
        let error = crate::harness::error(&ctx, "SELECT a, b FROM s3.t").await;
        assert!(error.contains(&key) && error.contains("refresh the connector"), "{error}");
    }
}

#[tokio::test]
async fn a_replaced_parquet_object_is_an_error_until_a_refresh() {
    let testbed = Testbed::start().await.unwrap();
    let (old, new) = (parquet(&batch(10, 5)), parquet(&batch(50, 5)));
    assert_eq!(old.len(), new.len());
    for key in ["shop/t/a.parquet", "shop/t/b.parquet"] {
        testbed.put("testbed", key, old.clone()).await.unwrap();
    }
    let (ctx, s3) = uncached(&testbed, "s3://testbed/shop").await;
    let sql = "SELECT DISTINCT id / 10 FROM s3.t";
    assert_eq!(rows(&ctx, sql).await, ["1"]);
    testbed.put("testbed", "shop/t/b.parquet", new).await.unwrap();
    testbed.put("testbed", "shop/t/c.parquet", old).await.unwrap();
    let changed = error(&ctx, sql).await;
    assert!(changed.contains("s3://testbed/shop/t/b.parquet") && changed.contains("refresh"), "{changed}");
    s3.refresh().await.unwrap();
    assert_eq!(rows(&ctx, "SELECT id / 10, count(*) FROM s3.t GROUP BY 1 ORDER BY 1").await, ["1|10", "5|5"]);
    testbed.delete("testbed", "shop/t/a.parquet").await;
    let gone = error(&ctx, sql).await;
    assert!(gone.contains("s3://testbed/shop/t/a.parquet") && gone.contains("refresh"), "{gone}");
    s3.refresh().await.unwrap();
    assert_eq!(rows(&ctx, "SELECT count(id) FROM s3.t WHERE name <> ''").await, ["10"]);
    for key in ["shop/t/b.parquet", "shop/t/c.parquet"] {
        testbed.delete("testbed", key).await;
    }
    testbed.put("testbed", "shop/u.csv", "id\n1\n").await.unwrap();
    s3.refresh().await.unwrap();
    assert_eq!(s3.table_names().await.unwrap(), ["u"]);
    assert!(error(&ctx, sql).await.contains("\"t\" not found"));
}

#[tokio::test]
async fn a_plan_never_reads_a_later_version() {
    let testbed = Testbed::start().await.unwrap();
    for (extension, (old, new)) in ["csv", "json"].into_iter().zip(VERSIONS) {
        let key = format!("{extension}/t.{extension}");
        testbed.put("testbed", &key, old).await.unwrap();
        let (ctx, s3) = uncached(&testbed, &format!("s3://testbed/{extension}")).await;
        let sql = "SELECT a, b FROM s3.t";
        let early = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        testbed.put("testbed", &key, new).await.unwrap();
        s3.refresh().await.unwrap();
        let late = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let error = collect(early, ctx.task_ctx()).await.expect_err("planned for a version that is gone");
        assert!(error.to_string().contains(&key), "{error}");
        let batches = collect(late, ctx.task_ctx()).await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 1);
    }
}
