//! The ECS task that this process is part of, from the task metadata endpoint.
//!
//! Enters: the address in `ECS_CONTAINER_METADATA_URI_V4`. Leaves: the cluster and the task's ARN. Can go wrong: there is no
//! such endpoint, or it does not answer; then the records' `ecs_*` fields serve instead.

use std::time::Duration;

use aws_smithy_types::body::SdkBody;

use super::names::Task;
use crate::net::HttpClient;

/// The ECS agent's endpoint throttles, and may start after us.
const TRIES: u32 = 3;
const WAIT: Duration = Duration::from_secs(1);

/// Asks the endpoint, if there is one.
pub(super) async fn ask(http: &HttpClient, label: &str) -> Task {
    let Ok(base) = std::env::var("ECS_CONTAINER_METADATA_URI_V4") else {
        tracing::info!(
            output = label,
            "no ECS task metadata endpoint; $(ecs_...) in names come from the records' ecs_* fields"
        );
        return Task::default();
    };
    let mut cause = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(WAIT).await;
        }
        match ask_once(http, &base).await {
            Ok(task) => return task,
            Err(e) => cause = e,
        }
    }
    tracing::warn!(output = label, %cause,
        "the ECS task metadata endpoint does not answer; $(ecs_...) in names come from the records' ecs_* fields");
    Task::default()
}

async fn ask_once(http: &HttpClient, base: &str) -> Result<Task, String> {
    let request = http::Request::get(format!("{}/task", base.trim_end_matches('/')))
        .body(SdkBody::empty())
        .map_err(|e| e.to_string())?;
    let answer = http.send(request).await.map_err(|e| e.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()));
    }
    let json: serde_json::Value = serde_json::from_slice(answer.body()).map_err(|e| e.to_string())?;
    let text = |key: &str| json.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    // An ARN where the cluster has one: names are the part after the last slash.
    let cluster = text("Cluster").map(|c| c.rsplit('/').next().unwrap_or_default().to_owned());
    Ok(Task { cluster, arn: text("TaskARN") })
}
