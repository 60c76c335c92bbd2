//! Task definitions that ECS would take, and what it says of the others.

use serde_json::{Value, json};

use super::*;

fn good() -> Value {
    json!({
        "family": "shop",
        "containerDefinitions": [
            {"name": "web", "image": "busybox", "memory": 64, "command": ["true"],
             "logConfiguration": {"logDriver": "awsfirelens", "options": {"Name": "stdout"}}},
            {"name": "log_router", "image": "firelane", "memoryReservation": 50,
             "firelensConfiguration": {"type": "fluentbit"}}
        ]
    })
}

fn with(change: impl FnOnce(&mut Value)) -> Result<Checked, Vec<String>> {
    let mut value = good();
    change(&mut value);
    read(value.to_string().as_bytes()).map_err(|all| all.iter().map(ToString::to_string).collect())
}

fn refused(change: impl FnOnce(&mut Value)) -> Vec<String> {
    with(change).unwrap_err()
}

/// Sets a field of the first container.
fn web(field: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |task| task["containerDefinitions"][0][field] = value
}

#[test]
fn what_is_not_written_has_ecss_defaults() {
    let checked = with(|_| {}).unwrap();
    let d = checked.definition;
    assert_eq!(
        (d.family.as_str(), d.revision, d.network_mode, d.launch_type),
        ("shop", 1, NetworkMode::Bridge, LaunchType::Ec2)
    );
    let web = &d.container_definitions[0];
    assert!(web.essential && web.health_check.is_none());
    let checked = with(web_health(json!({"command": ["CMD-SHELL", "true"]}))).unwrap();
    let check = checked.definition.container_definitions[0].health_check.clone().unwrap();
    assert_eq!((check.interval, check.timeout, check.retries, check.start_period), (30, 5, 3, 0));
}

fn web_health(value: Value) -> impl FnOnce(&mut Value) {
    web("healthCheck", value)
}

#[test]
fn what_describe_task_definition_prints_is_taken_as_it_is() {
    let mut inner = good();
    for (field, value) in [
        ("taskDefinitionArn", json!("arn:aws:ecs:us-east-1:1:task-definition/shop:12")),
        ("revision", json!(12)),
        ("status", json!("ACTIVE")),
        ("requiresAttributes", json!([{"name": "x"}])),
        ("compatibilities", json!(["EC2"])),
        ("registeredAt", json!(1_700_000_000.5)),
        ("volumes", json!([])),
        ("placementConstraints", json!([])),
    ] {
        inner[field] = value;
    }
    inner["containerDefinitions"][0]["environment"] = json!([]);
    inner["containerDefinitions"][0]["cpu"] = json!(0);
    let wrapped = json!({"taskDefinition": inner, "tags": []});
    let checked = read(wrapped.to_string().as_bytes()).unwrap();
    assert_eq!(checked.definition.revision, 12);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let errors = refused(|task| {
        task["family"] = json!("my family");
        task["containerDefinitons"] = json!([]);
        let c = &mut task["containerDefinitions"][0];
        c["memory"] = json!("64");
        c["esential"] = json!(true);
        c["dependsOn"] = json!([{"containerName": "db", "condition": "STARTED"}, {"containerName": "nobody", "condition": "START"}]);
        c["mountPoints"] = json!([{"sourceVolume": "v", "containerPath": "/v"}]);
        c["logConfiguration"]["options"]["workers"] = json!(1);
    });
    let has = |part: &str| assert!(errors.iter().any(|e| e.contains(part)), "{part} in {errors:#?}");
    has("family: \"my family\" must be at most 255 letters");
    has(
        "containerDefinitons: unknown field; did you mean \"containerDefinitions\"? (InvalidParameterException)",
    );
    has("containerDefinitions[0].memory: must be a whole number, not a string");
    has("containerDefinitions[0].esential: unknown field; did you mean \"essential\"?");
    has(
        "containerDefinitions[0].dependsOn[0].condition: must be one of START, COMPLETE, SUCCESS, HEALTHY, not \"STARTED\"",
    );
    has("containerDefinitions[0].dependsOn[1].containerName: there is no container \"nobody\"");
    has("containerDefinitions[0].mountPoints[0].sourceVolume: Unknown volume 'v'.");
    has(
        "containerDefinitions[0].logConfiguration.options.workers: must be a string, not a number; write it in quotes",
    );
}

