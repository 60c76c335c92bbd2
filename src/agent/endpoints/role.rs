//! The credentials of a task's role: taken on from STS in the agent's name, kept, renewed in time.
//!
//! Enters: a role. Leaves: credentials that hold long enough for the SDK that asks: SDKs begin to renew theirs fifteen
//! minutes before they expire, so what is handed out is newer than that. Can go wrong: STS refuses, or does not answer;
//! the old ones are handed out as long as they hold, then the error is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::agent::plan::RolePlan;
use crate::net::{self, Aws, AwsOptions, HttpClient, HttpOptions};
use crate::rt::Tasks;

/// Credentials that hold no longer than this are renewed, or at the last third of their time if that is later.
const EARLY: Duration = Duration::from_secs(20 * 60);
/// What does not say how long it holds is told to hold so long: SDKs want to know.
const UNSAID: Duration = Duration::from_secs(3600);
/// How long a request waits for them: the endpoint's answer must be written within five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// Attempts at one renewal; between them, first: then twice as long.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// After a renewal that failed there is none for so long.
const AGAIN: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(60);

/// What roles are taken on with, by region: the agent's own credentials. Nothing is asked for before a task has a role.
#[derive(Clone, Debug, Default)]
pub(super) struct Roles {
    agent: Arc<tokio::sync::Mutex<BTreeMap<String, Aws>>>,
    /// In place of AWS.
    #[cfg(test)]
    fake: Option<SharedCredentialsProvider>,
}

impl Roles {
    #[cfg(test)]
    pub(super) fn faked(fake: SharedCredentialsProvider) -> Roles {
        Roles { fake: Some(fake), ..Roles::default() }
    }

    async fn agent(&self, region: &str) -> Result<Aws, String> {
        let mut agent = self.agent.lock().await;
        if let Some(known) = agent.get(region) {
            return Ok(known.clone());
        }
        let options = HttpOptions::verified(CONNECT, ATTEMPT, Some(IDLE))?;
        let of = AwsOptions { region: region.to_owned(), ..AwsOptions::default() };
        let made = net::aws(&of, HttpClient::new(options)).await;
        agent.insert(region.to_owned(), made.clone());
        Ok(made)
    }

    /// What gives the role's credentials.
    async fn source(
        &self,
        role: &RolePlan,
        session: &str,
    ) -> Result<SharedCredentialsProvider, CredentialsError> {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            return Ok(fake.clone());
        }
        let agent = self.agent(&role.region).await.map_err(CredentialsError::provider_error)?;
        if !role.own {
            return Ok(net::assume_role(&agent, &role.arn, session, role.sts.clone()).await);
        }
        let own = agent.config.credentials_provider();
        own.ok_or_else(|| CredentialsError::not_loaded("the agent has no credentials of its own"))
    }
}

/// The ARN of a role that a definition names, also by its name alone.
pub fn role_arn(role: &str, account: &str, region: &str) -> String {
    if role.starts_with("arn:") {
        return role.to_owned();
    }
    let partition = match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    format!("arn:{partition}:iam::{account}:role/{}", role.trim_start_matches('/'))
}

/// What a container gets: these keys, in the ECS agent's spelling.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Handed {
    role_arn: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

/// Why it gets none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// There are none yet.
    NotYet,
    /// There will be none, for now.
    Failed(String),
}

/// A task's role at work.
#[derive(Debug)]
pub(super) struct Role {
    roles: Roles,
    plan: RolePlan,
    session: String,
    tasks: Tasks,
    state: Mutex<State>,
    /// Grows with every end of a renewal.
    turn: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<Kept>,
    asking: bool,
    failed: Option<(Instant, String)>,
}

#[derive(Clone, Debug)]
struct Kept {
    credentials: Credentials,
    since: SystemTime,
}

impl Kept {
    fn holds(&self, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|at| at > now)
    }

    fn is_new(&self, now: SystemTime) -> bool {
        let Some(expires) = self.credentials.expiry() else {
            return now.duration_since(self.since).unwrap_or_default() < UNSAID / 2;
        };
        let all = expires.duration_since(self.since).unwrap_or_default();
        expires.duration_since(now).unwrap_or_default() > EARLY.min(all / 3)
    }
}

