//! What a task needs of AWS before it starts: secrets, environment files, the router's configuration in S3.
//!
//! ```text
//! definition -> wanted -> arn -> services -> api (signed calls) -> Fetched -> planning
//! ```
//!
//! Enters: a definition, and what whoever runs it gives by hand (`--secret`), which is not asked for. Leaves: values,
//! each fetched once. Can go wrong: `ResourceInitializationError`, in ECS's words, for all that failed at once: which
//! container wants what, from where, and what can stand in for it. A secret's value is in no message.

mod api;
mod arn;
mod endpoints;
mod env_file;
mod services;
mod shown;
#[cfg(test)]
mod tests;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::TaskDefinition;
use super::endpoints::role_arn;
use super::plan::Registry;
use super::planning::Choices;
use super::runtime::Failure;
use api::{Api, Refusal, together};
use arn::{Object, Secret};
pub use endpoints::{Endpoints, Service};
use services::NAMES_MAX;
use wanted::{Asked, File, Wanted, Wish};

const ERROR: &str = "ResourceInitializationError";
/// How ECS begins what it says of secrets, of environment files, and of the router's configuration.
const SECRETS: &str = "unable to pull secrets or registry auth";
const FILES: &str = "failed to download env files";
pub(super) const EXTERNAL: &str = "unable to download firelens s3 config file";
/// How it goes on.
const RETRIEVAL: &str = "execution resource retrieval failed";
/// So many of those that want one secret are named.
const NAMED: usize = 3;

/// How AWS is asked.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where the services are.
    pub endpoints: Endpoints,
    /// In the name of the task's execution role, as ECS does it; else with the agent's own rights.
    pub assume_execution_role: bool,
}

/// What AWS has given. Values do not show in what `Debug` prints.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Fetched {
    /// Secrets by `valueFrom`.
    pub(super) secrets: BTreeMap<String, String>,
    /// Variables of environment files, by container.
    pub(super) environment: BTreeMap<String, BTreeMap<String, String>>,
    /// Who may pull the image of a container.
    pub(super) registry: BTreeMap<String, Registry>,
    /// The router's own configuration.
    pub(super) external: Option<String>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.secrets.keys().collect();
        f.debug_struct("Fetched").field("secrets", &names).finish_non_exhaustive()
    }
}

/// Asks for everything that `definition` needs and `choices` does not give. Takes at most 30 s; calls nobody where nothing
/// is needed.
///
/// # Errors
/// `ResourceInitializationError`
pub async fn fetch(
    definition: &TaskDefinition,
    choices: &Choices,
    settings: &Settings,
) -> Result<Fetched, Failure> {
    let wanted = Wanted::of(definition, choices);
    let mut fetched = Fetched { registry: by_hand(definition, choices)?, ..Fetched::default() };
    if wanted.is_empty() {
        return Ok(fetched);
    }
    let failed = |cause: String| Failure::new(ERROR, format!("{}: {cause}", wanted.class()));
    let role = match (&definition.execution_role_arn, settings.assume_execution_role) {
        (_, false) => None,
        (Some(role), true) => Some(role_arn(role, &choices.account, &choices.region)),
        (None, true) => {
            let cause = "--assume-execution-role needs executionRoleArn in the task definition";
            return Err(failed(cause.to_owned()));
        }
    };
    let api = Api::new(&choices.region, role, settings.endpoints.clone()).await.map_err(|cause| {
        failed(format!(
            "unable to find execution role credentials: {cause}; give the agent some (AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ...), or give secrets with --secret NAME=VALUE"
        ))
    })?;
    everything(&api, &wanted, &choices.region, &mut fetched).await?;
    Ok(fetched)
}

/// Credentials of registries that `--secret` gives.
fn by_hand(definition: &TaskDefinition, choices: &Choices) -> Result<BTreeMap<String, Registry>, Failure> {
    let mut found = BTreeMap::new();
    for container in &definition.container_definitions {
        let id = container.repository_credentials.as_ref();
        if let Some((id, text)) = id.and_then(|id| Some((id, choices.secrets.get(id)?))) {
            let bad = |why| Failure::new(ERROR, format!("{SECRETS}: --secret {id}: {why}"));
            found.insert(container.name.clone(), login(text).map_err(bad)?);
        }
    }
    Ok(found)
}

