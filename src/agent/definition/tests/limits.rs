//! Limits, log options, cycles and places; and what is no longer passed over in silence.

use serde_json::{Value, json};

use super::super::{Problem, read_all};
use super::{read, refused, web, with};

fn has(all: &[String], part: &str) {
    assert!(all.iter().any(|e| e.contains(part)), "{part} in {all:#?}");
}

fn warnings(change: impl FnOnce(&mut Value)) -> Vec<String> {
    with(change).unwrap().warnings.iter().map(ToString::to_string).collect()
}

fn fargate(task: &mut Value) {
    task["requiresCompatibilities"] = json!(["FARGATE"]);
    task["networkMode"] = json!("awsvpc");
    (task["cpu"], task["memory"]) = (json!("256"), json!("512"));
}

#[test]
fn a_task_outside_fargate_has_an_eighth_to_192_vcpus() {
    for cpu in ["128", "192 vCPU", "196608"] {
        with(|task| task["cpu"] = json!(cpu)).unwrap();
    }
    for cpu in ["127", "196609", "0.1 vcpu"] {
        has(&refused(|task| task["cpu"] = json!(cpu)), "cpu: must be 128 to 196608 CPU units");
    }
}

#[test]
fn images_files_and_port_ranges_have_limits() {
    let image = refused(web("image", json!("é".repeat(256))));
    has(&image, "containerDefinitions[0].image: must have at most 255 characters, not 256");
    with(web("image", json!("é".repeat(255)))).unwrap();
    let ranges: Vec<Value> =
        (0..101).map(|n| json!({"containerPortRange": format!("{}-{}", n * 2 + 1, n * 2 + 2)})).collect();
    has(&refused(web("portMappings", json!(ranges))), "portMappings: has at most 100 port ranges, not 101");
    let files = refused(web(
        "environmentFiles",
        json!([{"value": "arn:aws:s3:::b/a.env"}, {"value": "s3://b/a.env", "type": "s3"},
               {"value": "arn:aws:s3:::b/a.txt", "type": "s3"}, {"value": "arn:aws:s3:::b/a.env", "type": "file"}]),
    ));
    has(&files, "environmentFiles[0].type: must be given: s3");
    has(&files, "environmentFiles[1].value: must be the ARN of an S3 object");
    has(&files, "environmentFiles[2].value: \"arn:aws:s3:::b/a.txt\" must end with .env");
    has(&files, "environmentFiles[3].type: must be one of s3, not \"file\"");
    let host = refused(|task| {
        task["networkMode"] = json!("host");
        task["containerDefinitions"][0]["portMappings"] = json!([{"containerPortRange": "80-81"}]);
    });
    has(&host, "portMappings[0].containerPortRange: is for network modes bridge and awsvpc, not host");
}

#[test]
fn fargate_has_timeouts_of_2_to_120_seconds_and_warns_of_a_file_from_s3() {
    for (field, value) in [("startTimeout", 1), ("stopTimeout", 121), ("stopTimeout", 0)] {
        let errors = refused(|task| {
            fargate(task);
            web(field, json!(value))(task);
        });
        has(&errors, &format!("{field}: must be 2 to 120, not {value}"));
        with(web(field, json!(value))).unwrap();
    }
    let errors = refused(|task| {
        fargate(task);
        task["placementConstraints"] = json!([{"type": "memberOf"}]);
        task["containerDefinitions"][0]["resourceRequirements"] = json!([{"type": "GPU", "value": "1"}]);
    });
    has(&errors, "placementConstraints: is not supported on Fargate");
    has(&errors, "resourceRequirements[0].type: is not supported on Fargate");
    // AWS's own example has it.
    let said = warnings(|task| {
        fargate(task);
        task["containerDefinitions"][1]["firelensConfiguration"]["options"] =
            json!({"config-file-type": "s3", "config-file-value": "arn:aws:s3:::b/k"});
    });
    has(
        &said,
        "containerDefinitions[1].firelensConfiguration.options.config-file-type: Fargate takes only file",
    );
}

