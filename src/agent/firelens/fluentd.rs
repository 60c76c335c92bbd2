//! The configuration of a router of type `fluentd`, as the ECS agent writes it.
//!
//! Enters: what containers want of the router. Leaves: the file's text. It is generated and checked; only a runtime with
//! images can run Fluentd.

use std::fmt::Write;

use super::options::Options;
use super::{Context, PORT, Route, routes};
use crate::agent::definition::TaskDefinition;

fn section(text: &mut String, name: &str, pattern: &str, lines: &[(&str, &str)]) {
    let end = if pattern.is_empty() { "" } else { " " };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n<{name}{end}{pattern}>\n");
    for (key, value) in lines {
        let _ = writeln!(text, "    {key} {value}");
    }
    let _ = writeln!(text, "</{name}>");
}

fn grep(text: &mut String, route: &Route, kind: &str, pattern: &str) {
    let _ = write!(
        text,
        "\n<filter {}>\n    @type  grep\n    <{kind}>\n        key log\n        pattern {pattern}\n    </{kind}>\n</filter>\n",
        route.pattern
    );
}

pub(super) fn text(definition: &TaskDefinition, options: &Options, cx: &Context) -> Result<String, String> {
    let routes = routes(definition, options.kind)?;
    let mut text = String::new();
    section(&mut text, "source", "", &[("@type", "unix"), ("path", "/var/run/fluent.sock")]);
    let port = PORT.to_string();
    if let Some(listen) = cx.listens() {
        section(&mut text, "source", "", &[("@type", "forward"), ("bind", listen), ("port", &port)]);
    }
    for route in &routes {
        if let Some(pattern) = &route.include {
            grep(&mut text, route, "regexp", pattern);
        }
    }
    for route in &routes {
        if let Some(pattern) = &route.exclude {
            grep(&mut text, route, "exclude", pattern);
        }
    }
    if options.metadata {
        let _ = write!(text, "\n<filter **>\n    @type record_transformer\n    <record>\n");
        for (key, value) in cx.metadata(definition) {
            let _ = writeln!(text, "        {key} {value}");
        }
        let _ = write!(text, "    </record>\n</filter>\n");
    }
    if let Some(path) = options.include() {
        let _ = write!(text, "\n@include {path}\n");
    }
    for route in &routes {
        if let Some((plugin, options)) = &route.output {
            let lines: Vec<(&str, &str)> = [("@type", plugin.as_str())]
                .into_iter()
                .chain(options.iter().map(|(key, value)| (key.as_str(), value.as_str())))
                .collect();
            section(&mut text, "match", &route.pattern, &lines);
        }
    }
    Ok(text)
}