/// Makes all calls at once. What fails is said together.
async fn everything(api: &Api, wanted: &Wanted, region: &str, fetched: &mut Fetched) -> Result<(), Failure> {
    let (managed, parameters, logins, objects) = tokio::join!(
        Box::pin(managed(api, wanted)),
        Box::pin(parameters(api, wanted)),
        Box::pin(logins(api, wanted)),
        Box::pin(objects(api, wanted, region)),
    );
    let (mut secrets, mut files, mut external) = (Vec::new(), Vec::new(), Vec::new());
    secrets.extend(wanted.bad.iter().map(|(why, wish)| format!("{RETRIEVAL}: {why}{}", whose([wish]))));
    for found in managed.into_iter().chain(parameters).flatten() {
        match found {
            Ok((value_from, value)) => drop(fetched.secrets.insert(value_from, value)),
            Err(why) => secrets.push(format!("{RETRIEVAL}: {why}")),
        }
    }
    for (name, login) in logins {
        match login {
            Ok(login) => drop(fetched.registry.insert(name.to_owned(), login)),
            Err(why) => {
                secrets.push(format!(
                    "{RETRIEVAL}: unable to get registry auth from asm: {why} (for container {name})"
                ));
            }
        }
    }
    let get = |file: &File| -> Result<Bytes, String> {
        let object = file.object.as_ref().map_err(Clone::clone)?;
        match objects.get(object) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(e)) => Err(e.to_string()),
            None => Err("it was not asked for".to_owned()),
        }
    };
    for (name, list) in &wanted.files {
        let mut read = Vec::new();
        for file in list {
            match get(file).and_then(|bytes| env_file::read(&bytes)) {
                Ok(variables) => read.push(variables),
                Err(why) => {
                    files.push(format!("{}, error: {why} (for container {name})", unable("env file", file)))
                }
            }
        }
        fetched.environment.insert(name.clone(), env_file::merge(read));
    }
    if let Some(file) = &wanted.external {
        let text = |bytes: Bytes| {
            String::from_utf8(bytes.to_vec()).map_err(|_| "the configuration is not UTF-8".to_owned())
        };
        match get(file).and_then(text) {
            Ok(text) => fetched.external = Some(text),
            Err(why) => external.push(format!("{}: {why}", unable("s3 config", file))),
        }
    }
    let all = [(SECRETS, secrets), (FILES, files), (EXTERNAL, external)];
    let told: Vec<_> = all
        .iter()
        .filter(|(_, p)| !p.is_empty())
        .map(|(what, p)| format!("{what}: {}", p.join("; ")))
        .collect();
    if told.is_empty() { Ok(()) } else { Err(Failure::new(ERROR, told.join("; "))) }
}

/// The ECS agent's words.
fn unable(what: &str, file: &File) -> String {
    match &file.object {
        Ok(Object { bucket, key }) if what == "env file" => {
            format!("unable to download env file with key {key} from bucket {bucket}")
        }
        Ok(Object { bucket, key }) => format!("unable to download {what} {key} from bucket {bucket}"),
        Err(_) => format!("unable to parse bucket and key from s3 ARN {}", file.arn),
    }
}

/// Who wants it, and what stands in for it.
fn whose<'a>(wishes: impl IntoIterator<Item = &'a Wish>) -> String {
    let wishes: Vec<_> = wishes.into_iter().collect();
    let mut names: Vec<_> =
        wishes.iter().take(NAMED).map(|w| format!("for {} as {}", w.whose, w.name)).collect();
    if wishes.len() > NAMED {
        names.push(format!("and {} more", wishes.len() - NAMED));
    }
    let first = wishes.first().map(|w| w.name.as_str()).unwrap_or_default();
    format!(" ({}; --secret {first}=VALUE stands in for it)", names.join(", "))
}

/// `valueFrom` and the value, or what ECS says.
type Found = Result<(String, String), String>;

/// Secrets of Secrets Manager: each asked for once, however many of its keys are wanted.
async fn managed(api: &Api, wanted: &Wanted) -> Vec<Vec<Found>> {
    let calls = wanted.secrets.iter().map(|(of, wishes)| async move {
        let answer = services::secret(api, of).await;
        let refused = |attempts: u32, why: &str, wishes: &[&Wish]| {
            let whose = whose(wishes.iter().copied());
            format!("unable to retrieve secret from asm: service call has been retried {attempts} time(s): {why}{whose}")
        };
        match answer {
            Ok(text) => {
                let json: Option<Value> = serde_json::from_str(&text).ok();
                let value = |(key, wish): &(Option<String>, Wish)| {
                    let value = of_key(&text, json.as_ref(), key.as_deref());
                    let value = value.map_err(|why| refused(1, &format!("{}: {why}", of.id), &[wish]))?;
                    Ok((wish.value_from.clone(), value))
                };
                wishes.iter().map(value).collect()
            }
            Err(e) => {
                let all: Vec<_> = wishes.iter().map(|(_, wish)| wish).collect();
                vec![Err(refused(e.attempts, &unknown(&of.id, &e), &all))]
            }
        }
    });
    together(calls).await
}

/// The whole of a secret, or what stands at a key of its JSON.
fn of_key(text: &str, json: Option<&Value>, key: Option<&str>) -> Result<String, String> {
    let Some(key) = key else { return Ok(text.to_owned()) };
    let Some(Value::Object(map)) = json else {
        return Err(format!("the secret is no JSON object, and json key {key} is wanted of it"));
    };
    let value = map.get(key);
    value
        .map(shown::shown)
        .ok_or_else(|| format!("retrieved secret from Secrets Manager did not contain json key {key}"))
}