#[test]
fn what_a_machine_cannot_honour_is_checked_all_the_same() {
    let errors = refused(|task| {
        task["placementConstraints"] = json!(vec![json!({"type": "distinctInstance"}); 11]);
        task["ephemeralStorage"] = json!({"sizeInGiB": 201});
        task["proxyConfiguration"] =
            json!({"containerName": "envoy", "properties": [{"name": "AppPorts", "value": "80"}]});
        task["tags"] =
            json!((0..51).map(|n| json!({"key": format!("k{}", n / 2), "value": "v"})).collect::<Vec<_>>());
        task["containerDefinitions"][0]["resourceRequirements"] =
            json!([{"type": "GPU", "value": "all"}, {"value": "1"}]);
    });
    has(&errors, "placementConstraints: has at most 10 constraints, not 11");
    has(&errors, "placementConstraints[10].type: must be one of memberOf");
    has(&errors, "ephemeralStorage.sizeInGiB: must be 20 to 200, not 201");
    has(&errors, "proxyConfiguration.containerName: there is no container \"envoy\"");
    has(&errors, "proxyConfiguration.properties: App Mesh needs the property ProxyEgressPort");
    has(&errors, "proxyConfiguration.properties: App Mesh needs the property IgnoredUID, or IgnoredGID");
    has(&errors, "tags: has at most 50 tags, not 51");
    has(&errors, "tags[1].key: \"k0\" is the key of another tag");
    has(&errors, "resourceRequirements[0].value: must be how many GPUs");
    has(&errors, "resourceRequirements[1].type: must be given");
}

#[test]
fn security_options_are_those_that_ecs_passes_on() {
    with(web("dockerSecurityOptions", json!(["no-new-privileges", "apparmor:x", "label:type:y"]))).unwrap();
    let errors = refused(web("dockerSecurityOptions", json!(["seccomp:unconfined", "label:"])));
    has(&errors, "dockerSecurityOptions[0]: must be no-new-privileges, apparmor:PROFILE");
    has(&errors, "dockerSecurityOptions[1]: must be no-new-privileges");
}

#[test]
fn the_routers_user_is_a_number() {
    let router =
        |user: &'static str| move |task: &mut Value| task["containerDefinitions"][1]["user"] = json!(user);
    for user in ["0", "1000:1000", "1000:adm"] {
        with(router(user)).unwrap();
    }
    for user in ["root", "fluent:1000", "-1"] {
        has(&refused(router(user)), "containerDefinitions[1].user: the user of a log router must be UID");
    }
    with(web("user", json!("root"))).unwrap();
}

#[test]
fn an_efs_volume_has_an_id_and_encryption_where_it_is_needed() {
    let efs =
        |value: Value| with(|task| task["volumes"] = json!([{"name": "v", "efsVolumeConfiguration": value}]));
    let access = json!({"accessPointId": "fsap-1", "iam": "ENABLED"});
    efs(json!({"fileSystemId": "fs-1", "transitEncryption": "ENABLED", "authorizationConfig": access}))
        .unwrap();
    let errors =
        efs(json!({"transitEncryption": "on", "rootDirectory": "/x", "authorizationConfig": access}))
            .unwrap_err();
    has(&errors, "volumes[0].efsVolumeConfiguration.fileSystemId: must be given");
    has(&errors, "efsVolumeConfiguration.transitEncryption: must be one of ENABLED, DISABLED, not \"on\"");
    has(
        &errors,
        "efsVolumeConfiguration.transitEncryption: must be ENABLED, because an access point is used",
    );
    has(&errors, "efsVolumeConfiguration.rootDirectory: must be left out, or /");
}

#[test]
fn containers_that_wait_for_themselves_through_links_volumes_and_the_router_are_found() {
    let links = refused(|task| {
        task["containerDefinitions"][0]["links"] = json!(["log_router"]);
        task["containerDefinitions"][1]["dependsOn"] =
            json!([{"containerName": "web", "condition": "START"}]);
    });
    has(&links, "containerDefinitions[0].links[0]: container web waits for itself, by way of log_router");
    has(&links, "containerDefinitions[1].dependsOn: container log_router waits for itself, by way of web");
    // web logs through the router, and so starts after it.
    let volumes = refused(|task| {
        task["containerDefinitions"][1]["volumesFrom"] = json!([{"sourceContainer": "web"}]);
    });
    has(
        &volumes,
        "containerDefinitions[1].volumesFrom[0].sourceContainer: container log_router waits for itself",
    );
    with(|task| task["containerDefinitions"][0]["volumesFrom"] = json!([{"sourceContainer": "log_router"}]))
        .unwrap();
}

