//! Credentials that are asked for once, kept, renewed, and refused.

use super::*;
use aws_credential_types::provider::future;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Gives credentials that hold for a while, counts how often, and fails as often as it is told to.
#[derive(Debug, Default)]
struct Fake {
    holds: Option<Duration>,
    asked: Arc<AtomicU32>,
    failures: u32,
    hopeless: bool,
}

impl ProvideCredentials for Fake {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let n = self.asked.fetch_add(1, Relaxed);
        future::ProvideCredentials::new(async move {
            tokio::task::yield_now().await;
            if self.hopeless {
                return Err(CredentialsError::invalid_configuration("AccessDenied: not you"));
            }
            if n < self.failures {
                return Err(CredentialsError::provider_error("nobody is there"));
            }
            let expires = self.holds.map(|holds| SystemTime::now() + holds);
            Ok(Credentials::new(format!("key{n}"), "secret", Some("token".to_owned()), expires, "test"))
        })
    }
}

fn role(fake: Fake) -> (Arc<Role>, Arc<AtomicU32>) {
    let asked = Arc::clone(&fake.asked);
    let roles = Roles::faked(SharedCredentialsProvider::new(fake));
    let plan = RolePlan {
        arn: "arn:aws:iam::1:role/web".to_owned(),
        credentials_id: "id".to_owned(),
        ..RolePlan::default()
    };
    (Role::new(&roles, &plan, "task", &Tasks::new()), asked)
}

#[tokio::test]
async fn credentials_have_the_keys_of_the_ecs_agent() {
    let (role, _) = role(Fake { holds: Some(Duration::from_secs(3600)), ..Fake::default() });
    let handed = serde_json::to_value(role.get().await.unwrap()).unwrap();
    let keys: Vec<_> = handed.as_object().unwrap().keys().cloned().collect();
    let mut want = ["RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"].map(str::to_owned);
    want.sort();
    let mut keys = keys;
    keys.sort();
    assert_eq!(keys, want);
    assert_eq!((&handed["RoleArn"], &handed["Token"]), (&"arn:aws:iam::1:role/web".into(), &"token".into()));
    let expires: jiff::Timestamp = handed["Expiration"].as_str().unwrap().parse().unwrap();
    assert!((3590..=3600).contains(&(expires.as_second() - jiff::Timestamp::now().as_second())));
}

#[tokio::test]
async fn many_at_once_ask_once_and_what_is_new_is_kept() {
    let (role, asked) = role(Fake { holds: Some(Duration::from_secs(3600)), ..Fake::default() });
    role.begin();
    let (a, b, c) = tokio::join!(role.get(), role.get(), role.get());
    assert!(a.is_ok() && a == b && b == c);
    role.get().await.unwrap();
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test]
async fn what_expires_within_the_time_of_sdks_is_renewed() {
    let (role, asked) = role(Fake { holds: Some(Duration::from_secs(3600)), ..Fake::default() });
    role.get().await.unwrap();
    let aged = |seconds| {
        let mut state = role.state();
        let kept = state.kept.as_mut().unwrap();
        let (since, expires) = (kept.since, kept.credentials.expiry().unwrap());
        kept.since = since - Duration::from_secs(seconds);
        *kept.credentials.expiry_mut() = Some(expires - Duration::from_secs(seconds));
    };
    aged(2300);
    role.get().await.unwrap();
    assert_eq!(asked.load(Relaxed), 1);
    aged(200);
    role.get().await.unwrap();
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stumbles_is_asked_again_and_one_that_refuses_is_not() {
    let (stumbles, asked) = role(Fake { failures: 2, ..Fake::default() });
    assert!(stumbles.get().await.is_ok());
    assert_eq!(asked.load(Relaxed), 3);
    let (refuses, asked) = role(Fake { hopeless: true, ..Fake::default() });
    for _ in 0..3 {
        let Err(Refused::Failed(why)) = refuses.get().await else { panic!() };
        assert!(why.contains("AccessDenied: not you"), "{why}");
    }
    assert_eq!(asked.load(Relaxed), 1);
    tokio::time::advance(AGAIN).await;
    assert!(refuses.get().await.is_err());
    assert_eq!(asked.load(Relaxed), 2);
}

#[test]
fn a_role_may_be_named_by_its_name() {
    assert_eq!(role_arn("web", "111122223333", "eu-west-1"), "arn:aws:iam::111122223333:role/web");
    assert_eq!(role_arn("web", "1", "cn-north-1"), "arn:aws-cn:iam::1:role/web");
    let arn = "arn:aws:iam::1:role/service/web";
    assert_eq!(role_arn(arn, "2", "eu-west-1"), arn);
}
