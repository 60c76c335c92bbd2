//! Fields that a task definition may have and one machine cannot honour: they are checked as ECS checks them, and a warning
//! names each.
//!
//! Enters: the task's or a container's object. Leaves: notes. Can go wrong: nothing.

use std::collections::BTreeSet;

use super::json::{CLIENT, Object};
use super::model::{LaunchType, TaskDefinition};
use super::read::required;
use crate::config::nearest;

/// Placement constraints of one task definition.
const CONSTRAINTS_MAX: usize = 10;
/// Tags of one task definition, or of one task.
pub const TAGS_MAX: usize = 50;
/// Characters of a tag's key and of its value.
const TAG_MAX: (usize, usize) = (128, 256);
/// GiB of ephemeral storage. The guide says 21, the API 20, which is what a task has without.
const STORAGE: std::ops::RangeInclusive<i64> = 20..=200;
/// What the plugin of App Mesh is told.
const PROXY: &[&str] = &[
    "IgnoredUID",
    "IgnoredGID",
    "AppPorts",
    "ProxyIngressPort",
    "ProxyEgressPort",
    "EgressIgnoredPorts",
    "EgressIgnoredIPs",
];

/// Of the task, whose containers have been read.
pub(super) fn task(o: &Object<'_>, d: &TaskDefinition) {
    let fargate = d.launch_type == LaunchType::Fargate;
    constraints(o, fargate);
    if let Some(storage) = o.object("ephemeralStorage") {
        if !storage.has("sizeInGiB") {
            storage.notes.error(CLIENT, storage.at("sizeInGiB"), "must be given");
        }
        storage.unsigned("sizeInGiB", STORAGE);
        storage.finish();
        let why = if fargate { "the disk is the machine's" } else { "it is for Fargate only" };
        o.notes.warn(o.at("ephemeralStorage"), format!("has no effect on one machine: {why}"));
    }
    proxy(o, d);
    for accelerator in o.objects("inferenceAccelerators") {
        required(&accelerator, "deviceName");
        required(&accelerator, "deviceType");
        accelerator.finish();
    }
    tags(o);
    o.boolean("enableFaultInjection", false);
    o.cannot(&[
        ("inferenceAccelerators", "there are none"),
        ("enableFaultInjection", "there is no fault injection endpoint"),
    ]);
}

fn constraints(o: &Object<'_>, fargate: bool) {
    let list = o.objects("placementConstraints");
    if list.is_empty() {
        return;
    }
    if fargate {
        o.notes.error(CLIENT, o.at("placementConstraints"), "is not supported on Fargate");
    } else if list.len() > CONSTRAINTS_MAX {
        let text = format!("has at most {CONSTRAINTS_MAX} constraints, not {}", list.len());
        o.notes.error(CLIENT, o.at("placementConstraints"), text);
    }
    for constraint in list {
        if !constraint.has("type") {
            constraint.notes.error(CLIENT, constraint.at("type"), "must be given: memberOf");
        }
        constraint.one_of("type", &["memberOf"]);
        constraint.string("expression");
        constraint.finish();
    }
    o.cannot(&[("placementConstraints", "there is nothing to choose from")]);
}

fn proxy(o: &Object<'_>, d: &TaskDefinition) {
    let Some(proxy) = o.object("proxyConfiguration") else { return };
    proxy.one_of("type", &["APPMESH"]);
    let name = required(&proxy, "containerName");
    if !name.is_empty() && !d.container_definitions.iter().any(|c| c.name == name) {
        let text = format!("there is no container {name:?}");
        proxy.notes.error(CLIENT, proxy.at("containerName"), text);
    }
    let mut given = BTreeSet::new();
    for property in proxy.objects("properties") {
        let name = required(&property, "name");
        let value = property.string("value").unwrap_or_default();
        if !name.is_empty() && !PROXY.contains(&name.as_str()) {
            let near = nearest(&name, PROXY.iter().copied());
            let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let text = format!("has no effect: App Mesh has no property {name:?}{hint}");
            property.notes.warn(property.at("name"), text);
        }
        if !value.is_empty() {
            given.insert(name);
        }
        property.finish();
    }
    let missing = |name: &str| !given.contains(name);
    let needs = |name: &str| {
        let text = format!("App Mesh needs the property {name}");
        proxy.notes.error(CLIENT, proxy.at("properties"), text);
    };
    ["AppPorts", "ProxyIngressPort", "ProxyEgressPort"]
        .into_iter()
        .filter(|name| missing(name))
        .for_each(needs);
    if missing("IgnoredUID") && missing("IgnoredGID") {
        needs("IgnoredUID, or IgnoredGID");
    }
    proxy.finish();
    o.notes.warn(o.at("proxyConfiguration"), "has no effect on one machine: there is no App Mesh");
}

/// `tags`; DescribeTaskDefinition prints them beside the definition.
pub(super) fn tags(o: &Object<'_>) {
    let list = o.objects("tags");
    if list.len() > TAGS_MAX {
        let text = format!("has at most {TAGS_MAX} tags, not {}", list.len());
        o.notes.error(CLIENT, o.at("tags"), text);
    }
    let mut keys = BTreeSet::new();
    for tag in list {
        let key = required(&tag, "key");
        let value = tag.string("value").unwrap_or_default();
        for (field, text) in tag_problems(&key, &value) {
            tag.notes.error(CLIENT, tag.at(field), text);
        }
        if !key.is_empty() && !keys.insert(key.clone()) {
            tag.notes.error(CLIENT, tag.at("key"), format!("{key:?} is the key of another tag, too"));
        }
        tag.finish();
    }
    o.cannot(&[("tags", "there is no list of task definitions to find them in")]);
}

/// What ECS has against a tag: whether its `key` or its `value` is wrong, and why.
pub fn tag_problems(key: &str, value: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for (field, text, most) in [("key", key, TAG_MAX.0), ("value", value, TAG_MAX.1)] {
        let length = text.chars().count();
        if length > most {
            all.push((field, format!("must have at most {most} characters, not {length}")));
        }
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        all.push(("key", "must not begin with aws:, which is AWS's own".to_owned()));
    }
    all
}

/// `resourceRequirements` of a container.
pub(super) fn resources(o: &Object<'_>, fargate: bool) {
    for resource in o.objects("resourceRequirements") {
        if !resource.has("type") {
            resource.notes.error(CLIENT, resource.at("type"), "must be given: GPU or InferenceAccelerator");
        }
        let kind = resource.one_of("type", &["GPU", "InferenceAccelerator"]);
        let value = required(&resource, "value");
        if kind.is_some() && fargate {
            resource.notes.error(CLIENT, resource.at("type"), "is not supported on Fargate");
        }
        if kind == Some("GPU") && !value.is_empty() && !value.parse().is_ok_and(|n: u32| n > 0) {
            let text = format!("must be how many GPUs, from 1, not {value:?}");
            resource.notes.error(CLIENT, resource.at("value"), text);
        }
        resource.finish();
    }
    o.cannot(&[("resourceRequirements", "the agent gives out no GPUs")]);
}
