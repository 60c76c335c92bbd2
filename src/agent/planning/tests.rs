//! What is decided before a task starts.

use super::*;
use crate::agent::definition::{FirelensConfiguration, LogConfiguration, Secret};

fn log(driver: &str, options: &[(&str, &str)]) -> Option<LogConfiguration> {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Some(LogConfiguration { log_driver: driver.to_owned(), options, secret_options: Vec::new() })
}

fn app(name: &str) -> ContainerDefinition {
    ContainerDefinition {
        name: name.to_owned(),
        essential: true,
        command: Some(vec!["true".to_owned()]),
        log_configuration: log("awsfirelens", &[("Name", "stdout")]),
        ..Default::default()
    }
}

fn task() -> TaskDefinition {
    let router = ContainerDefinition {
        name: "log_router".to_owned(),
        firelens_configuration: Some(FirelensConfiguration {
            r#type: "fluentbit".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    TaskDefinition {
        family: "shop".to_owned(),
        revision: 7,
        container_definitions: vec![app("web"), router],
        ..Default::default()
    }
}

fn choices() -> Choices {
    Choices {
        id: "0f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned(),
        cluster: "default".to_owned(),
        region: "eu-west-1".to_owned(),
        account: "111122223333".to_owned(),
        data: "/data".into(),
        process: true,
        ..Default::default()
    }
}

fn value<'a>(container: &'a ContainerPlan, name: &str) -> Option<&'a str> {
    container.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn an_app_logs_to_its_tasks_router_and_starts_after_it() {
    let planned = plan(&task(), &choices()).unwrap();
    let [web, router] = &planned.plan.containers[..] else { panic!() };
    assert_eq!(web.log_driver, "fluentd");
    assert_eq!(web.log_options["tag"], "web-firelens-0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    assert_eq!(
        web.log_options["fluentd-address"],
        "unix:///data/firelens/0f1e2d3c4b5a69788796a5b4c3d2e1f0/socket/fluent.sock"
    );
    assert!(web.wants_router_address && value(web, "FLUENT_HOST").is_none());
    assert_eq!(web.depends_on.iter().map(|d| d.container_name.as_str()).collect::<Vec<_>>(), ["log_router"]);
    assert_eq!(router.binds[1].1, "/var/run");
    assert_eq!((router.log_driver.as_str(), router.wants_router_address), ("json-file", false));
    let mut definition = task();
    definition.network_mode = NetworkMode::Awsvpc;
    let docker = plan(&definition, &Choices { process: false, ..choices() }).unwrap();
    let web = &docker.plan.containers[0];
    assert_eq!((value(web, "FLUENT_HOST"), value(web, "FLUENT_PORT")), (Some("127.0.0.1"), Some("24224")));
    assert!(!web.wants_router_address);
    let text = planned.configuration.unwrap();
    assert!(text.contains("Listen 0.0.0.0\n    Port 24224"), "{text}");
    assert!(text.contains("Record ecs_task_definition shop:7"), "{text}");
    assert_eq!(
        planned.plan.arn,
        "arn:aws:ecs:eu-west-1:111122223333:task/default/0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    );
    assert!(web.docker_name.starts_with("ecs-shop-7-web-"), "{}", web.docker_name);
    assert_eq!(web.labels["com.amazonaws.ecs.task-definition-version"], "7");
}

#[test]
fn awslogs_gets_its_stream_and_does_not_block_unless_it_is_told_to() {
    let mut definition = task();
    let options = |more: &[(&str, &str)]| {
        log("awslogs", &[&[("awslogs-group", "g"), ("awslogs-stream-prefix", "p")], more].concat())
    };
    let mut driver = |more: &[(&str, &str)], blocking| {
        definition.container_definitions[0].log_configuration = options(more);
        let planned = plan(&definition, &Choices { blocking, ..choices() }).unwrap();
        planned.plan.containers[0].log_options.clone()
    };
    let usual = driver(&[], false);
    assert_eq!(usual["awslogs-stream"], "p/web/0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    assert_eq!((usual["mode"].as_str(), usual["max-buffer-size"].as_str()), ("non-blocking", "10m"));
    assert_eq!(
        (usual["awslogs-region"].as_str(), usual.contains_key("awslogs-stream-prefix")),
        ("eu-west-1", false)
    );
    assert!(!driver(&[], true).contains_key("mode"));
    assert!(!driver(&[("mode", "blocking")], false).contains_key("max-buffer-size"));
    assert_eq!(driver(&[("mode", "non-blocking"), ("max-buffer-size", "1m")], true)["max-buffer-size"], "1m");
    assert!(!usual.contains_key("awslogs-endpoint"));
}

#[test]
fn awslogs_writes_to_the_endpoint_that_is_given_unless_the_definition_names_one() {
    let mut definition = task();
    let choices = Choices { logs: Some("http://127.0.0.1:5000".to_owned()), ..choices() };
    let mut endpoint = |more: &[(&str, &str)]| {
        let options = [&[("awslogs-group", "g"), ("awslogs-stream-prefix", "p")], more].concat();
        definition.container_definitions[0].log_configuration = log("awslogs", &options);
        plan(&definition, &choices).unwrap().plan.containers[0].log_options["awslogs-endpoint"].clone()
    };
    assert_eq!(endpoint(&[]), "http://127.0.0.1:5000");
    assert_eq!(endpoint(&[("awslogs-endpoint", "http://own:1")]), "http://own:1");
}

#[test]
fn secrets_are_environment_of_who_uses_them_and_one_without_a_value_stops_the_task() {
    let mut definition = task();
    let secret = |name: &str| Secret { name: name.to_owned(), value_from: format!("arn:{name}") };
    definition.container_definitions[0].secrets = vec![secret("TOKEN")];
    definition.container_definitions[0].log_configuration.as_mut().unwrap().secret_options =
        vec![secret("key")];
    let e = plan(&definition, &choices()).unwrap_err();
    assert_eq!(e.name, "ResourceInitializationError");
    assert!(e.text.contains("--secret TOKEN=VALUE"), "{e}");
    let secrets = [("TOKEN", "t"), ("arn:key", "k")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let planned = plan(&definition, &Choices { secrets, ..choices() }).unwrap();
    let [web, router] = &planned.plan.containers[..] else { panic!() };
    assert_eq!(
        (value(web, "TOKEN"), value(router, "key_0"), value(router, "TOKEN")),
        (Some("t"), Some("k"), None)
    );
    assert!(planned.configuration.unwrap().contains("key ${key_0}"));
}

#[test]
fn a_secret_that_nothing_wants_is_told_and_one_of_a_file_is_not() {
    let mut definition = task();
    let secret = |name: &str| Secret { name: name.to_owned(), value_from: format!("arn:{name}") };
    let web = &mut definition.container_definitions[0];
    web.secrets = vec![secret("TOKEN")];
    web.log_configuration.as_mut().unwrap().secret_options = vec![secret("key")];
    web.repository_credentials = Some("arn:registry".to_owned());
    let given = ["TOKEN", "arn:key", "arn:registry", "ZZ", "of a file"].map(str::to_owned);
    let choices = Choices {
        secrets: given.iter().map(|name| (name.clone(), "v".to_owned())).collect(),
        meant_secrets: given.iter().take(4).cloned().collect(),
        process: false,
        ..choices()
    };
    let planned = plan(&definition, &choices).unwrap();
    assert_eq!(planned.warnings, ["--secret ZZ: the task definition has no such secret"]);
}

#[test]
fn what_this_machine_lacks_is_refused_with_a_way_out() {
    let mut definition = task();
    definition.container_definitions[0].command = None;
    let e = plan(&definition, &choices()).unwrap_err();
    assert!(e.text.contains("--exec web=COMMAND"), "{e}");
    let exec = [("web".to_owned(), vec!["sleep".to_owned()])].into();
    assert_eq!(
        plan(&definition, &Choices { exec, ..choices() }).unwrap().plan.containers[0].exec.as_ref().unwrap()
            [0],
        "sleep"
    );
    let mut definition = task();
    definition.volumes =
        vec![Volume { name: "v".to_owned(), kind: VolumeKind::Elsewhere("an EFS file system".to_owned()) }];
    let e = plan(&definition, &choices()).unwrap_err();
    assert!(e.name == "InvalidVolumeError" && e.text.contains("--volume v=PATH"), "{e}");
    let volumes = [("v".to_owned(), PathBuf::from("/x"))].into();
    let planned = plan(&definition, &Choices { volumes, ..choices() }).unwrap();
    assert_eq!(planned.plan.volumes[0].kind, VolumeKind::Host("/x".to_owned()));
    let e = plan(&task(), &Choices { data: format!("/{}", "d".repeat(80)).into(), ..choices() }).unwrap_err();
    assert!(e.text.contains("a socket's path at most 107"), "{e}");
}

#[test]
fn ids_are_hexadecimal_and_differ() {
    let (a, b) = (hex(32), hex(32));
    assert!(a.len() == 32 && a.bytes().all(|c| c.is_ascii_hexdigit()) && a != b);
    assert_eq!(uuid().len(), 36);
}

#[test]
fn environment_files_give_way_to_all_else_and_a_configuration_in_s3_is_bound() {
    let mut definition = task();
    definition.container_definitions[0].environment = vec![("A".to_owned(), "definition".to_owned())];
    definition.container_definitions[0].secrets =
        vec![Secret { name: "B".to_owned(), value_from: "arn:b".to_owned() }];
    let pairs = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), "file".to_owned())).collect();
    let mut fetched = Fetched::default();
    fetched.environment.insert("web".to_owned(), pairs(&["A", "B", "C", "D", "AWS_EXECUTION_ENV"]));
    fetched.secrets.insert("arn:b".to_owned(), "secret".to_owned());
    fetched.external = Some("[FILTER]".to_owned());
    let options = [("config-file-type", "s3"), ("config-file-value", "arn:aws:s3:::bucket/key")];
    let router = definition.container_definitions[1].firelens_configuration.as_mut().unwrap();
    router.options = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let environment = vec![("D".to_owned(), "flag".to_owned())];
    let planned = plan(&definition, &Choices { fetched, environment, ..choices() }).unwrap();
    let [web, router] = &planned.plan.containers[..] else { panic!() };
    let found = ["A", "B", "C", "D", "AWS_EXECUTION_ENV"].map(|name| value(web, name).unwrap());
    assert_eq!(found, ["definition", "secret", "file", "flag", "AWS_ECS_EC2"]);
    assert!(router.binds[2].0.ends_with("config/external.conf"), "{:?}", router.binds);
    assert_eq!(router.binds[2].1, "/fluent-bit/etc/external.conf");
    assert_eq!(planned.external.as_deref(), Some("[FILTER]"));
    assert!(planned.configuration.unwrap().contains("@INCLUDE /fluent-bit/etc/external.conf"));
    let e = plan(&definition, &choices()).unwrap_err();
    assert_eq!(e.name, "ResourceInitializationError");
}

#[test]
fn containers_are_told_where_the_endpoints_are_each_by_its_own_id() {
    use crate::agent::endpoints::Base;
    let mut definition = task();
    definition.task_role_arn = Some("shop".to_owned());
    let at = ("ECS_CONTAINER_METADATA_URI_V4", "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    definition.container_definitions[0].environment = vec![(at.0.to_owned(), "the definition's".to_owned())];
    let base = Base::of(std::net::SocketAddr::from(([127, 0, 0, 1], 8000)));
    let choices = Choices { endpoints: Some(base), ..choices() };
    let planned = plan(&definition, &choices).unwrap();
    assert_eq!(planned.warnings, [""; 0]);
    let [web, router] = &planned.plan.containers[..] else { panic!() };
    let role = planned.plan.role.as_ref().unwrap();
    assert_eq!(role.arn, "arn:aws:iam::111122223333:role/shop");
    assert_ne!(web.endpoint_id, router.endpoint_id);
    let v4 = format!("http://127.0.0.1:8000/v4/{}", web.endpoint_id);
    assert_eq!(value(web, at.0), Some(v4.as_str()));
    let full = format!("http://127.0.0.1:8000/v2/credentials/{}", role.credentials_id);
    assert_eq!((value(web, at.1), value(router, at.1)), (Some(full.as_str()), Some(full.as_str())));

    // In a network of its own a container cannot reach the machine's loopback.
    let docker = Choices { process: false, ..choices.clone() };
    let planned = plan(&definition, &docker).unwrap();
    assert_eq!((value(&planned.plan.containers[1], at.0), planned.warnings.len()), (None, 1));
    let served = plan(&definition, &Choices { namespaces: true, ..docker.clone() }).unwrap();
    let v4 = value(&served.plan.containers[0], at.0).unwrap();
    assert!(v4.starts_with("http://169.254.170.2/v4/"), "{v4}");
    assert!(value(&served.plan.containers[0], "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some());
    definition.network_mode = NetworkMode::Host;
    let host = plan(&definition, &docker).unwrap();
    assert!(value(&host.plan.containers[0], at.1).is_some());
    let none = plan(&definition, &Choices { task_role: Some(String::new()), ..choices }).unwrap();
    assert_eq!((value(&none.plan.containers[0], at.1), none.plan.role), (None, None));
}

#[test]
fn a_router_of_an_init_image_knows_its_task_and_says_what_it_does_not_include() {
    let mut definition = task();
    let router = &mut definition.container_definitions[1];
    router.image = "public.ecr.aws/aws-observability/aws-for-fluent-bit:init-latest".to_owned();
    router.environment = vec![("aws_fluent_bit_init_s3_1".to_owned(), "arn:aws:s3:::b/k.conf".to_owned())];
    let planned = plan(&definition, &choices()).unwrap();
    let router = &planned.plan.containers[1];
    assert_eq!(value(router, "ECS_TASK_ID"), Some("0f1e2d3c4b5a69788796a5b4c3d2e1f0"));
    assert_eq!((value(router, "AWS_REGION"), value(router, "ECS_FAMILY")), (Some("eu-west-1"), Some("shop")));
    let [warning] = &planned.warnings[..] else { panic!("{:?}", planned.warnings) };
    assert!(warning.contains("aws_fluent_bit_init_s3_1 has no effect"), "{warning}");
    definition.container_definitions[1].image = "aws-for-fluent-bit:stable".to_owned();
    let planned = plan(&definition, &choices()).unwrap();
    assert!(planned.warnings.is_empty() && value(&planned.plan.containers[1], "ECS_FAMILY").is_none());
}

#[test]
fn what_an_image_has_can_be_given_and_is_asked_for_where_there_are_no_images() {
    let mut definition = task();
    let options = [("config-file-type", "file"), ("config-file-value", "/no-such/extra.conf")];
    definition.container_definitions[1].firelens_configuration.as_mut().unwrap().options =
        options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let planned = plan(&definition, &choices()).unwrap();
    assert!(planned.warnings[0].contains("--mount log_router:/no-such/extra.conf=FILE"), "{planned:?}");
    assert!(plan(&definition, &Choices { process: false, ..choices() }).unwrap().warnings.is_empty());
    let mounts = BTreeMap::from([
        ("log_router".to_owned(), vec![("/no-such".to_owned(), PathBuf::from("/here"))]),
        ("other".to_owned(), Vec::new()),
    ]);
    let planned = plan(&definition, &Choices { mounts, ..choices() }).unwrap();
    assert_eq!(planned.warnings, ["--mount other: the task definition has no such container"]);
    assert!(planned.plan.containers[1].binds.contains(&("/here".into(), "/no-such".to_owned(), false)));
}

#[test]
fn fargates_containers_have_its_limit_of_open_files_and_its_region() {
    let mut definition = task();
    definition.launch_type = LaunchType::Fargate;
    definition.network_mode = NetworkMode::Awsvpc;
    let own = Ulimit { name: "nofile".to_owned(), soft_limit: 10, hard_limit: 20 };
    let router = &mut definition.container_definitions[1];
    router.ulimits = vec![own.clone()];
    router.environment = vec![("AWS_REGION".to_owned(), "us-west-2".to_owned())];
    for process in [true, false] {
        let planned = plan(&definition, &Choices { process, ..choices() }).unwrap();
        let [web, router] = &planned.plan.containers[..] else { panic!() };
        assert_eq!(web.definition.ulimits, [Ulimit::fargate_files()]);
        assert_eq!(router.definition.ulimits, std::slice::from_ref(&own));
        let regions = |c| (value(c, "AWS_REGION").unwrap(), value(c, "AWS_DEFAULT_REGION").unwrap());
        assert_eq!(regions(web), ("eu-west-1", "eu-west-1"));
        assert_eq!(regions(router), ("us-west-2", "eu-west-1"));
    }
    let mut files = choices();
    files.fetched.environment.insert(
        "web".to_owned(),
        [("AWS_DEFAULT_REGION".to_owned(), "sa-east-1".to_owned())].into_iter().collect(),
    );
    let planned = plan(&definition, &files).unwrap();
    assert_eq!(value(&planned.plan.containers[0], "AWS_DEFAULT_REGION"), Some("sa-east-1"));
    let elsewhere = plan(&task(), &choices()).unwrap();
    let web = &elsewhere.plan.containers[0];
    assert!(web.definition.ulimits.is_empty() && value(web, "AWS_REGION").is_none());
}

#[test]
fn what_processes_do_not_have_of_a_task_is_said_and_in_docker_it_is_there() {
    let mut definition = task();
    definition.container_definitions.truncate(1);
    definition.container_definitions[0].log_configuration = None;
    definition.network_mode = NetworkMode::None;
    (definition.pid_mode, definition.ipc_mode) = (Some("task".to_owned()), Some("host".to_owned()));
    let one = |key: &str| BTreeMap::from([(key.to_owned(), "x".to_owned())]);
    let docker = |name: &str, driver: &str, driver_opts, labels| Volume {
        name: name.to_owned(),
        kind: VolumeKind::Docker {
            shared: false,
            autoprovision: false,
            driver: Some(driver.to_owned()),
            driver_opts,
            labels,
        },
    };
    definition.volumes = vec![
        docker("nfs", "rexray", one("type"), one("team")),
        docker("plain", "local", BTreeMap::new(), BTreeMap::new()),
        docker("given", "rexray", BTreeMap::new(), BTreeMap::new()),
    ];
    let choices = Choices { volumes: [("given".to_owned(), "/srv".into())].into(), ..choices() };
    let said = plan(&definition, &choices).unwrap().warnings;
    for part in [
        "networkMode none has no effect in the process runtime",
        "pidMode task has no effect",
        "ipcMode host has no effect",
        "volume nfs: dockerVolumeConfiguration.driver rexray has no effect",
        "volume nfs: dockerVolumeConfiguration.driverOpts type has no effect",
        "volume nfs: dockerVolumeConfiguration.labels team has no effect",
    ] {
        assert!(said.iter().any(|w| w.contains(part)), "{part} in {said:?}");
    }
    assert_eq!(said.len(), 6, "{said:?}");
    assert!(plan(&definition, &Choices { process: false, ..choices }).unwrap().warnings.is_empty());
}