#[test]
fn a_path_names_the_index_in_the_file_whatever_stands_before_it() {
    let errors = refused(|task| {
        task["containerDefinitions"].as_array_mut().unwrap().insert(0, json!("web"));
        task["volumes"] = json!([null, {"name": "v", "host": {"sourcePath": 1}}]);
        let c = &mut task["containerDefinitions"][1];
        c["dependsOn"] =
            json!([7, {"containerName": "log_router"}, {"containerName": "nobody", "condition": "START"}]);
        c["links"] = json!([false, "nobody"]);
        c["mountPoints"] = json!([[], {"sourceVolume": "w", "containerPath": "/w"}]);
        c["portMappings"] = json!([{}, {"containerPort": 80, "hostPort": 81, "containerPortRange": "1-2"}]);
    });
    has(&errors, "containerDefinitions[0]: must be an object, not a string");
    has(&errors, "volumes[1].host.sourcePath: must be a string");
    has(&errors, "containerDefinitions[1].dependsOn[0]: must be an object, not a number");
    has(&errors, "containerDefinitions[1].dependsOn[2].containerName: there is no container \"nobody\"");
    has(&errors, "containerDefinitions[1].links[1]: there is no other container \"nobody\"");
    has(&errors, "containerDefinitions[1].mountPoints[1].sourceVolume: Unknown volume 'w'.");
    has(&errors, "containerDefinitions[1].portMappings[0].containerPort: must be 1 to 65535");
    let of_broken = |path: &str| errors.iter().filter(|e| e.starts_with(path)).count();
    for path in [
        "containerDefinitions[0]",
        "volumes[0]",
        "containerDefinitions[1].dependsOn[0]",
        "containerDefinitions[1].links[0]",
    ] {
        assert_eq!(of_broken(path), 1, "{path} in {errors:#?}");
    }
}

