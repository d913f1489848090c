//! [`StoreTemplate`]: settings and environment as object_store's client of S3, which a bucket's name completes.

use std::fmt;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};

use super::transport::Transport;
use crate::error::{Error, Result};
use crate::settings::{ConnectorSettings, Secret, check_endpoint};

/// What every bucket's store of a connector has in common.
#[derive(Clone)]
pub(super) struct StoreTemplate(AmazonS3Builder);

impl StoreTemplate {
    /// Reads the environment where the settings allow it; the settings win.
    pub(super) fn try_new<I: Iterator<Item = (String, String)>>(
        settings: &ConnectorSettings,
        environment: impl Fn() -> I,
    ) -> Result<Self> {
        let mut builder = AmazonS3Builder::new();
        if settings.environment {
            // A key of the settings must not meet a token of the environment, nor an endpoint the other variable's.
            let own_credentials = settings.anonymous || settings.access_key_id.is_some();
            for (name, value) in environment().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()) {
                let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
                let is_credential = matches!(
                    key,
                    AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token
                );
                let is_endpoint = matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint);
                let is_skipped = (own_credentials && is_credential)
                    || (settings.endpoint.is_some() && is_endpoint)
                    || matches!(key, AmazonS3ConfigKey::Bucket);
                if !is_skipped {
                    builder = builder.with_config(key, value);
                }
            }
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(id) = &settings.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &settings.secret_access_key {
            builder = builder.with_secret_access_key(Secret::expose(secret));
        }
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(Secret::expose(token));
        }
        if settings.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if settings.allow_http {
            builder = builder.with_allow_http(true);
        }
        if settings.virtual_host {
            builder = builder.with_virtual_hosted_style_request(true);
        }
        let template = Self(builder);
        for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
            if let Some(endpoint) = template.0.get_config_value(&key) {
                check_endpoint(&endpoint, template.allows_http())?;
            }
        }
        Ok(template)
    }

    fn allows_http(&self) -> bool {
        let key = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
        self.0.get_config_value(&key).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// `s3-` and a hash of what decides which bytes a bucket's name stands for and who asks for them. No secret enters
    /// it, and it is the same on every machine, since a plan that is sent elsewhere names its stores by it.
    pub(super) fn fingerprint(&self) -> String {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut hash = OFFSET;
        for key in [
            AmazonS3ConfigKey::Endpoint,
            AmazonS3ConfigKey::S3Endpoint,
            AmazonS3ConfigKey::Region,
            AmazonS3ConfigKey::AccessKeyId,
            AmazonS3ConfigKey::RoleArn,
            AmazonS3ConfigKey::SkipSignature,
            AmazonS3ConfigKey::VirtualHostedStyleRequest,
        ] {
            let value = self.0.get_config_value(&key).unwrap_or_default();
            for byte in value.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        }
        format!("s3-{hash:016x}")
    }

    /// The client of one bucket.
    pub(super) fn build(&self, bucket: &str, transport: Transport) -> Result<AmazonS3> {
        let mut builder = self.0.clone().with_bucket_name(bucket).with_http_connector(transport);
        if bucket.contains('.') {
            // A wildcard certificate covers one label only: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
            builder = builder.with_virtual_hosted_style_request(false);
        }
        builder.build().map_err(|source| Error::Store {
            operation: "connect to",
            location: format!("s3://{bucket}/"),
            source,
        })
    }
}

impl fmt::Debug for StoreTemplate {
    /// The Debug of [`AmazonS3Builder`] prints secret and token; this prints neither.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTemplate").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}
