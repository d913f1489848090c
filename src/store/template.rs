//! [`StoreTemplate`]: settings and environment as object_store's client of S3, which a bucket's name completes.

use std::fmt;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use url::Url;

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
                    AmazonS3ConfigKey::AccessKeyId
                        | AmazonS3ConfigKey::SecretAccessKey
                        | AmazonS3ConfigKey::Token
                        | AmazonS3ConfigKey::SkipSignature
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

    /// Whether requests are signed.
    pub(super) fn signs(&self) -> bool {
        !self.is_set(AmazonS3ConfigKey::SkipSignature)
    }

    fn allows_http(&self) -> bool {
        self.is_set(AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp))
    }

    fn is_set(&self, key: AmazonS3ConfigKey) -> bool {
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
        } else if self.is_set(AmazonS3ConfigKey::VirtualHostedStyleRequest) {
            // `object_store` wants an endpoint that names the bucket already.
            for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
                if let Some(endpoint) = self.0.get_config_value(&key) {
                    builder = builder.with_config(key, virtual_host(&endpoint, bucket)?);
                }
            }
        }
        builder.build().map_err(|source| Error::Store {
            operation: "connect to",
            location: format!("s3://{bucket}/"),
            source: source.into(),
        })
    }
}

/// An endpoint with the bucket in front of its host, unless it is there.
fn virtual_host(endpoint: &str, bucket: &str) -> Result<String> {
    let invalid = || Error::InvalidSetting {
        setting: "virtual_host",
        reason: format!("{endpoint} has no host name that a bucket could stand before; unset virtual_host"),
    };
    let mut url = Url::parse(endpoint).map_err(|_| invalid())?;
    let host = url.domain().ok_or_else(invalid)?;
    if !host.starts_with(&format!("{bucket}.")) {
        let host = format!("{bucket}.{host}");
        url.set_host(Some(&host)).map_err(|_| invalid())?;
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl fmt::Debug for StoreTemplate {
    /// The Debug of [`AmazonS3Builder`] prints secret and token; this prints neither.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTemplate").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(settings: ConnectorSettings, environment: &[(&str, &str)]) -> Result<StoreTemplate> {
        let pairs: Vec<_> = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        StoreTemplate::try_new(&settings, || pairs.clone().into_iter())
    }

    fn value(template: &StoreTemplate, key: AmazonS3ConfigKey) -> Option<String> {
        template.0.get_config_value(&key)
    }

    #[test]
    fn the_environment_fills_in_what_is_not_set() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "env"),
            ("AWS_SECRET_ACCESS_KEY", "geheim"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL_S3", "https://env.example.com"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_SKIP_SIGNATURE", "true"),
            ("HOME", "/"),
        ];
        let from_environment = template(ConnectorSettings::default(), &environment).unwrap();
        assert_eq!(value(&from_environment, AmazonS3ConfigKey::Token).as_deref(), Some("token"));
        assert_eq!(value(&from_environment, AmazonS3ConfigKey::Region).as_deref(), Some("eu-west-1"));

        let settings = ConnectorSettings {
            access_key_id: Some("own".into()),
            secret_access_key: Some("own".into()),
            endpoint: Some("http://own.example.com".into()),
            ..ConnectorSettings::default()
        };
        let mixed = template(settings.clone(), &environment).unwrap();
        assert_eq!(value(&mixed, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("own"));
        assert_eq!(value(&mixed, AmazonS3ConfigKey::Token), None, "of other credentials");
        assert_eq!(value(&mixed, AmazonS3ConfigKey::S3Endpoint), None, "would win over the setting");
        assert!(mixed.signs());
        assert_ne!(mixed.fingerprint(), from_environment.fingerprint());

        let alone = ConnectorSettings { environment: false, ..settings };
        let error = template(alone, &environment).unwrap_err().to_string();
        assert!(error.contains("allow_http"), "{error}");
        let plain = [("AWS_ENDPOINT_URL", "http://env.example.com")];
        assert!(template(ConnectorSettings::default(), &plain).is_err());
    }

    #[test]
    fn a_bucket_stands_before_the_host() {
        for (endpoint, expected) in [
            ("https://minio.example.com:9000", "https://lake.minio.example.com:9000"),
            ("https://lake.minio.example.com", "https://lake.minio.example.com"),
        ] {
            assert_eq!(virtual_host(endpoint, "lake").unwrap(), expected);
        }
        let error = virtual_host("http://127.0.0.1:9000", "lake").unwrap_err().to_string();
        assert!(error.contains("virtual_host"), "{error}");
    }
}
