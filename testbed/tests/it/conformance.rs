//! What `object_store` asks of every store, asked of the testbed through its S3 client.

use datafusion_s3_testbed::Testbed;
use object_store::aws::{AmazonS3, S3ConditionalPut, S3CopyIfNotExists};
use object_store::integration;

use crate::client;

async fn store() -> (Testbed, AmazonS3) {
    let testbed = Testbed::start().await.unwrap();
    let store = client::builder(&testbed, "testbed")
        .with_access_key_id(testbed.access_key_id())
        .with_secret_access_key(testbed.secret_access_key())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_copy_if_not_exists(S3CopyIfNotExists::Header("if-none-match".into(), "*".into()))
        .build()
        .unwrap();
    (testbed, store)
}

#[tokio::test]
async fn put_get_delete_list() {
    let (_testbed, store) = store().await;
    integration::put_get_delete_list(&store).await;
}

#[tokio::test]
async fn put_get_attributes() {
    let (_testbed, store) = store().await;
    integration::put_get_attributes(&store).await;
}

#[tokio::test]
async fn get_opts() {
    let (_testbed, store) = store().await;
    integration::get_opts(&store).await;
}

#[tokio::test]
async fn put_opts() {
    let (_testbed, store) = store().await;
    integration::put_opts(&store, true).await;
}

#[tokio::test]
async fn listing() {
    let (_testbed, store) = store().await;
    integration::list_uses_directories_correctly(&store).await;
    integration::list_with_delimiter(&store).await;
    integration::list_with_offset_exclusivity(&store).await;
    integration::list_paginated(&store, &store).await;
}

#[tokio::test]
async fn copies() {
    let (_testbed, store) = store().await;
    integration::rename_and_copy(&store).await;
    integration::copy_rename_nonexistent_object(&store).await;
    integration::copy_if_not_exists(&store).await;
}

#[tokio::test]
async fn multipart() {
    let (_testbed, store) = store().await;
    integration::stream_get(&store).await;
    integration::multipart(&store, &store).await;
    integration::multipart_race_condition(&store, true).await;
    integration::multipart_out_of_order(&store).await;
}
