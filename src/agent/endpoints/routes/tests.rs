//! Paths, statuses and texts, as the ECS agent has them.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::sync::watch;

use super::*;
use crate::agent::definition::ContainerDefinition;
use crate::agent::endpoints::Listed;
use crate::agent::endpoints::role::Roles;
use crate::agent::plan::{ContainerPlan, RolePlan, TaskPlan};
use crate::agent::runtime::{ContainerState, Failure, States, TaskHandle};
use crate::rt::Tasks;

/// A task that stands still.
struct Still(watch::Sender<States>);

impl TaskHandle for Still {
    async fn create(&self, _: &ContainerPlan) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }
    async fn start(&self, _: &str) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }
    async fn stop(&self, _: &str, _: Duration) -> Result<(), Failure> {
        Ok(())
    }
    async fn address(&self, _: &str) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
    async fn stats(&self, name: &str) -> Option<Value> {
        (name == "web").then(|| json!({"name": "/web", "network_rate_stats": {"rx_bytes_per_sec": 1}}))
    }
    async fn last_words(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn states(&self) -> watch::Receiver<States> {
        self.0.subscribe()
    }
    async fn close(&self) -> Result<(), Failure> {
        Ok(())
    }
}

fn named(name: &str, endpoint_id: &str) -> ContainerPlan {
    ContainerPlan {
        definition: ContainerDefinition { name: name.to_owned(), ..ContainerDefinition::default() },
        endpoint_id: endpoint_id.to_owned(),
        ..ContainerPlan::default()
    }
}

/// A task of three: two are there, of one of them nobody knows what it uses; the third is not made yet.
fn directory() -> (Arc<Directory>, Listed) {
    let credentials = Credentials::new("AKID", "secret", Some("token".to_owned()), None, "test");
    let roles = Roles::faked(SharedCredentialsProvider::new(credentials));
    let directory = Directory::with(roles, &Tasks::new());
    let plan = TaskPlan {
        id: "t".to_owned(),
        arn: "arn:task".to_owned(),
        tags: [("team".to_owned(), "shop".to_owned())].into(),
        role: Some(RolePlan {
            arn: "arn:role".to_owned(),
            credentials_id: "c1".to_owned(),
            ..RolePlan::default()
        }),
        containers: vec![named("web", "e1"), named("db", "e2"), named("later", "e3")],
        ..TaskPlan::default()
    };
    let state = |id: &str| ContainerState { id: id.to_owned(), ..ContainerState::default() };
    let containers = [("web".to_owned(), state("id1")), ("db".to_owned(), state("id2"))].into();
    let still = Arc::new(Still(watch::Sender::new(States { containers, gone: false })));
    let listed = directory.list(&plan, &still);
    (directory, listed)
}

async fn get(directory: &Arc<Directory>, path: &str) -> (u16, Value) {
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    let answer = answer(directory, &Method::GET, path, query).await;
    let body = if answer.json { serde_json::from_str(&answer.body).unwrap() } else { answer.body.into() };
    (answer.status.as_u16(), body)
}

#[tokio::test]
async fn a_container_finds_itself_its_task_and_what_both_use() {
    let (directory, _listed) = directory();
    for version in ["v3", "v4"] {
        let (status, container) = get(&directory, &format!("/{version}/e1")).await;
        assert_eq!((status, &container["DockerId"]), (200, &json!("id1")));
        for what in ["task", "taskWithTags"] {
            let (status, task) = get(&directory, &format!("/{version}/e2/{what}")).await;
            assert_eq!((status, &task["TaskARN"]), (200, &json!("arn:task")));
            assert_eq!(task["Containers"].as_array().unwrap().len(), 2);
            let tags = if what == "task" { Value::Null } else { json!({"team": "shop"}) };
            assert_eq!((&task["TaskTags"], task.get("ContainerInstanceTags")), (&tags, None));
        }
        let (_, stats) = get(&directory, &format!("/{version}/e1/stats")).await;
        assert_eq!(
            (&stats["name"], stats.get("network_rate_stats").is_some()),
            (&json!("/web"), version == "v4")
        );
        assert_eq!(get(&directory, &format!("/{version}/e2/stats")).await, (200, Value::Null));
        let (status, all) = get(&directory, &format!("/{version}/e2/task/stats")).await;
        assert_eq!((status, &all["id1"]["name"], &all["id2"]), (200, &json!("/web"), &Value::Null));
        let (status, none) = get(&directory, &format!("/{version}/e1/associations/elastic-inference")).await;
        assert_eq!((status, none), (200, json!({"Associations": []})));
        assert_eq!(get(&directory, &format!("/{version}/e1/associations/a/b")).await.0, 400);
    }
}