/// What the ECS agent makes of a refusal of Secrets Manager.
fn unknown(id: &str, e: &Refusal) -> String {
    if e.name == "ResourceNotFoundException" {
        return format!(
            "ResourceNotFoundException: The task can't retrieve the secret with ARN '{id}' from AWS Secrets Manager. \
             Check whether the secret exists in the specified Region: {}",
            e.said
        );
    }
    format!("secret {id}: {e}")
}

/// Parameters of SSM, ten in a call.
async fn parameters(api: &Api, wanted: &Wanted) -> Vec<Vec<Found>> {
    let mut regions: BTreeMap<&str, Vec<(&String, &Vec<Asked>)>> = BTreeMap::new();
    for ((region, name), wishes) in &wanted.parameters {
        regions.entry(region).or_default().push((name, wishes));
    }
    let batches =
        regions.iter().flat_map(|(region, all)| all.chunks(NAMES_MAX).map(|batch| (*region, batch)));
    let calls = batches.map(|(region, batch)| async move {
        let names: Vec<String> = batch.iter().map(|(name, _)| (*name).clone()).collect();
        let refused = |attempts: u32, why: &str| {
            format!(
                "unable to retrieve secrets from ssm: service call has been retried {attempts} time(s): fetching \
                 secret data from SSM Parameter Store in {region}: {why}"
            )
        };
        let found = match services::parameters(api, region, &names).await {
            Ok(found) => found,
            Err(e) => {
                let all = batch.iter().flat_map(|(_, wishes)| wishes.iter().map(|(_, wish)| wish));
                return vec![Err(refused(e.attempts, &e.to_string()) + &whose(all))];
            }
        };
        // Of another account, or with a slash before a name without a path: only the ARN leads there.
        let arn = |name: &str, wishes: &[Asked]| {
            let arn = wishes.iter().find_map(|(arn, _)| arn.clone());
            arn.filter(|_| !found.contains_key(name))
        };
        let again: Vec<String> = batch.iter().filter_map(|(name, wishes)| arn(name, wishes)).collect();
        let more = match again.is_empty() {
            true => BTreeMap::new(),
            false => services::parameters(api, region, &again).await.unwrap_or_default(),
        };
        let mut results = Vec::new();
        for (name, wishes) in batch {
            let value = found.get(*name).or_else(|| more.get(&arn(name, wishes)?));
            match value {
                Some(value) => {
                    results.extend(wishes.iter().map(|(_, w)| Ok((w.value_from.clone(), value.clone()))));
                }
                None => {
                    let whose = whose(wishes.iter().map(|(_, wish)| wish));
                    results.push(Err(refused(1, &format!("invalid parameters: {name}")) + &whose));
                }
            }
        }
        results
    });
    together(calls).await
}

/// Who may pull images, by container.
async fn logins<'w>(api: &Api, wanted: &'w Wanted) -> Vec<(&'w str, Result<Registry, String>)> {
    let distinct: BTreeSet<_> = wanted.registry.iter().map(|(_, secret)| secret).collect();
    let calls = distinct.into_iter().map(|of| async move {
        let answer = services::secret(api, of).await;
        let retried = |n: u32| format!("service call has been retried {n} time(s)");
        let login = answer
            .map_err(|e| {
                format!("{}: asm fetching secret from the service for {}: {e}", retried(e.attempts), of.id)
            })
            .and_then(|text| login(&text).map_err(|why| format!("{}: {}: {why}", retried(1), of.id)));
        (of, login)
    });
    let known: BTreeMap<_, _> = together(calls).await.into_iter().collect();
    let of = |(name, secret): &'w (String, Secret)| Some((name.as_str(), known.get(secret)?.clone()));
    wanted.registry.iter().filter_map(of).collect()
}

/// Reads the JSON of a registry's secret. As in Go, letters of the fields may be small or large.
fn login(text: &str) -> Result<Registry, String> {
    let Ok(Value::Object(map)) = serde_json::from_str(text) else {
        return Err(
            "asm fetching authorization data: unable to unmarshal secret value, invalid schema; it is \
                    {\"username\": \"...\", \"password\": \"...\"}"
                .to_owned(),
        );
    };
    let field = |field: &str| {
        let found = map.iter().find(|(name, _)| name.eq_ignore_ascii_case(field));
        let text = found.and_then(|(_, value)| value.as_str()).filter(|text| !text.is_empty());
        let bad = || format!("asm fetching {field}: AuthorizationData is malformed, empty field");
        text.map(str::to_owned).ok_or_else(bad)
    };
    Ok(Registry { username: field("username")?, password: field("password")? })
}

/// Files in S3, each asked for once.
async fn objects<'w>(
    api: &Api,
    wanted: &'w Wanted,
    region: &str,
) -> BTreeMap<&'w Object, Result<Bytes, Refusal>> {
    let calls =
        wanted.objects().into_iter().map(|of| async move { (of, services::object(api, region, of).await) });
    together(calls).await.into_iter().collect()
}
