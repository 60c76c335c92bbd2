//! Tokens of the OAUTHBEARER mechanism: MSK's, signed with AWS credentials, and unsecured ones for tests and trusted
//! networks.
//!
//! Enters: a region and credentials, or `sasl.oauthbearer.config`. Leaves: tokens. Can go wrong: there are no credentials;
//! librdkafka hears it and asks again after a while.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use tokio::runtime::Handle;

use crate::net::{AwsOptions, HttpClient, HttpOptions, aws};
use crate::record::Time;
use crate::wire::msk_iam;

/// How long connecting to whoever gives credentials may take, and their answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// Makes MSK's tokens. librdkafka's threads ask for them, so a handle on the runtime is kept.
pub struct Tokens {
    region: String,
    aws: crate::net::Aws,
    runtime: Handle,
}

impl Tokens {
    /// Reads the shared configuration files; asks for no credentials yet. Within a runtime.
    ///
    /// # Errors
    /// The trusted certificates of this machine cannot be read.
    pub async fn new(region: String) -> Result<Tokens, String> {
        let http = HttpClient::new(HttpOptions::verified(CONNECT, ANSWER, None)?);
        let aws = aws(&AwsOptions { region: region.clone(), ..AwsOptions::default() }, http).await;
        Ok(Tokens { region, aws, runtime: Handle::current() })
    }

    /// A token. Blocks; never on a thread of the runtime.
    pub(super) fn token(&self, wait: Duration) -> Result<OAuthToken, String> {
        let credentials = async {
            tokio::time::timeout(wait, self.aws.credentials.get())
                .await
                .map_err(|_| "AWS credentials did not come in time".to_owned())?
                .map_err(|e| format!("no AWS credentials for MSK: {}", crate::net::causes(&e)))
        };
        let credentials = self.runtime.block_on(credentials)?;
        let now = Time::now().sec;
        let token = msk_iam::token(
            &self.region,
            &msk_iam::Keys {
                id: credentials.access_key_id(),
                secret: credentials.secret_access_key(),
                session: credentials.session_token(),
            },
            now,
        );
        Ok(OAuthToken {
            token,
            principal_name: "firelane".to_owned(),
            lifetime_ms: (now + msk_iam::EXPIRES) * 1000,
        })
    }
}

/// The region of a cluster: from its ARN, else from the name of a broker of MSK's.
pub(super) fn region(cluster: Option<&str>, brokers: &str) -> Option<String> {
    let of_arn = cluster.and_then(|arn| arn.split(':').nth(3)).filter(|r| !r.is_empty());
    let of_name = || {
        brokers.split(',').find_map(|broker| {
            let host = broker.trim().rsplit("://").next()?.split(':').next()?;
            let labels: Vec<&str> = host.split('.').collect();
            let at = labels.iter().position(|l| *l == "amazonaws")?;
            let service = labels.get(at.checked_sub(2)?)?;
            service.starts_with("kafka").then(|| labels.get(at - 1).copied()).flatten()
        })
    };
    of_arn.or_else(of_name).map(str::to_owned)
}

/// An unsecured JSON Web Signature as librdkafka's own mechanism makes it: `principal=user lifeSeconds=600`.
pub(super) fn unsecured(config: &str) -> Result<OAuthToken, String> {
    let mut principal = String::new();
    let mut life = 3600;
    let mut scope = Vec::new();
    for pair in config.split_ascii_whitespace() {
        match pair.split_once('=') {
            Some(("principal", name)) => name.clone_into(&mut principal),
            Some(("lifeSeconds", text)) => {
                life = text.parse().map_err(|_| format!("lifeSeconds={text} is no number"))?;
            }
            Some(("scope", list)) => scope = list.split(',').map(str::to_owned).collect(),
            _ => {
                return Err(format!(
                    "\"{pair}\" in sasl.oauthbearer.config is not known; use principal=NAME"
                ));
            }
        }
    }
    if principal.is_empty() {
        return Err("OAUTHBEARER needs rdkafka.sasl.oauthbearer.config principal=NAME, or MSK IAM".to_owned());
    }
    let now = Time::now().sec;
    let mut claims = serde_json::json!({"sub": principal, "iat": now, "exp": now + life});
    if !scope.is_empty() {
        claims["scope"] = scope.into();
    }
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    Ok(OAuthToken {
        token: format!("{}.{}.", part("{\"alg\":\"none\"}"), part(&claims.to_string())),
        principal_name: principal,
        lifetime_ms: (now + life) * 1000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_arn_or_in_the_name_of_a_broker() {
        let arn = Some("arn:aws:kafka:ap-south-1:1:cluster/x/y");
        assert_eq!(region(arn, "b:9098").as_deref(), Some("ap-south-1"));
        let serverless = "boot-ab.c1.kafka-serverless.us-west-2.amazonaws.com:9098";
        assert_eq!(region(None, serverless).as_deref(), Some("us-west-2"));
        assert_eq!(
            region(None, "x.cn, b-1.d.c2.kafka.cn-north-1.amazonaws.com.cn:9").as_deref(),
            Some("cn-north-1")
        );
        assert_eq!(region(None, "s3.eu-west-1.amazonaws.com"), None);
    }

    #[test]
    fn an_unsecured_token_names_its_principal() {
        let token = unsecured("principal=alice scope=a,b lifeSeconds=60").unwrap();
        assert_eq!(token.principal_name, "alice");
        let claims = URL_SAFE_NO_PAD.decode(token.token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "alice");
        assert_eq!(claims["exp"].as_i64().unwrap() * 1000, token.lifetime_ms);
        assert!(unsecured("").is_err() && unsecured("principal=a lifeSeconds=x").is_err());
    }
}
