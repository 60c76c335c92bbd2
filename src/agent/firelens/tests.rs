//! Generated configurations, to the byte, and what stops a task.

use std::collections::BTreeMap;

use super::*;
use crate::agent::definition::{FirelensConfiguration, LogConfiguration, Secret};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn container(name: &str, options: &[(&str, &str)]) -> ContainerDefinition {
    let log = LogConfiguration {
        log_driver: "awsfirelens".to_owned(),
        options: map(options),
        secret_options: Vec::new(),
    };
    ContainerDefinition {
        name: name.to_owned(),
        essential: true,
        log_configuration: Some(log),
        ..Default::default()
    }
}

fn task(kind: &str, options: &[(&str, &str)], others: Vec<ContainerDefinition>) -> TaskDefinition {
    let firelens = FirelensConfiguration { r#type: kind.to_owned(), options: map(options) };
    let router = ContainerDefinition {
        name: "log_router".to_owned(),
        memory_reservation: Some(100),
        firelens_configuration: Some(firelens),
        ..Default::default()
    };
    let container_definitions = [vec![router], others].concat();
    TaskDefinition { family: "family".to_owned(), revision: 1, container_definitions, ..Default::default() }
}

fn cx(network: NetworkMode) -> Context {
    Context {
        cluster: "mycluster".to_owned(),
        task_arn: "arn:aws:ecs:us-east-2:111122223333:task/mycluster/3de392df-6bfa-470b-97ed-aa6f482cd7a6"
            .to_owned(),
        instance: Some("i-123456789a".to_owned()),
        network,
    }
}

fn generate(definition: &TaskDefinition, cx: &Context) -> Result<String, String> {
    let router = router(definition).unwrap();
    let options = Options::read(router.firelens_configuration.as_ref().unwrap())?;
    configuration(definition, &options, cx)
}

/// As the ECS agent writes it for such a task.
const BRIDGE: &str = r"
[INPUT]
    Name forward
    Mem_Buf_Limit 50MB
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 0.0.0.0
    Port 24224

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

[FILTER]
    Name   grep
    Match app-firelens*
    Regex  log *failure*

[FILTER]
    Name   grep
    Match app-firelens*
    Exclude log *success*

[FILTER]
    Name record_modifier
    Match *
    Record ec2_instance_id i-123456789a
    Record ecs_cluster mycluster
    Record ecs_task_arn arn:aws:ecs:us-east-2:111122223333:task/mycluster/3de392df-6bfa-470b-97ed-aa6f482cd7a6
    Record ecs_task_definition family:1

@INCLUDE /fluent-bit/etc/external.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

[OUTPUT]
    Name kinesis_firehose
    Match app-firelens*
    Zone z
    delivery_stream my-stream
    region us-west-2
";

fn app() -> ContainerDefinition {
    container(
        "app",
        &[
            ("Name", "kinesis_firehose"),
            ("region", "us-west-2"),
            ("delivery_stream", "my-stream"),
            ("Zone", "z"),
            ("include-pattern", "*failure*"),
            ("exclude-pattern", "*success*"),
            ("log-driver-buffer-limit", "2097152"),
        ],
    )
}

const S3: &[(&str, &str)] = &[("config-file-type", "s3"), ("config-file-value", "arn:aws:s3:::bucket/key")];

#[test]
fn the_configuration_is_the_ecs_agents_byte_for_byte() {
    let definition = task("fluentbit", S3, vec![app()]);
    assert_eq!(generate(&definition, &cx(NetworkMode::Bridge)).unwrap(), BRIDGE);
    let awsvpc = generate(&definition, &cx(NetworkMode::Awsvpc)).unwrap();
    assert_eq!(awsvpc, BRIDGE.replace("0.0.0.0", "127.0.0.1"));
}

#[test]
fn the_networks_of_host_and_none_have_no_port_and_no_health_check() {
    let definition =
        task("fluentbit", &[("enable-ecs-log-metadata", "false")], vec![container("a", &[("Name", "x")])]);
    for network in [NetworkMode::Host, NetworkMode::None] {
        assert_eq!(
            generate(&definition, &cx(network)).unwrap(),
            "\n[INPUT]\n    Name forward\n    Mem_Buf_Limit 50MB\n    unix_path /var/run/fluent.sock\n\n[OUTPUT]\n    Name x\n    Match a-firelens*\n"
        );
    }
}

#[test]
fn a_router_of_type_fluentd_gets_its_own_language() {
    let mut app = container(
        "app",
        &[
            ("@type", "kinesis_firehose"),
            ("region", "us-west-2"),
            ("include-pattern", "a"),
            ("exclude-pattern", "b"),
        ],
    );
    app.log_configuration.as_mut().unwrap().secret_options =
        vec![Secret { name: "key".to_owned(), value_from: "arn".to_owned() }];
    let definition = task("fluentd", S3, vec![app]);
    let want = r##"
<source>
    @type unix
    path /var/run/fluent.sock
</source>

<source>
    @type forward
    bind 0.0.0.0
    port 24224
</source>

<filter app-firelens**>
    @type  grep
    <regexp>
        key log
        pattern a
    </regexp>
</filter>

<filter app-firelens**>
    @type  grep
    <exclude>
        key log
        pattern b
    </exclude>
</filter>

<filter **>
    @type record_transformer
    <record>
        ec2_instance_id i-123456789a
        ecs_cluster mycluster
        ecs_task_arn arn:aws:ecs:us-east-2:111122223333:task/mycluster/3de392df-6bfa-470b-97ed-aa6f482cd7a6
        ecs_task_definition family:1
    </record>
</filter>

@include /fluentd/etc/external.conf

<match app-firelens**>
    @type kinesis_firehose
    key "#{ENV['key_1']}"
    region us-west-2
</match>
"##;
    assert_eq!(generate(&definition, &cx(NetworkMode::Bridge)).unwrap(), want);
}

#[test]
fn secret_options_are_variables_of_the_router_by_the_containers_place() {
    let mut app = container("app", &[("Name", "datadog")]);
    app.log_configuration.as_mut().unwrap().secret_options =
        vec![Secret { name: "apikey".to_owned(), value_from: "arn".to_owned() }];
    let definition = task("fluentbit", &[], vec![container("first", &[]), app]);
    let text = generate(&definition, &cx(NetworkMode::Bridge)).unwrap();
    assert!(
        text.ends_with("\n[OUTPUT]\n    Name datadog\n    Match app-firelens*\n    apikey ${apikey_2}\n"),
        "{text}"
    );
    // A container without options is routed by the user's own part.
    assert!(!text.contains("first-firelens"));
}

#[test]
fn metadata_is_added_unless_the_flag_is_there_and_not_true() {
    for (value, want) in
        [(None, true), (Some("true"), true), (Some("T"), true), (Some("false"), false), (Some("yes"), false)]
    {
        let flag: Vec<_> = value.iter().map(|v| ("enable-ecs-log-metadata", *v)).collect();
        let text = generate(&task("fluentbit", &flag, Vec::new()), &cx(NetworkMode::Host)).unwrap();
        assert_eq!(text.contains("record_modifier"), want, "{value:?}");
    }
}

#[test]
fn memory_is_half_of_the_reservation_then_of_the_limit_then_25_mb() {
    for (reservation, limit, want) in
        [(Some(100), Some(64), 50), (None, Some(65), 32), (Some(0), None, 25), (Some(1), None, 25)]
    {
        let mut definition = task("fluentbit", &[], Vec::new());
        let router = &mut definition.container_definitions[0];
        (router.memory_reservation, router.memory) = (reservation, limit);
        let text = generate(&definition, &cx(NetworkMode::Host)).unwrap();
        assert!(text.contains(&format!("Mem_Buf_Limit {want}MB\n")), "{text}");
    }
}

#[test]
fn what_stops_a_task_is_said_in_the_agents_words() {
    let of = |kind: &str, options: &[(&str, &str)], app: &[(&str, &str)]| {
        generate(&task(kind, options, vec![container("app", app)]), &cx(NetworkMode::Bridge)).unwrap_err()
    };
    assert_eq!(of("Fluentbit", &[], &[]), "invalid firelens configuration type: Fluentbit");
    assert_eq!(
        of("fluentbit", &[], &[("name", "x")]),
        "missing output key Name which is required for firelens configuration of type fluentbit"
    );
    assert!(of("fluentd", &[], &[("Name", "x")]).contains("missing output key @type"));
    assert!(of("fluentbit", &[("config-file-type", "file")], &[]).contains("config-file-value"));
    assert!(of("fluentbit", &[("config-file-type", "efs")], &[]).contains("config-file-type: efs"));
}

#[test]
fn containers_that_log_through_the_router_start_after_it_unless_it_waits_for_somebody() {
    let mut definition = task("fluentbit", &[], vec![app(), ContainerDefinition::default()]);
    let of = |d: &TaskDefinition, at: usize| implicit_dependency(d, &d.container_definitions[at]);
    let dependency = of(&definition, 1).unwrap();
    assert_eq!((dependency.container_name.as_str(), dependency.condition), ("log_router", Condition::Start));
    assert_eq!((of(&definition, 0), of(&definition, 2)), (None, None));
    definition.container_definitions[1].depends_on =
        vec![Dependency { container_name: "log_router".to_owned(), condition: Condition::Healthy }];
    assert_eq!(of(&definition, 1), None);
    definition.container_definitions[1].depends_on.clear();
    definition.container_definitions[0].depends_on =
        vec![Dependency { container_name: "x".to_owned(), condition: Condition::Start }];
    assert_eq!(of(&definition, 1), None);
}

#[test]
fn the_log_driver_is_told_what_the_ecs_agent_tells_it() {
    let options = driver_options(&app(), "0f1e", "/data/firelens/0f1e/socket/fluent.sock");
    let want = [
        ("fluentd-address", "unix:///data/firelens/0f1e/socket/fluent.sock"),
        ("fluentd-async", "true"),
        ("fluentd-buffer-limit", "2097152"),
        ("fluentd-sub-second-precision", "true"),
        ("tag", "app-firelens-0f1e"),
    ];
    assert_eq!(options, map(&want));
}