#[test]
fn a_file_that_is_no_json_is_refused_with_its_line_and_column() {
    let error = read(b"{\n  \"family\": \"x\"\n  \"cpu\": 1\n}").unwrap_err().remove(0);
    assert!(error.text.starts_with("line 3, column 3: this is no JSON: expected `,` or `}`"), "{error}");
    assert!(read(b"[]").unwrap_err()[0].text.contains("is a JSON object"));
    assert!(read(&vec![b' '; 2 << 20]).unwrap_err()[0].text.contains("at most"));
    assert!(read("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn sizes_are_numbers_or_words() {
    for (cpu, memory, want) in
        [("1 vCPU", "2 GB", (1024, 2048)), (".5 vcpu", "1gb", (512, 1024)), ("256", "512", (256, 512))]
    {
        let checked = with(|task| (task["cpu"], task["memory"]) = (json!(cpu), json!(memory))).unwrap();
        assert_eq!((checked.definition.cpu.unwrap(), checked.definition.memory.unwrap()), want);
    }
    assert!(refused(|task| task["cpu"] = json!("one"))[0].contains("\"1024\" or \"1 vCPU\""));
}

#[test]
fn fargate_has_pairs_a_network_mode_and_things_it_does_not_do() {
    let fargate = |cpu: &str, memory: &str| {
        let (cpu, memory) = (json!(cpu), json!(memory));
        with(|task| {
            task["requiresCompatibilities"] = json!(["FARGATE"]);
            task["networkMode"] = json!("awsvpc");
            (task["cpu"], task["memory"]) = (cpu, memory);
        })
    };
    for (cpu, memory) in [("256", "512"), ("512", "4096"), ("4096", "30 GB"), ("16384", "122880")] {
        fargate(cpu, memory).unwrap();
    }
    for (cpu, memory) in [("256", "4096"), ("512", "1500"), ("300", "1024"), ("8192", "17408")] {
        assert!(
            fargate(cpu, memory).unwrap_err()[0].contains("No Fargate configuration exists"),
            "{cpu} {memory}"
        );
    }
    let errors = refused(|task| {
        task["requiresCompatibilities"] = json!(["FARGATE"]);
        let c = &mut task["containerDefinitions"][0];
        c["privileged"] = json!(true);
        c["logConfiguration"] = json!({"logDriver": "json-file"});
    });
    for part in [
        "network mode 'awsvpc'",
        "'cpu' be defined",
        "privileged: is not supported on Fargate",
        "awslogs, awsfirelens, splunk",
    ] {
        assert!(errors.iter().any(|e| e.contains(part)), "{part} in {errors:?}");
    }
}

#[test]
fn one_container_is_essential_ten_are_enough_and_names_differ() {
    let essential = refused(|task| {
        task["containerDefinitions"][0]["essential"] = json!(false);
        task["containerDefinitions"][1]["essential"] = json!(false);
    });
    assert!(essential[0].contains("at least one container must be essential"));
    let many = refused(|task| {
        let one = task["containerDefinitions"][0].clone();
        for _ in 0..9 {
            task["containerDefinitions"].as_array_mut().unwrap().push(one.clone());
        }
    });
    assert!(many.iter().any(|e| e.contains("at most 10 containers, not 11")));
    assert!(
        many.iter()
            .any(|e| e.contains("containerDefinitions[2].name: \"web\" is the name of another container"))
    );
    let memory =
        refused(|task| drop(task["containerDefinitions"][0].as_object_mut().unwrap().remove("memory")));
    assert!(memory[0].contains("At least one of 'memory' or 'memoryReservation' must be specified."));
}

#[test]
fn dependencies_have_no_cycle_and_conditions_that_can_come_true() {
    let errors = refused(|task| {
        let list = task["containerDefinitions"].as_array_mut().unwrap();
        list[0]["dependsOn"] = json!([{"containerName": "log_router", "condition": "HEALTHY"}]);
        list[1]["dependsOn"] = json!([{"containerName": "web", "condition": "COMPLETE"}]);
    });
    let has = |part: &str| assert!(errors.iter().any(|e| e.contains(part)), "{part} in {errors:#?}");
    has("[0].dependsOn: container web waits for itself");
    has("[1].dependsOn: container log_router waits for itself");
    has("[0].dependsOn[0].condition: HEALTHY needs a healthCheck of container log_router");
    has("[1].dependsOn[0].condition: container web is essential");
}

#[test]
fn firelens_has_one_router_with_a_plugin_for_each_that_logs_through_it() {
    let two =
        refused(|task| task["containerDefinitions"][0]["firelensConfiguration"] = json!({"type": "fluentd"}));
    assert!(
        two.iter()
            .any(|e| e.contains("containerDefinitions[1].firelensConfiguration: a task has one log router"))
    );
    let none = refused(|task| drop(task["containerDefinitions"].as_array_mut().unwrap().remove(1)));
    assert!(none[0].contains("a firelens configuration object must be configured in one of the containers"));
    let lower =
        refused(web("logConfiguration", json!({"logDriver": "awsfirelens", "options": {"name": "stdout"}})));
    assert!(lower[0].contains("missing output key Name"));
    with(web("logConfiguration", json!({"logDriver": "awsfirelens"}))).unwrap();
    let itself = |mode: &'static str| {
        move |task: &mut Value| {
            task["networkMode"] = json!(mode);
            task["containerDefinitions"][1]["logConfiguration"] = json!({"logDriver": "awsfirelens"});
        }
    };
    let bridge = refused(itself("bridge"));
    assert!(bridge[0].contains("[1].logConfiguration.logDriver: unable to get BridgeIP"), "{bridge:?}");
    with(itself("awsvpc")).unwrap();
    with(itself("host")).unwrap();
    let kind = refused(|task| {
        task["containerDefinitions"][1]["firelensConfiguration"] =
            json!({"type": "fluentbi", "options": {"config-file-type": "s3", "config-file-value": "x"}})
    });
    assert!(kind[0].contains("did you mean \"fluentbit\"?"), "{kind:?}");
    assert!(kind[1].contains("must be the ARN of an S3 object"), "{kind:?}");
}

#[test]
fn what_one_machine_cannot_honour_is_a_warning() {
    let checked = with(|task| {
        task["placementConstraints"] = json!([{"type": "memberOf", "expression": "x"}]);
        task["volumes"] = json!([{"name": "efs", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]);
        task["containerDefinitions"][0]["resourceRequirements"] = json!([{"type": "GPU", "value": "1"}]);
        task["containerDefinitions"][1]["firelensConfiguration"]["options"] =
            json!({"enable-ecs-log-metadata": "yes"});
    })
    .unwrap();
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    for part in [
        "placementConstraints: has no effect",
        "--volume efs=PATH",
        "resourceRequirements",
        "ECS takes it as false",
    ] {
        assert!(warnings.iter().any(|w| w.contains(part)), "{part} in {warnings:?}");
    }
}

#[test]
fn ports_fit_the_network_mode() {
    let ports = |mode: &str, port: Value| {
        let (mode, port) = (json!(mode), port);
        with(|task| {
            task["networkMode"] = mode;
            task["containerDefinitions"][0]["portMappings"] = json!([port]);
        })
    };
    let bridge = ports("bridge", json!({"containerPort": 80, "hostPort": 8080, "protocol": "udp"})).unwrap();
    let port = &bridge.definition.container_definitions[0].port_mappings[0];
    assert_eq!((port.container_port, port.host_port, port.udp), ((80, 80), Some(8080), true));
    assert!(
        ports("host", json!({"containerPort": 80, "hostPort": 8080})).unwrap_err()[0]
            .contains("hostPort: must be 80")
    );
    assert!(ports("none", json!({"containerPort": 80})).unwrap_err()[0].contains("network mode none"));
    assert_eq!(
        ports("bridge", json!({"containerPortRange": "90-95"})).unwrap().definition.container_definitions[0]
            .port_mappings[0]
            .container_port,
        (90, 95)
    );
    assert!(
        ports("bridge", json!({"hostPort": 80})).unwrap_err()[0]
            .contains("containerPort: must be 1 to 65535")
    );
}

mod doubles;
mod limits;

mod properties {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::read;

    fn any_value() -> impl Strategy<Value = Value> {
        let names = prop::sample::select(vec![
            "family",
            "containerDefinitions",
            "name",
            "image",
            "cpu",
            "memory",
            "dependsOn",
            "condition",
            "containerName",
            "logConfiguration",
            "logDriver",
            "options",
            "volumes",
            "host",
            "healthCheck",
            "command",
            "portMappings",
            "containerPort",
            "ulimits",
            "linuxParameters",
            "firelensConfiguration",
            "type",
            "taskDefinition",
            "x",
        ]);
        let words = prop::sample::select(vec![
            "awsfirelens",
            "START",
            "fluentbit",
            "CMD",
            "FARGATE",
            "",
            "1 vCPU",
            "é",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            words.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_taken_or_refused_with_a_reason(value in any_value()) {
            if let Err(problems) = read(value.to_string().as_bytes()) {
                prop_assert!(!problems.is_empty() && problems.iter().all(|p| !p.text.is_empty()));
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
