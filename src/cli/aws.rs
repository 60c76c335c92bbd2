//! Options of commands that ask AWS for something on a task's behalf.
//!
//! Enters: flags and environment. Leaves: what the agent needs to ask. Can go wrong: an endpoint that is no address.

use clap::Args;

use crate::agent::secrets::{Endpoints, Settings};

#[derive(Debug, Args)]
pub(super) struct Aws {
    /// Address of a service (secretsmanager, ssm, s3, sts, logs), or of all [default: AWS_ENDPOINT_URL_SERVICE, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "[SERVICE=]URL")]
    endpoint: Vec<String>,
    /// Get secrets and files in the name of executionRoleArn, as ECS does, and not with the agent's own rights
    #[arg(long)]
    assume_execution_role: bool,
}

impl Aws {
    /// # Errors
    /// An endpoint that is none.
    pub(super) fn settings(&self) -> Result<Settings, String> {
        let endpoints = Endpoints::read(&self.endpoint, |name| std::env::var(name).ok())
            .map_err(|e| format!("endpoint: {e}"))?;
        Ok(Settings { endpoints, assume_execution_role: self.assume_execution_role })
    }
}
