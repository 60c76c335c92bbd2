//! AWS for outputs and the agent: who we are, and where the services are.
//!
//! Enters: region, endpoint, profile, role. Leaves: an `SdkConfig` with our HTTP client and credentials of AWS's chain
//! (environment, profile, web identity, container endpoint, IMDS), in the name of a role if one is set. They are asked
//! for once, kept until shortly before they expire, and forgotten when a service does not take them. Can go wrong: there
//! are none; the error says what was tried.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_runtime_api::client::identity::SharedIdentityCache;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;

use super::HttpClient;

/// Credentials are renewed so long before they expire.
const EARLY: Duration = Duration::from_secs(60);
/// The credentials of a refused call are not asked for again sooner than this after the last time.
const FORGET: Duration = Duration::from_secs(5);
/// Renewal that fails while the old ones still hold is tried again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Who and where, as configured.
#[derive(Clone, Debug, Default)]
pub struct AwsOptions {
    /// `region`
    pub region: String,
    /// Address of the service, `https://host[:port]`; `None`: the region's.
    pub endpoint: Option<String>,
    /// `profile` of the shared configuration files.
    pub profile: Option<String>,
    /// `role_arn`: the role to take on, and what STS needs for it.
    pub role_arn: Option<String>,
    /// `external_id`
    pub external_id: Option<String>,
    /// `sts_endpoint`
    pub sts_endpoint: Option<String>,
    /// `credentials_endpoint`: an address that answers as the container endpoint of ECS does.
    pub credentials_endpoint: Option<String>,
}

/// An account at work.
#[derive(Clone, Debug)]
pub struct Aws {
    /// For the clients of services.
    pub config: SdkConfig,
    /// What they sign with.
    pub credentials: Arc<KeptCredentials>,
}

/// Prepares calls. Reads the shared configuration files; asks for no credentials yet.
pub async fn aws(options: &AwsOptions, http: HttpClient) -> Aws {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .region(Region::new(options.region.clone()))
        .retry_config(RetryConfig::disabled());
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    let config = loader.load().await;
    let mut source = config.credentials_provider();
    if let Some(address) = &options.credentials_endpoint {
        let provider = Endpoint { address: address.clone(), http };
        source = Some(SharedCredentialsProvider::new(provider));
    }
    if let Some(role) = &options.role_arn {
        let mut base = config.to_builder();
        base.set_endpoint_url(options.sts_endpoint.clone());
        base.set_credentials_provider(source.clone());
        let mut provider =
            AssumeRoleProvider::builder(role).session_name("firelane").configure(&base.build());
        if let Some(id) = &options.external_id {
            provider = provider.external_id(id);
        }
        source = Some(SharedCredentialsProvider::new(provider.build().await));
    }
    let credentials =
        Arc::new(KeptCredentials { source, state: Mutex::default(), asking: tokio::sync::Mutex::new(()) });
    let mut builder = config.into_builder();
    builder.set_endpoint_url(options.endpoint.clone());
    builder.set_credentials_provider(Some(SharedCredentialsProvider::new(Handle(Arc::clone(&credentials)))));
    builder.set_identity_cache(Some(no_cache()));
    Aws { config: builder.build(), credentials }
}

/// What takes on a role in the name of `of`, anew each time it is asked. `session`: what CloudTrail calls it; `sts`: the
/// service's address, `None`: the region's.
pub async fn assume_role(
    of: &Aws,
    role: &str,
    session: &str,
    sts: Option<String>,
) -> SharedCredentialsProvider {
    let mut base = of.config.to_builder();
    base.set_endpoint_url(sts);
    let provider = AssumeRoleProvider::builder(role).session_name(session).configure(&base.build());
    SharedCredentialsProvider::new(provider.build().await)
}

/// The libraries keep nothing: [`KeptCredentials`] does, and can forget.
fn no_cache() -> SharedIdentityCache {
    aws_config::identity::IdentityCache::no_cache()
}

/// Credentials that are kept, renewed in time, and forgotten on demand.
#[derive(Debug)]
pub struct KeptCredentials {
    source: Option<SharedCredentialsProvider>,
    state: Mutex<Kept>,
    /// Whoever asks holds it, so that many calls at once ask once.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    now: Option<Credentials>,
    asked: Option<SystemTime>,
    forget: bool,
}

