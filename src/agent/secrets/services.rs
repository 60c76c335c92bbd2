//! The three calls: GetSecretValue, GetParameters, GetObject.
//!
//! Enters: what to get. Leaves: values. Can go wrong: what the services refuse, in the ECS agent's words and theirs; a
//! value is in no message.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::api::{Api, Call, Refusal};
use super::arn::{Object, Secret, is_region};
use super::endpoints::Service;
use crate::wire::sigv4::encoded;

/// GetParameters takes so many names.
pub(super) const NAMES_MAX: usize = 10;

/// A secret's text.
///
/// # Errors
/// What ECS says of it, without what it says of all secrets.
pub(super) async fn secret(api: &Api, of: &Secret) -> Result<String, Refusal> {
    let mut body = Map::new();
    body.insert("SecretId".to_owned(), of.id.clone().into());
    for (field, value) in [("VersionStage", &of.stage), ("VersionId", &of.version)] {
        body.extend(value.iter().map(|v| (field.to_owned(), v.clone().into())));
    }
    let answer =
        post(api, Service::SecretsManager, &of.region, "secretsmanager.GetSecretValue", body).await?;
    answer.get("SecretString").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| Refusal {
        said: "it has no SecretString; a binary secret cannot be an environment variable".to_owned(),
        attempts: 1,
        ..Refusal::default()
    })
}

/// Parameters, decrypted, by the names that were asked for. Those that SSM does not know are not among them.
pub(super) async fn parameters(
    api: &Api,
    region: &str,
    names: &[String],
) -> Result<BTreeMap<String, String>, Refusal> {
    let body = json!({ "Names": names, "WithDecryption": true });
    let body = body.as_object().cloned().unwrap_or_default();
    let answer = post(api, Service::Ssm, region, "AmazonSSM.GetParameters", body).await?;
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for parameter in answer.get("Parameters").and_then(Value::as_array).into_iter().flatten() {
        let value = text(parameter, "Value");
        // What was asked for by version, label or ARN is known by that.
        let selector = text(parameter, "Selector");
        for name in [text(parameter, "Name"), text(parameter, "ARN")] {
            found.insert(name + &selector, value.clone());
        }
    }
    found.retain(|name, _| names.contains(name));
    Ok(found)
}

/// A file.
pub(super) async fn object(api: &Api, region: &str, of: &Object) -> Result<Bytes, Refusal> {
    let key: Vec<_> = of.key.split('/').map(encoded).collect();
    let path = format!("/{}/{}", of.bucket, key.join("/"));
    let get = |region: String| {
        let path = &path;
        async move {
            let call = Call { service: Service::S3, region: &region, path, target: None, body: Bytes::new() };
            api.call(&call).await
        }
    };
    match get(region.to_owned()).await {
        // The bucket may be elsewhere; AWS says where.
        Err(Refusal { region: Some(other), .. })
            if other != region && is_region(&other) && api.endpoints.set(Service::S3).is_none() =>
        {
            get(other).await
        }
        answer => answer,
    }
}

async fn post(
    api: &Api,
    service: Service,
    region: &str,
    target: &str,
    body: Map<String, Value>,
) -> Result<Value, Refusal> {
    let body = Bytes::from(Value::Object(body).to_string());
    let answer = api.call(&Call { service, region, path: "/", target: Some(target), body }).await?;
    serde_json::from_slice(&answer).map_err(|_| Refusal {
        said: format!("the answer is not {}'s; is there a proxy on the way?", service.name()),
        attempts: 1,
        ..Refusal::default()
    })
}