#[tokio::test]
async fn an_id_that_nobody_has_is_told_in_the_agents_words() {
    let (directory, listed) = directory();
    let container = "unable to get container ID from request: unable to get docker ID from v3 endpoint ID:";
    let task = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID:";
    for (path, status, text) in [
        ("/v4/x", 404, format!("V4 container metadata handler: {container} x")),
        ("/v4/", 404, format!("V4 container metadata handler: {container} ")),
        ("/v4/e3", 404, format!("V4 container metadata handler: {container} e3")),
        ("/v4/x/task", 404, format!("V4 task metadata handler: {task} x")),
        ("/v4/x/stats", 404, format!("V4 container stats handler: {task} x")),
        ("/v4/x/task/stats", 404, format!("V4 task stats handler: {task} x")),
        ("/v3/x", 500, format!("V3 container metadata handler: {container} x")),
        ("/v3/x/task", 500, format!("V3 task metadata handler: {task} x")),
        ("/v3/x/stats", 400, format!("V3 container stats handler: {task} x")),
        ("/v4/c1", 404, format!("V4 container metadata handler: {container} c1")),
        ("/v4/e1/tasks", 404, "404 page not found\n".to_owned()),
        ("/v4/e1/metadata", 404, "404 page not found\n".to_owned()),
        ("/", 404, "404 page not found\n".to_owned()),
    ] {
        assert_eq!(get(&directory, path).await, (status, Value::from(text)), "{path}");
    }
    // A task that has ended is nobody's any more.
    drop(listed);
    assert_eq!(get(&directory, "/v4/e1").await.0, 404);
    assert_eq!(get(&directory, "/v2/credentials/c1").await.0, 400);
}

#[tokio::test]
async fn credentials_are_for_whoever_knows_their_id() {
    let (directory, _listed) = directory();
    for path in ["/v2/credentials/c1", "/v1/credentials?id=c1"] {
        let (status, body) = get(&directory, path).await;
        assert_eq!(
            (status, &body["RoleArn"], &body["AccessKeyId"]),
            (200, &json!("arn:role"), &json!("AKID"))
        );
        assert_eq!((&body["SecretAccessKey"], &body["Token"]), (&json!("secret"), &json!("token")));
    }
    for (path, code, message) in [
        ("/v2/credentials/", "NoIdInRequest", "CredentialsV2Request: No Credential ID in the request"),
        ("/v1/credentials", "NoIdInRequest", "CredentialsV1Request: No Credential ID in the request"),
        ("/v1/credentials?id=", "NoIdInRequest", "CredentialsV1Request: No Credential ID in the request"),
        ("/v2/credentials/e1", "InvalidIdInRequest", "CredentialsV2Request: Credentials not found"),
    ] {
        let want = json!({"code": code, "message": message, "HTTPErrorCode": 400});
        assert_eq!(get(&directory, path).await, (400, want), "{path}");
    }
}

#[tokio::test]
async fn paths_are_cleaned() {
    let (directory, _listed) = directory();
    for (path, clean) in
        [("//v4//e1", "/v4/e1"), ("/v4/./e1/", "/v4/e1/"), ("/v4/x/../e1", "/v4/e1"), ("", "/"), ("/..", "/")]
    {
        assert_eq!(cleaned(path).as_deref(), Some(clean), "{path}");
    }
    assert_eq!(cleaned("/v2/credentials/"), None);
    let moved = answer(&directory, &Method::GET, "//v1/credentials", Some("id=c1")).await;
    assert_eq!((moved.status.as_u16(), moved.location.as_deref()), (301, Some("/v1/credentials?id=c1")));
}

#[tokio::test]
async fn a_path_answers_to_any_method_but_task_protection_which_is_refused_in_ecss_shape() {
    let (directory, _listed) = directory();
    for method in [Method::HEAD, Method::POST, Method::PUT] {
        for path in ["/v4/e1", "/v4/e1/task", "/v3/e1", "/v2/credentials/c1"] {
            let got = answer(&directory, &Method::GET, path, None).await;
            assert_eq!(
                (answer(&directory, &method, path, None).await, got.status.as_u16()),
                (got, 200),
                "{path}"
            );
        }
    }
    let state = "/api/e1/task-protection/v1/state";
    for method in [Method::GET, Method::PUT] {
        let refused = answer(&directory, &method, state, None).await;
        let body: Value = serde_json::from_str(&refused.body).unwrap();
        let error = &body["error"];
        assert_eq!((refused.status.as_u16(), refused.json), (400, true));
        assert_eq!(
            (&error["Arn"], &error["Code"]),
            (&json!("arn:task"), &json!("UnsupportedFeatureException"))
        );
        assert!(error["Message"].as_str().unwrap().contains("cannot protect"));
    }
    assert_eq!(answer(&directory, &Method::PUT, "/api/x/task-protection/v1/state", None).await.status, 404);
    assert_eq!(answer(&directory, &Method::POST, state, None).await.status, 405);
}
