//! The connector as a catalog inside a pipeline: read three tables from S3, join them, write Parquet back to S3, and
//! read what was written.
//!
//! `cargo run --example pipeline`

mod shop;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::functions::expr_fn::round;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::prelude::{JoinType, SessionContext, col, lit};
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::Testbed;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let testbed = Testbed::builder().bucket(shop::BUCKET).start().await?;
    shop::write(&testbed).await?;

    // First-level folders are schemas: lake.shop.articles, lake.shop.transactions.
    let s3 = S3Connector::builder()
        .with_name("lake")
        .with_root(format!("s3://{}", shop::BUCKET))
        .with_endpoint(testbed.endpoint())
        .with_access_key(testbed.access_key_id(), testbed.secret_access_key())
        .with_allow_http(true)
        .build()?;
    let ctx = SessionContext::new();
    s3.register_catalog(&ctx, s3.name()).await?;

    let articles = ctx.table("lake.shop.articles").await?;
    let customers = ctx.table("lake.shop.customers").await?;
    let sales = ctx
        .table("lake.shop.transactions")
        .await?
        .filter(col("year").eq(lit(2025)))?
        .join(
            articles.select(vec![col("id").alias("article_id"), col("category"), col("price")])?,
            JoinType::Inner,
            &["article"],
            &["article_id"],
            None,
        )?
        .join(
            customers.select(vec![col("id").alias("customer_id"), col("city")])?,
            JoinType::Inner,
            &["customer"],
            &["customer_id"],
            None,
        )?
        .aggregate(vec![col("city"), col("category")], vec![sum(col("quantity") * col("price")).alias("revenue")])?
        .select(vec![col("city"), col("category"), round(vec![col("revenue"), lit(2)]).alias("revenue")])?;

    // The session may write to the root's bucket, with the connector's credentials.
    s3.register_object_store(&ctx)?;
    let target = format!("s3://{}/reports/revenue/", shop::BUCKET);
    sales.write_parquet(&target, DataFrameWriteOptions::new(), None).await?;

    s3.refresh().await?;
    println!("{target} holds:");
    let revenue = ctx.table("lake.reports.revenue").await?;
    revenue.sort(vec![col("city").sort(true, false), col("category").sort(true, false)])?.show().await?;
    println!("{}", s3.request_counts());
    Ok(())
}
