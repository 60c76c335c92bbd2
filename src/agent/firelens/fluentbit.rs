//! The configuration of a router of type `fluentbit`, as the ECS agent writes it: also its blanks.
//!
//! Enters: what containers want of the router. Leaves: the file's text. Only the order of the containers' own sections is
//! ours, that of the definition; the ECS agent's is another each time.

use std::fmt::Write;

use super::options::Options;
use super::{Context, HEALTH_PORT, LOOPBACK, PORT, memory, routes};
use crate::agent::definition::TaskDefinition;

const HEALTH_TAG: &str = "firelens-healthcheck";

fn section(text: &mut String, name: &str, lines: &[(&str, &str)]) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\n[{name}]\n");
    for (key, value) in lines {
        let _ = writeln!(text, "    {key} {value}");
    }
}

pub(super) fn text(definition: &TaskDefinition, options: &Options, cx: &Context) -> Result<String, String> {
    let routes = routes(definition, options.kind)?;
    let mut text = String::new();
    let memory = format!("{}MB", memory(definition));
    let socket = [("Name", "forward"), ("Mem_Buf_Limit", &memory), ("unix_path", "/var/run/fluent.sock")];
    section(&mut text, "INPUT", &socket);
    let (port, health_port) = (PORT.to_string(), HEALTH_PORT.to_string());
    if let Some(listen) = cx.listens() {
        section(&mut text, "INPUT", &[("Name", "forward"), ("Listen", listen), ("Port", &port)]);
        let health = [("Name", "tcp"), ("Tag", HEALTH_TAG), ("Listen", LOOPBACK), ("Port", &health_port)];
        section(&mut text, "INPUT", &health);
    }
    for route in &routes {
        if let Some(pattern) = &route.include {
            let lines = [("Name  ", "grep"), ("Match", &route.pattern), ("Regex  log", pattern)];
            section(&mut text, "FILTER", &lines);
        }
    }
    for route in &routes {
        if let Some(pattern) = &route.exclude {
            let lines = [("Name  ", "grep"), ("Match", &route.pattern), ("Exclude log", pattern)];
            section(&mut text, "FILTER", &lines);
        }
    }
    if options.metadata {
        let fields = cx.metadata(definition);
        let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key} {value}")).collect();
        let lines: Vec<(&str, &str)> = [("Name", "record_modifier"), ("Match", "*")]
            .into_iter()
            .chain(fields.iter().map(|field| ("Record", field.as_str())))
            .collect();
        section(&mut text, "FILTER", &lines);
    }
    if let Some(path) = options.include() {
        let _ = write!(text, "\n@INCLUDE {path}\n");
    }
    if cx.listens().is_some() {
        section(&mut text, "OUTPUT", &[("Name", "null"), ("Match", HEALTH_TAG)]);
    }
    for route in &routes {
        if let Some((plugin, options)) = &route.output {
            let lines: Vec<(&str, &str)> = [("Name", plugin.as_str()), ("Match", route.pattern.as_str())]
                .into_iter()
                .chain(options.iter().map(|(key, value)| (key.as_str(), value.as_str())))
                .collect();
            section(&mut text, "OUTPUT", &lines);
        }
    }
    Ok(text)
}
