//! A task definition's own fields.
//!
//! Enters: the text of a file. Leaves: a [`Checked`] definition. Can go wrong: no JSON (with line and column), and
//! everything that ECS refuses.

use serde_json::Value;

use super::json::{CLIENT, Notes, Object, PARAMETER, Problem};
use super::model::{LaunchType, NetworkMode, TaskDefinition};
use super::{check, container, extras, volumes};

/// The largest file; ECS takes 64 KiB.
const SIZE_MAX: usize = 1 << 20;
/// Containers of one task.
const CONTAINERS_MAX: usize = 10;
/// Of more than ten containers so many are looked at: what is said of them grows with the square of their number.
const READ_MAX: usize = 100;

/// A definition that ECS would take.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// With its defaults.
    pub definition: TaskDefinition,
    /// What one machine cannot honour.
    pub warnings: Vec<Problem>,
}

/// What there is to say of a file, whether ECS would take it or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// With its defaults; or everything that is wrong with it, in the order of the file's fields.
    pub definition: Result<TaskDefinition, Vec<Problem>>,
    /// What one machine cannot honour. Known beside errors, too: who mends those need not come back for these.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file: what RegisterTaskDefinition takes, or what DescribeTaskDefinition prints.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file's fields.
pub fn read(text: &[u8]) -> Result<Checked, Vec<Problem>> {
    let Reading { definition, warnings } = read_all(text);
    definition.map(|definition| Checked { definition, warnings })
}

/// As [`read`], with the warnings of a definition that is refused.
pub fn read_all(text: &[u8]) -> Reading {
    let notes = Notes::default();
    match object(text, &notes) {
        Ok(definition) => {
            let (errors, warnings) = notes.into_both();
            Reading { definition: if errors.is_empty() { Ok(definition) } else { Err(errors) }, warnings }
        }
        Err(problem) => Reading { definition: Err(vec![problem]), warnings: Vec::new() },
    }
}

/// A definition, and notes of what is wrong with it; or why there is none in this text.
fn object(text: &[u8], notes: &Notes) -> Result<TaskDefinition, Problem> {
    let whole = |text: String| Problem { path: String::new(), kind: Some(PARAMETER), text };
    if text.len() > SIZE_MAX {
        return Err(whole(format!("the file has {} bytes, and at most {SIZE_MAX} are read", text.len())));
    }
    // Editors of Windows begin a file with a mark of its encoding.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let value: Value = serde_json::from_slice(text).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let cause = e.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default();
        whole(format!("line {line}, column {column}: this is no JSON: {cause}"))
    })?;
    let Value::Object(outer) = &value else {
        return Err(whole("a task definition is a JSON object".to_owned()));
    };
    let wrapped = outer.get("taskDefinition").and_then(Value::as_object);
    let object = match wrapped {
        Some(inner) => {
            let outside = Object::new(outer, String::new(), notes);
            outside.pass_over(&["taskDefinition", "ResponseMetadata"]);
            extras::tags(&outside);
            outside.finish();
            Object::new(inner, "taskDefinition".to_owned(), notes)
        }
        None => Object::new(outer, String::new(), notes),
    };
    Ok(definition(object))
}

fn definition(o: Object<'_>) -> TaskDefinition {
    let mut d = TaskDefinition { family: required(&o, "family"), ..TaskDefinition::default() };
    check_name(&o, "family", &d.family);
    d.revision = o.unsigned("revision", 1..=i64::from(u32::MAX)).map_or(1, |n| u32::try_from(n).unwrap_or(1));
    let kinds = o.strings("requiresCompatibilities").unwrap_or_default();
    for (n, kind) in kinds.iter().enumerate() {
        if !["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"].contains(&kind.as_str()) {
            let at = format!("{}[{n}]", o.at("requiresCompatibilities"));
            o.notes.error(
                CLIENT,
                at,
                format!("must be EC2, FARGATE, EXTERNAL or MANAGED_INSTANCES, not {kind:?}"),
            );
        }
    }
    let asks = |kind: &str| kinds.iter().any(|k| k == kind);
    d.launch_type = match (asks("FARGATE"), asks("EXTERNAL")) {
        (true, _) => LaunchType::Fargate,
        (_, true) => LaunchType::External,
        _ => LaunchType::Ec2,
    };
    let network = o.one_of("networkMode", &["bridge", "awsvpc", "host", "none"]);
    d.network_mode = match network {
        Some("awsvpc") => NetworkMode::Awsvpc,
        Some("host") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        _ => NetworkMode::Bridge,
    };
    d.cpu = units(&o, "cpu", "vcpu");
    d.memory = units(&o, "memory", "gb");
    d.task_role_arn = o.string("taskRoleArn").filter(|s| !s.is_empty());
    d.execution_role_arn = o.string("executionRoleArn").filter(|s| !s.is_empty());
    d.pid_mode = o.one_of("pidMode", &["host", "task"]).map(str::to_owned);
    d.ipc_mode = o.one_of("ipcMode", &["host", "task", "none"]).map(str::to_owned);
    platform(&o);
    d.volumes = o.objects("volumes").into_iter().map(volumes::read).collect();
    let mut containers = o.objects("containerDefinitions");
    if containers.is_empty() {
        o.notes.error(
            CLIENT,
            o.at("containerDefinitions"),
            "Container.image should not be null or empty: a task definition has 1 to 10 containers",
        );
    } else if containers.len() > CONTAINERS_MAX {
        let text =
            format!("a task definition has at most {CONTAINERS_MAX} containers, not {}", containers.len());
        o.notes.error(CLIENT, o.at("containerDefinitions"), text);
    }
    let path = o.at("containerDefinitions");
    containers.truncate(READ_MAX);
    // What is no size has been refused as such: it is not missing, too.
    let own_memory = d.launch_type != LaunchType::Fargate && !o.has("memory");
    d.container_definitions =
        containers.into_iter().map(|c| container::read(c, d.launch_type, own_memory)).collect();
    extras::task(&o, &d);
    o.pass_over(&[
        // What DescribeTaskDefinition adds.
        "taskDefinitionArn",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
        "deregisteredAt",
    ]);
    check::task(&d, &o, &path);
    o.finish();
    d
}

