//! Starts an S3 server in this process, writes a small shop into it, and asks it questions in SQL.
//!
//! `cargo run --example quickstart`: nothing to install, nothing to configure.

mod shop;

use std::time::Instant;

use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::Testbed;

const QUERIES: [&str; 5] = [
    "SHOW TABLES",
    "SELECT * FROM s3.articles LIMIT 10",
    "SELECT c.name, a.category, sum(t.quantity) AS pieces, round(sum(t.quantity * a.price), 2) AS spent
FROM s3.transactions t JOIN s3.articles a ON a.id = t.article JOIN s3.customers c ON c.id = t.customer
GROUP BY c.name, a.category ORDER BY spent DESC LIMIT 5",
    "SELECT year, month, count(*) AS sales, sum(quantity) AS pieces
FROM s3.transactions WHERE year = 2025 AND month IN (3, 4) GROUP BY year, month ORDER BY month",
    "EXPLAIN SELECT year, month, count(*) AS sales, sum(quantity) AS pieces
FROM s3.transactions WHERE year = 2025 AND month IN (3, 4) GROUP BY year, month ORDER BY month",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real bucket needs none of this: credentials and region come from the environment.
    let testbed = Testbed::builder().bucket(shop::BUCKET).start().await?;
    shop::write(&testbed).await?;

    let s3 = S3Connector::builder()
        .with_root(format!("s3://{}/shop", shop::BUCKET))
        .with_endpoint(testbed.endpoint())
        .with_access_key(testbed.access_key_id(), testbed.secret_access_key())
        .with_allow_http(true)
        .build()?;
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    s3.register(&ctx, "s3").await?;
    println!("-- registered {}: {}\n", s3.root().map(ToString::to_string).unwrap_or_default(), s3.request_counts());

    for sql in QUERIES {
        let (before, start) = (s3.request_counts(), Instant::now());
        println!("{sql};");
        ctx.sql(sql).await?.show().await?;
        println!("-- {}; {} ms\n", s3.request_counts() - before, start.elapsed().as_millis());
    }
    Ok(())
}
