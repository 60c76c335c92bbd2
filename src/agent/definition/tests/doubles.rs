//! What stands twice, and names and places that docker does not have.

use serde_json::{Value, json};

use super::{refused, web, with};

fn has(all: &[String], part: &str) {
    assert!(all.iter().any(|e| e.contains(part)), "{part} in {all:#?}");
}

#[test]
fn a_variable_that_is_given_twice_is_a_warning_and_a_secret_of_its_name_is_refused() {
    let twice =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "A", "value": "3"}]);
    let checked = with(web("environment", twice)).unwrap();
    let said: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    has(&said, "containerDefinitions[0].environment[2].name: \"A\" is the name of an earlier variable, too");
    let errors = refused(|task| {
        web("environment", json!([{"name": "A", "value": "1"}]))(task);
        let secret = |name: &str| json!({"name": name, "valueFrom": "arn"});
        web("secrets", json!([secret("A"), secret("B"), secret("B")]))(task);
    });
    has(&errors, "containerDefinitions[0].secrets[0].name: The secret name must be unique and not shared");
    has(&errors, "containerDefinitions[0].secrets[2].name: The secret name must be unique and not shared");
    assert_eq!(errors.len(), 2, "{errors:#?}");
}

#[test]
fn a_mount_has_a_place_of_its_own_and_its_path_is_absolute() {
    let mounts = |points: Value, tmpfs: Value| {
        with(|task| {
            task["volumes"] = json!([{"name": "v"}]);
            web("mountPoints", points)(task);
            web("linuxParameters", json!({"tmpfs": tmpfs}))(task);
        })
    };
    let point = |path: &str| json!({"sourceVolume": "v", "containerPath": path});
    mounts(json!([point("/a"), point("/a/b"), point("<path>")]), json!([{"containerPath": "/c", "size": 1}]))
        .unwrap();
    let errors = mounts(
        json!([point("data"), point("/a"), point("/a/")]),
        json!([{"containerPath": "/a", "size": 1}, {"containerPath": "t", "size": 1}]),
    )
    .unwrap_err();
    has(&errors, "[0].mountPoints[0].containerPath: must be an absolute path, not \"data\"");
    has(&errors, "[0].mountPoints[2].containerPath: Duplicate mount point: /a;");
    has(&errors, "[0].linuxParameters.tmpfs[0].containerPath: Duplicate mount point: /a;");
    has(&errors, "[0].linuxParameters.tmpfs[1].containerPath: must be an absolute path, not \"t\"");
    assert_eq!(errors.len(), 4, "{errors:#?}");
}

#[test]
fn a_port_of_the_machine_is_for_one_container() {
    let ports = |mode: &'static str, second: Value| {
        with(move |task| {
            task["networkMode"] = json!(mode);
            web("portMappings", json!([{"containerPort": 80, "hostPort": 80}]))(task);
            task["containerDefinitions"][1]["portMappings"] = json!([second]);
        })
    };
    let errors = ports("bridge", json!({"containerPort": 8080, "hostPort": 80})).unwrap_err();
    has(
        &errors,
        "containerDefinitions[1].portMappings[0].hostPort: port 80/tcp is taken already, by container web",
    );
    ports("bridge", json!({"containerPort": 80, "hostPort": 80, "protocol": "udp"})).unwrap();
    ports("bridge", json!({"containerPort": 80, "hostPort": 0})).unwrap();
    ports("bridge", json!({"containerPort": 80})).unwrap();
    let shared = ports("awsvpc", json!({"containerPort": 80, "hostPort": 80})).unwrap();
    let said: Vec<String> = shared.warnings.iter().map(ToString::to_string).collect();
    has(&said, "only one of them can listen there");
}

#[test]
fn a_dependency_that_is_said_twice_is_a_warning() {
    let twice = json!([{"containerName": "log_router", "condition": "START"},
                       {"containerName": "log_router", "condition": "START"}]);
    let checked = with(web("dependsOn", twice)).unwrap();
    let said: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    has(
        &said,
        "containerDefinitions[0].dependsOn[1].containerName: container log_router stands in an earlier",
    );
}

#[test]
fn capabilities_are_those_that_there_are() {
    let capabilities = |add: Value, drop: Value| {
        with(web("linuxParameters", json!({"capabilities": {"add": add, "drop": drop}})))
    };
    capabilities(json!(["SYS_PTRACE", "CAP_NET_ADMIN", "sys_time"]), json!(["ALL"])).unwrap();
    let errors = capabilities(json!(["SYS_PTRCE"]), json!(["ROOT"])).unwrap_err();
    has(&errors, "capabilities.add[0]: there is no capability \"SYS_PTRCE\"; did you mean \"SYS_PTRACE\"?");
    has(&errors, "capabilities.drop[0]: there is no capability \"ROOT\"");
}
