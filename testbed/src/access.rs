//! Who may ask for what: identities, signatures and buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::{CopyObjectInput, CopySource};
use s3s::host::{S3Host, VirtualHost};
use s3s::{S3Request, S3Result, s3_error};

/// Someone who signs requests.
#[derive(Clone)]
pub struct Identity {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    buckets: Option<BTreeSet<String>>,
}

impl Identity {
    /// An identity with long-term keys that may use every bucket.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
            buckets: None,
        }
    }

    /// Makes the keys temporary: requests carry `token` as `x-amz-security-token`.
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(token.into());
        self
    }

    /// Denies every bucket but these.
    #[must_use]
    pub fn only_buckets<I>(mut self, buckets: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.buckets = Some(buckets.into_iter().map(Into::into).collect());
        self
    }

    /// The access key id.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The secret access key.
    #[must_use]
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }
}

impl fmt::Debug for Identity {
    /// Leaves the secrets out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("access_key_id", &self.access_key_id)
            .field("buckets", &self.buckets)
            .finish_non_exhaustive()
    }
}

/// Whom a bucket answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Identities.
    #[default]
    Identities,
    /// Identities, and anyone who reads.
    Public,
    /// No one.
    Nobody,
}

/// The rules of a server.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) region: String,
    pub(crate) identities: Vec<Identity>,
    pub(crate) buckets: BTreeMap<String, Audience>,
}

impl Policy {
    /// Whether there is a bucket of that name, accessible or not.
    pub(crate) fn exists(&self, bucket: &str) -> bool {
        self.buckets.contains_key(bucket)
    }

    fn identity(&self, access_key_id: &str) -> Option<&Identity> {
        let same = |identity: &&Identity| identity.access_key_id == access_key_id;
        self.identities.iter().find(same)
    }

    /// Whether whoever signed with `access_key_id`, or no one, may use `bucket`.
    fn allows(&self, access_key_id: Option<&str>, bucket: &str, reading: bool) -> bool {
        // A bucket that does not exist has no owner to deny it: S3 answers
        // `NoSuchBucket`, and so does the backend.
        let Some(audience) = self.buckets.get(bucket) else {
            return true;
        };
        if *audience == Audience::Nobody {
            return false;
        }
        match access_key_id {
            None => *audience == Audience::Public && reading,
            Some(id) => self.identity(id).is_some_and(|identity| {
                let only = identity.buckets.as_ref();
                only.is_none_or(|buckets| buckets.contains(bucket))
            }),
        }
    }

    /// Checks what a valid signature does not say: its region and session token.
    fn check_signed(&self, cx: &S3AccessContext<'_>, access_key_id: &str) -> S3Result<()> {
        let header = |name: &str| cx.headers().get(name)?.to_str().ok();
        let scope = header("authorization").and_then(|value| value.split_once("Credential=")?.1.split('/').nth(2));
        if let Some(region) = scope
            && region != self.region
        {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
                region,
                self.region
            ));
        }
        let expected = self.identity(access_key_id).and_then(|identity| identity.session_token.as_deref());
        match (expected, header("x-amz-security-token")) {
            (None, None) => Ok(()),
            (Some(expected), Some(found)) if expected == found => Ok(()),
            // Without the token, temporary keys are no keys that S3 knows.
            (Some(_), None) => Err(unknown_key()),
            _ => Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid.")),
        }
    }
}

fn unknown_key() -> s3s::S3Error {
    s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
}

/// [`Policy`] in the shapes that `s3s` asks for.
#[derive(Debug, Clone)]
pub(crate) struct Gate(pub(crate) Arc<Policy>);

#[async_trait::async_trait]
impl S3Auth for Gate {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.identity(access_key) {
            Some(identity) => Ok(SecretKey::from(identity.secret_access_key.as_str())),
            None => Err(unknown_key()),
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let access_key_id = cx.credentials().map(|found| found.access_key.as_str());
        if let Some(id) = access_key_id {
            self.0.check_signed(cx, id)?;
        }
        let reading =
            matches!(cx.s3_op().name(), "GetObject" | "HeadObject" | "HeadBucket" | "ListObjects" | "ListObjectsV2");
        let allowed = match cx.s3_path().get_bucket_name() {
            Some(bucket) => self.0.allows(access_key_id, bucket, reading),
            None => access_key_id.is_some(),
        };
        if allowed { Ok(()) } else { Err(denied()) }
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        let id = request.credentials.as_ref().map(|found| found.access_key.as_str());
        match &request.input.copy_source {
            CopySource::Bucket { bucket, .. } if !self.0.allows(id, bucket, true) => Err(denied()),
            _ => Ok(()),
        }
    }
}

fn denied() -> s3s::S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

/// Virtual-hosted-style addresses: the host `<bucket>.localhost`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalHosts;

impl S3Host for LocalHosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match bucket_of_host(host) {
            Some(bucket) => VirtualHost::new("localhost").with_bucket(bucket),
            None => VirtualHost::new(host),
        })
    }
}

/// The bucket that the host of a virtual-hosted-style address names.
pub(crate) fn bucket_of_host(host: &str) -> Option<&str> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix(".localhost")
}