#[test]
fn options_of_log_drivers_are_checked_as_docker_does() {
    let log = |driver: &str, options: Value| {
        with(web("logConfiguration", json!({"logDriver": driver, "options": options})))
    };
    let awslogs = |more: Value| {
        let mut options = json!({"awslogs-group": "g", "awslogs-region": "r", "awslogs-stream-prefix": "p"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        log("awslogs", options)
    };
    let at = "containerDefinitions[0].logConfiguration.options";
    awslogs(json!({"max-buffer-size": "25m", "mode": "non-blocking"})).unwrap();
    // Without a mode ECS takes non-blocking.
    awslogs(json!({"max-buffer-size": "25m"})).unwrap();
    awslogs(json!({"awslogs-multiline-pattern": "^\\d{4}", "awslogs-create-group": "${X}"})).unwrap();
    let errors =
        awslogs(json!({"max-buffer-size": "25m", "mode": "blocking", "awslogs-grup": "x", "labels": "y",
                                "awslogs-create-group": "yes"}))
        .unwrap_err();
    has(&errors, &format!("{at}.max-buffer-size: logger: max-buffer-size option is only supported"));
    has(&errors, &format!("{at}.awslogs-grup: unknown log opt 'awslogs-grup' for awslogs log driver"));
    has(&errors, &format!("{at}.labels: unknown log opt 'labels'"));
    has(&errors, &format!("{at}.awslogs-create-group: must specify valid value"));
    let mode = log("json-file", json!({"mode": "fast", "max-size": "big", "max-file": "3"})).unwrap_err();
    has(&mode, &format!("{at}.mode: logger: logging mode not supported: fast"));
    has(&mode, &format!("{at}.max-size: invalid size: 'big'"));
    let ring = log("json-file", json!({"max-buffer-size": "1m"})).unwrap_err();
    has(&ring, &format!("{at}.max-buffer-size: logger: max-buffer-size option is only supported"));
    let fluentd = log("fluentd", json!({"fluentd-address": "ftp://x", "awslogs-group": "g"})).unwrap_err();
    has(&fluentd, &format!("{at}.fluentd-address: invalid fluentd-address (ftp://x)"));
    has(&fluentd, &format!("{at}.awslogs-group: unknown log opt 'awslogs-group' for fluentd log driver"));
    let none = log("awslogs", json!({"awslogs-region": "r"})).unwrap_err();
    assert_eq!(none.len(), 1, "{none:?}");
}

#[test]
fn a_pattern_that_is_none_is_blamed_on_its_own_option_and_on_nothing_else() {
    let awslogs = |more: Value| {
        let mut options = json!({"awslogs-group": "g", "awslogs-region": "r", "awslogs-stream-prefix": "p"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refused(web("logConfiguration", json!({"logDriver": "awslogs", "options": options})))
    };
    // Options are named in values, too.
    for pattern in ["(", "(awslogs-group", "(mode awslogs-stream"] {
        let errors = awslogs(json!({"awslogs-multiline-pattern": pattern, "awslogs-stream": "s"}));
        assert_eq!(errors.len(), 1, "{errors:?}");
        has(&errors, "options.awslogs-multiline-pattern: awslogs could not parse multiline pattern key");
    }
    let empty = awslogs(json!({"awslogs-group": ""}));
    assert_eq!(empty.len(), 1, "{empty:?}");
    has(&empty, "logConfiguration.options: awslogs needs awslogs-group");
    let file = json!({"logDriver": "json-file", "options": {"compress": "true", "max-size": "1m"}});
    let errors = refused(web("logConfiguration", file));
    assert_eq!(errors.len(), 1, "{errors:?}");
    has(&errors, "options.compress: compress cannot be true");
}

#[test]
fn a_tag_that_is_no_template_is_refused_and_one_that_docker_alone_renders_is_a_warning() {
    for driver in ["awslogs", "json-file", "fluentd"] {
        let tag = |tag: &str| {
            let mut options = json!({"tag": tag});
            if driver == "awslogs" {
                options["awslogs-group"] = json!("g");
            }
            with(web("logConfiguration", json!({"logDriver": driver, "options": options})))
        };
        let errors = tag("{{.Nope}}").unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        has(&errors, "options.tag: template: log-tag: {{.Nope}}: can't evaluate field Nope");
        assert!(tag("{{ (.ExtraAttributes nil).APP }}/{{lower .Name}}").unwrap().warnings.is_empty());
        let said: Vec<String> =
            tag("{{if .ID}}x{{end}}").unwrap().warnings.iter().map(ToString::to_string).collect();
        has(&said, "options.tag: works with the docker runtime only: template: log-tag: {{if .ID}}");
        tag("${TAG}{{.Nope}}").unwrap();
    }
}

#[test]
fn what_must_be_given_must_not_be_empty() {
    let errors = refused(|task| {
        task["family"] = json!("");
        task["volumes"] = json!([{"name": ""}]);
        let c = &mut task["containerDefinitions"][0];
        (c["name"], c["image"]) = (json!(""), json!(""));
        c["secrets"] = json!([{"name": "", "valueFrom": ""}]);
        c["environment"] = json!([{"name": "", "value": ""}]);
        c["mountPoints"] = json!([{"sourceVolume": "", "containerPath": ""}]);
        c["volumesFrom"] = json!([{"sourceContainer": ""}]);
        c["extraHosts"] = json!([{"hostname": "db"}, {"hostname": "x", "ipAddress": "one"},
                                 {"hostname": "y", "ipAddress": "::1"}]);
        c["linuxParameters"] =
            json!({"tmpfs": [{"containerPath": "", "size": 1}], "devices": [{"hostPath": ""}]});
    });
    has(&errors, "family: must not be empty");
    has(&errors, "volumes[0].name: must not be empty");
    has(
        &errors,
        "containerDefinitions[0].image: Container.image should not be null or empty. (ClientException)",
    );
    for field in [
        "name",
        "secrets[0].name",
        "secrets[0].valueFrom",
        "environment[0].name",
        "mountPoints[0].sourceVolume",
        "mountPoints[0].containerPath",
        "volumesFrom[0].sourceContainer",
        "linuxParameters.tmpfs[0].containerPath",
        "linuxParameters.devices[0].hostPath",
    ] {
        has(&errors, &format!("containerDefinitions[0].{field}: must not be empty"));
    }
    has(&errors, "containerDefinitions[0].extraHosts[0].ipAddress: must be given");
    has(&errors, "containerDefinitions[0].extraHosts[1].ipAddress: must be an IP address");
    assert!(!errors.iter().any(|e| e.contains("extraHosts[2]")), "{errors:#?}");
    let null = refused(web("image", Value::Null));
    has(&null, "containerDefinitions[0].image: Container.image should not be null or empty.");
}

#[test]
fn a_size_of_the_wrong_kind_is_not_also_missing() {
    let errors = refused(web("memory", json!("32")));
    assert_eq!(errors.len(), 1, "{errors:?}");
    has(&errors, "memory: must be a whole number, not a string");
    let errors = refused(web("memory", json!(32.5)));
    assert_eq!(errors.len(), 1, "{errors:?}");
    has(&errors, "containerDefinitions[0].memory: must be a whole number, not 32.5");
    has(
        &refused(web("memory", json!(0))),
        "At least one of 'memory' or 'memoryReservation' must be specified.",
    );
    let errors = refused(|task| {
        task["memory"] = json!("much");
        web("memory", Value::Null)(task);
    });
    assert_eq!(errors.len(), 1, "{errors:?}");
}

#[test]
fn fargate_says_everything_at_once_and_warnings_stand_beside_errors() {
    let mut task = super::good();
    fargate(&mut task);
    (task["cpu"], task["memory"]) = (Value::Null, json!("x"));
    (task["pidMode"], task["ipcMode"]) = (json!("host"), json!("task"));
    task["enableFaultInjection"] = json!(true);
    task["volumes"] = json!([{"name": "later", "configuredAtLaunch": true}]);
    let reading = read_all(task.to_string().as_bytes());
    let texts = |all: &[Problem]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let errors = texts(&reading.definition.unwrap_err());
    has(&errors, "cpu: Fargate requires that 'cpu' be defined at the task level.");
    has(&errors, "memory: must be a size like");
    has(&errors, "pidMode: host is not supported on Fargate");
    has(&errors, "ipcMode: is not supported on Fargate");
    assert_eq!(errors.len(), 4, "{errors:#?}");
    let said = texts(&reading.warnings);
    has(&said, "enableFaultInjection: has no effect");
    has(&said, "volumes[0].configuredAtLaunch: a volume that is configured at launch is not on this machine");
    has(&said, "--volume later=PATH");
}

#[test]
fn what_was_passed_over_in_silence_is_a_warning() {
    let said = warnings(|task| {
        task["tags"] = json!([{"key": "team", "value": "x"}]);
        task["enableFaultInjection"] = json!(true);
        task["ephemeralStorage"] = json!({"sizeInGiB": 30});
        let c = &mut task["containerDefinitions"][0];
        c["portMappings"] = json!([{"containerPort": 80, "name": "web", "appProtocol": "http"}]);
        c["versionConsistency"] = json!("disabled");
        c["logConfiguration"] = json!({"logDriver": "splunk", "options": {"splunk-url": "x"}});
        task["containerDefinitions"][1]["firelensConfiguration"]["options"] =
            json!({"config-file-value": "/x.conf", "enable-ecs-log-metadat": "true"});
    });
    for part in [
        "tags: has no effect on one machine",
        "enableFaultInjection: has no effect on one machine",
        "ephemeralStorage: has no effect on one machine: it is for Fargate only",
        "containerDefinitions[0].portMappings[0].name: has no effect on one machine: there is no Service Connect",
        "portMappings[0].appProtocol: has no effect",
        "containerDefinitions[0].versionConsistency: has no effect",
        "logConfiguration.logDriver: splunk is a log driver of Docker's",
        "firelensConfiguration.options.config-file-value: has no effect",
        "options.enable-ecs-log-metadat: has no effect: the ECS agent has no such option; did you mean \"enable-ecs-log-metadata\"?",
    ] {
        has(&said, part);
    }
    let empty = warnings(|task| {
        task["tags"] = json!([]);
        task["enableFaultInjection"] = json!(false);
        task["placementConstraints"] = json!([]);
        task["containerDefinitions"][0]["resourceRequirements"] = json!([]);
    });
    assert!(empty.is_empty(), "{empty:?}");
    let outside =
        read(json!({"taskDefinition": super::good(), "tags": [{"key": "a"}]}).to_string().as_bytes())
            .unwrap();
    has(&outside.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(), "tags: has no effect");
}

#[test]
fn a_large_file_of_nonsense_is_read_in_bounded_time() {
    let many = json!({"family": "x", "containerDefinitions": vec![json!(0); 200_000]});
    assert!(read(many.to_string().as_bytes()).is_err());
    let options: serde_json::Map<String, Value> =
        (0..50_000).map(|n| (format!("o{n}"), json!("x"))).collect();
    let errors = refused(web("logConfiguration", json!({"logDriver": "json-file", "options": options})));
    assert!(errors.len() >= 50);
}