/// A string that must be there, and say something.
pub(super) fn required(o: &Object<'_>, name: &'static str) -> String {
    if !o.has(name) {
        o.notes.error(CLIENT, o.at(name), "must be given");
    }
    let text = o.string(name);
    if text.as_deref() == Some("") {
        o.notes.error(CLIENT, o.at(name), "must not be empty");
    }
    text.unwrap_or_default()
}

/// Whether it stands for something that whoever uses the file puts in: `<arn-of-file>`, `${NAME}`.
pub(super) fn is_placeholder(text: &str) -> bool {
    text.contains(['<', '>', '{', '}', '$'])
}

/// At most 255 of letters, digits, `-` and `_`.
pub(super) fn check_name(o: &Object<'_>, field: &'static str, name: &str) {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() > 255 || !name.chars().all(good) {
        let text = format!(
            "{name:?} must be at most 255 letters (uppercase and lowercase), numbers, underscores, and hyphens"
        );
        o.notes.error(CLIENT, o.at(field), text);
    }
}

/// `"1024"`, `"1 vCPU"`; `"2048"`, `"2 GB"`. Numbers without quotes are taken, too: files have them.
fn units(o: &Object<'_>, name: &'static str, unit: &str) -> Option<u64> {
    let text = match o.get(name)? {
        Value::Number(n) => n.to_string(),
        Value::String(text) => text.trim().to_lowercase(),
        _ => String::new(),
    };
    let plain = text.parse::<u64>().ok();
    let big = || {
        let number = text.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        (number > 0.0 && number < 1e6).then_some((number * 1024.0) as u64)
    };
    let found = plain.or_else(big).filter(|n| *n > 0);
    if found.is_none() {
        let example = if unit == "vcpu" { "\"1024\" or \"1 vCPU\"" } else { "\"2048\" or \"2 GB\"" };
        o.notes.error(CLIENT, o.at(name), format!("must be a size like {example}, not {text:?}"));
    }
    found
}

fn platform(o: &Object<'_>) {
    let Some(p) = o.object("runtimePlatform") else { return };
    let families = [
        "LINUX",
        "WINDOWS_SERVER_2016_FULL",
        "WINDOWS_SERVER_2019_FULL",
        "WINDOWS_SERVER_2019_CORE",
        "WINDOWS_SERVER_2022_FULL",
        "WINDOWS_SERVER_2022_CORE",
        "WINDOWS_SERVER_2004_CORE",
        "WINDOWS_SERVER_20H2_CORE",
        "WINDOWS_SERVER_2025_FULL",
        "WINDOWS_SERVER_2025_CORE",
    ];
    let family = p.one_of("operatingSystemFamily", &families);
    if family.is_some_and(|f| f != "LINUX") {
        p.notes.error(CLIENT, p.at("operatingSystemFamily"), "this machine runs Linux containers only");
    }
    let architecture = p.one_of("cpuArchitecture", &["X86_64", "ARM64"]);
    let here = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X86_64" };
    if let Some(other) = architecture.filter(|a| *a != here) {
        p.notes.warn(
            p.at("cpuArchitecture"),
            format!("has no effect on one machine: this one is {here}, not {other}"),
        );
    }
    p.finish();
}