impl KeptCredentials {
    fn state(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A service did not take them: the next call asks anew, though not more often than every few seconds.
    pub fn forget(&self) {
        self.state().forget = true;
    }

    /// Those to use now, if nobody needs to be asked.
    fn fresh(&self) -> Option<Credentials> {
        let kept = self.state();
        let now = SystemTime::now();
        let passed = |wait: Duration| {
            kept.asked.is_none_or(|t| now.duration_since(t).unwrap_or(Duration::MAX) >= wait)
        };
        let current = kept.now.clone()?;
        let left = current.expiry().map(|at| at.duration_since(now).unwrap_or_default());
        let due = kept.forget && passed(FORGET)
            || left.is_some_and(|left| left < EARLY) && (left == Some(Duration::ZERO) || passed(AGAIN));
        (!due).then_some(current)
    }

    /// The credentials to use now.
    ///
    /// # Errors
    /// What was tried to get some.
    pub async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Some(current) = self.fresh() {
            return Ok(current);
        }
        let _asking = self.asking.lock().await;
        if let Some(current) = self.fresh() {
            return Ok(current);
        }
        let Some(source) = &self.source else {
            return Err(CredentialsError::not_loaded("no source of credentials"));
        };
        let asked = source.provide_credentials().await;
        let mut kept = self.state();
        kept.asked = Some(SystemTime::now());
        match asked {
            Ok(new) => {
                kept.forget = false;
                kept.now = Some(new.clone());
                Ok(new)
            }
            Err(e) => {
                // The old ones may hold a little longer.
                let usable = kept.now.clone().filter(|c| c.expiry().is_none_or(|at| at > SystemTime::now()));
                match usable {
                    Some(old) if !kept.forget => {
                        tracing::warn!(cause = %super::causes(&e), "cannot renew AWS credentials; the old ones still hold");
                        Ok(old)
                    }
                    _ => Err(e),
                }
            }
        }
    }
}

/// What the libraries hold.
#[derive(Debug)]
struct Handle(Arc<KeptCredentials>);

impl ProvideCredentials for Handle {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.0.get())
    }
}

/// `credentials_endpoint`: answers as the container endpoint of ECS does.
#[derive(Debug)]
struct Endpoint {
    address: String,
    http: HttpClient,
}

impl Endpoint {
    async fn ask(&self) -> Result<Credentials, CredentialsError> {
        let bad = |what: String| CredentialsError::provider_error(format!("{}: {what}", self.address));
        let mut request = http::Request::get(self.address.as_str());
        if let Ok(token) = std::env::var("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        let request = request.body(SdkBody::empty()).map_err(|e| bad(e.to_string()))?;
        let answer = self.http.send(request).await.map_err(|e| bad(e.to_string()))?;
        if !answer.status().is_success() {
            return Err(bad(format!("answered {}", answer.status())));
        }
        let json: serde_json::Value =
            serde_json::from_slice(answer.body()).map_err(|e| bad(format!("answer is no JSON: {e}")))?;
        let text = |key: &str| json.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let (Some(id), Some(secret)) = (text("AccessKeyId"), text("SecretAccessKey")) else {
            return Err(bad("answer has no AccessKeyId and SecretAccessKey".to_owned()));
        };
        let expires = text("Expiration")
            .map(|at| at.parse::<jiff::Timestamp>().map_err(|e| bad(format!("Expiration: {e}"))))
            .transpose()?
            .map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_second().unsigned_abs()));
        Ok(Credentials::new(id, secret, text("Token"), expires, "credentials_endpoint"))
    }
}

impl ProvideCredentials for Endpoint {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.ask())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Gives credentials that hold for a while, a new one each time it is asked.
    #[derive(Debug, Default)]
    struct Counting {
        asked: Arc<AtomicU32>,
        holds: Option<Duration>,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let n = self.asked.fetch_add(1, Relaxed);
            let expires = self.holds.map(|h| SystemTime::now() + h);
            future::ProvideCredentials::ready(Ok(Credentials::new(
                format!("key{n}"),
                "s",
                None,
                expires,
                "test",
            )))
        }
    }

    fn kept(holds: Option<Duration>) -> (KeptCredentials, Arc<AtomicU32>) {
        let source = Counting { holds, ..Counting::default() };
        let asked = Arc::clone(&source.asked);
        let source = Some(SharedCredentialsProvider::new(source));
        (KeptCredentials { source, state: Mutex::default(), asking: tokio::sync::Mutex::new(()) }, asked)
    }

    #[tokio::test]
    async fn credentials_are_asked_for_once_and_kept() {
        let (kept, asked) = kept(Some(Duration::from_secs(3600)));
        for _ in 0..3 {
            assert_eq!(kept.get().await.unwrap().access_key_id(), "key0");
        }
        assert_eq!(asked.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn what_has_expired_is_asked_for_again_each_time() {
        let (kept, _) = kept(Some(Duration::ZERO));
        kept.get().await.unwrap();
        assert_eq!(kept.get().await.unwrap().access_key_id(), "key1");
    }

    #[tokio::test]
    async fn what_expires_soon_is_renewed_but_not_at_every_call() {
        let (kept, asked) = kept(Some(EARLY / 2));
        kept.get().await.unwrap();
        kept.get().await.unwrap();
        assert_eq!(asked.load(Relaxed), 1);
        kept.state().asked = Some(SystemTime::now() - AGAIN);
        kept.get().await.unwrap();
        assert_eq!(asked.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn what_a_service_refused_is_forgotten_though_not_more_often_than_every_few_seconds() {
        let (kept, asked) = kept(None);
        kept.get().await.unwrap();
        kept.forget();
        kept.get().await.unwrap();
        assert_eq!(asked.load(Relaxed), 1);
        kept.state().asked = Some(SystemTime::now() - FORGET);
        assert_eq!(kept.get().await.unwrap().access_key_id(), "key1");
    }
}
