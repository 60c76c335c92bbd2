//! How a container learns where it can ask.
//!
//! Enters: the address of the endpoints, a container's id. Leaves: the variables that the ECS agent sets. Can go wrong:
//! nothing.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

const METADATA: &str = "ECS_CONTAINER_METADATA_URI_V4";
/// The address that containers know on ECS; behind it is a listener of the task's own.
const LINK_LOCAL: &str = "http://169.254.170.2";

/// Where the endpoints are, as a container sees them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Base {
    url: String,
    /// At ECS's own address, which SDKs put in front of the path of credentials by themselves.
    relative: bool,
}

impl Base {
    /// On an address of the machine, for containers that share its network.
    pub fn of(address: SocketAddr) -> Base {
        Base { url: format!("http://{address}"), relative: false }
    }

    /// At ECS's own address, inside a network namespace of the task.
    pub fn link_local() -> Base {
        Base { url: LINK_LOCAL.to_owned(), relative: true }
    }

    /// Whether an environment has it.
    pub fn is_told(&self, environment: &[(String, String)]) -> bool {
        let uri = environment.iter().find(|(name, _)| name == METADATA);
        uri.is_some_and(|(_, uri)| uri.strip_prefix(&self.url).is_some_and(|rest| rest.starts_with('/')))
    }

    /// The variables of a container. `credentials`: the id of the task role's, where there is a role.
    pub fn variables(&self, id: &str, credentials: Option<&str>) -> Vec<(String, String)> {
        let url = &self.url;
        let mut all = vec![
            ("ECS_CONTAINER_METADATA_URI".to_owned(), format!("{url}/v3/{id}")),
            (METADATA.to_owned(), format!("{url}/v4/{id}")),
            ("ECS_AGENT_URI".to_owned(), format!("{url}/api/{id}")),
        ];
        all.extend(credentials.map(|id| {
            let path = format!("/v2/credentials/{id}");
            match self.relative {
                true => ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".to_owned(), path),
                // SDKs take plain HTTP from a loopback address only.
                false => ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("{url}{path}")),
            }
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdks_are_told_a_path_at_ecss_address_and_a_whole_address_elsewhere() {
        let at = |base: Base| base.variables("i", Some("c")).last().cloned().unwrap();
        let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/c");
        assert_eq!(at(Base::link_local()), (relative.0.to_owned(), relative.1.to_owned()));
        let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:81/v2/credentials/c");
        let base = Base::of(SocketAddr::from(([127, 0, 0, 1], 81)));
        assert_eq!(at(base.clone()), (full.0.to_owned(), full.1.to_owned()));
        assert!(
            base.is_told(&base.variables("i", None))
                && !Base::link_local().is_told(&base.variables("i", None))
        );
        let without = base.variables("i", None);
        assert_eq!(without.len(), 3);
        assert!(without.contains(&("ECS_AGENT_URI".to_owned(), "http://127.0.0.1:81/api/i".to_owned())));
    }
}