enum Look {
    Have(Credentials),
    Failed(String),
    /// A renewal goes on.
    Wait,
    /// Nobody asks: somebody must.
    Ask,
}

impl Role {
    /// `task`: its id, the name of the session as CloudTrail shows it.
    pub(super) fn new(roles: &Roles, plan: &RolePlan, task: &str, tasks: &Tasks) -> Arc<Role> {
        Arc::new(Role {
            roles: roles.clone(),
            plan: plan.clone(),
            session: task.to_owned(),
            tasks: tasks.clone(),
            state: Mutex::default(),
            turn: watch::Sender::new(0),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.plan.credentials_id
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing can leave the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for them now; a failure is told to whoever runs the agent.
    pub(super) fn begin(self: &Arc<Self>) {
        self.state().asking = true;
        self.spawn(true);
    }

    /// The credentials to hand out now.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Handed, Refused> {
        let mut turn = self.turn.subscribe();
        match self.look() {
            Look::Have(credentials) => return Ok(self.handed(&credentials)),
            Look::Failed(why) => return Err(Refused::Failed(why)),
            Look::Wait => {}
            Look::Ask => self.spawn(false),
        }
        let waited = timeout(PATIENCE, turn.changed()).await;
        let state = self.state();
        if let Some(kept) = state.kept.as_ref().filter(|kept| kept.holds(SystemTime::now())) {
            return Ok(self.handed(&kept.credentials));
        }
        match (&state.failed, waited) {
            (Some((_, why)), Ok(_)) => Err(Refused::Failed(why.clone())),
            _ => Err(Refused::NotYet),
        }
    }

    fn look(&self) -> Look {
        let (mut state, now) = (self.state(), SystemTime::now());
        let holds = state.kept.clone().filter(|kept| kept.holds(now));
        if let Some(kept) = holds.as_ref().filter(|kept| kept.is_new(now)) {
            return Look::Have(kept.credentials.clone());
        }
        if let Some((at, why)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < AGAIN) {
            tracing::debug!(role = %self.plan.arn, since = ?at.elapsed(), cause = %why, "not asked for again yet");
            return holds.map_or_else(|| Look::Failed(why.clone()), |kept| Look::Have(kept.credentials));
        }
        if std::mem::replace(&mut state.asking, true) { Look::Wait } else { Look::Ask }
    }

    /// Asks in the background: a client that goes away takes nothing with it.
    fn spawn(self: &Arc<Self>, first: bool) {
        let role = Arc::clone(self);
        self.tasks.spawn("credentials of a task's role", async move {
            let since = SystemTime::now();
            let asked = role.ask().await;
            let mut state = role.state();
            state.asking = false;
            match asked {
                Ok(credentials) => {
                    state.kept = Some(Kept { credentials, since });
                    state.failed = None;
                }
                Err(why) => {
                    if first {
                        tracing::warn!(
                            "task role {}: {why}; the task's containers get no credentials: give the agent some that may \
                             take it on, or say --task-role own or none",
                            role.plan.arn
                        );
                    }
                    state.failed = Some((Instant::now(), why));
                }
            }
            drop(state);
            role.turn.send_modify(|turn| *turn += 1);
        });
    }

    async fn ask(&self) -> Result<Credentials, String> {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let once = async {
                let source = self.roles.source(&self.plan, &self.session).await?;
                source.provide_credentials().await
            };
            let (why, again) = match timeout(ATTEMPT, once).await {
                Ok(Ok(credentials)) => return Ok(credentials),
                Ok(Err(e)) => {
                    // Other kinds say that nothing would change: no credentials, not allowed, no such role.
                    let again = matches!(
                        e,
                        CredentialsError::ProviderError(_) | CredentialsError::ProviderTimedOut(_)
                    );
                    (net::causes(&e), again)
                }
                Err(_) => (format!("no answer within {} s", ATTEMPT.as_secs()), true),
            };
            if !again || attempt >= ATTEMPTS {
                return Err(why);
            }
            tokio::time::sleep(pause).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    fn handed(&self, credentials: &Credentials) -> Handed {
        let expires = credentials.expiry().unwrap_or_else(|| SystemTime::now() + UNSAID);
        let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Handed {
            role_arn: self.plan.arn.clone(),
            access_key_id: credentials.access_key_id().to_owned(),
            secret_access_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().unwrap_or_default().to_owned(),
            expiration: jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
