use datafusion_s3_testbed::Testbed;

use crate::harness::{batch, parquet, registered, rows};

#[tokio::test]
async fn a_root_answers_sql() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/articles.parquet", parquet(&batch(1, 3))).await.unwrap();
    testbed.put("testbed", "shop/customers.csv", "id,city\n1,Bern\n2,Ulm\n").await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    println!("{}", testbed.counts());
    assert_eq!(s3.table_names().await.unwrap(), ["articles", "customers"]);
    assert_eq!(rows(&ctx, "SELECT * FROM s3.articles ORDER BY id LIMIT 10").await, ["1|n1", "2|n2", "3|n3"]);
    println!("{}", testbed.counts());
    assert_eq!(
        rows(&ctx, "SELECT name, city FROM s3.articles JOIN s3.customers USING (id) ORDER BY id").await,
        ["n1|Bern", "n2|Ulm"]
    );
    println!("{}", testbed.counts());
}
