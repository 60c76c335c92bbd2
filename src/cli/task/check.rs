//! `firelane task check`: what ECS would refuse, what one machine cannot honour, what the router would refuse.
//!
//! Enters: files. Leaves: findings, each with its path, and an exit code. Can go wrong: a file cannot be read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::read;
use crate::agent::definition::TaskDefinition;
use crate::agent::firelens;
use crate::cli::{EXIT_USAGE, complain, flags, job, say};
use crate::config::{self, SectionKind};

#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// Task definitions
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Says what is wrong with each file. 0: ECS would take all of them.
pub(super) fn check(args: &Check) -> ExitCode {
    let mut code = 0;
    for file in &args.files {
        match read(file) {
            Ok(Some(definition)) => {
                router(file, &definition);
                say(&format!(
                    "{}: {}: good, containers: {}\n",
                    file.display(),
                    definition.family,
                    definition.container_definitions.len()
                ));
            }
            Ok(None) => code = EXIT_USAGE,
            Err(e) => {
                complain("error", e);
                code = EXIT_USAGE;
            }
        }
    }
    ExitCode::from(code)
}

/// A value whose variables hold something: what, is known where the router runs. 1 is a number, a name, and a switch.
fn filled(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${")
        && let Some((_, behind)) = after.split_once('}')
    {
        out.push_str(before);
        out.push('1');
        rest = behind;
    }
    out + rest
}

/// Checks what the router would be told, as `firelane check` does: a plugin that is not built, an option that it does not
/// have. The user's own part of the configuration is in an image or in S3, and not looked at.
fn router(file: &Path, definition: &TaskDefinition) {
    let Some(config) = firelens::router(definition).and_then(|r| r.firelens_configuration.as_ref()) else {
        return;
    };
    let Ok(options) = firelens::Options::read(config) else { return };
    if options.kind != firelens::Kind::Fluentbit {
        return complain(
            "warning",
            format_args!("{}: a router of type fluentd runs with Docker only", file.display()),
        );
    }
    for (at, container) in definition.container_definitions.iter().enumerate() {
        let Some(log) = container.log_configuration.as_ref().filter(|_| firelens::logs_through(container))
        else {
            continue;
        };
        let Some(name) = log.options.get("Name") else { continue };
        let consumed = ["Name", "include-pattern", "exclude-pattern", "log-driver-buffer-limit"];
        let mut entries = vec![("Name".to_owned(), name.clone()), ("Match".to_owned(), "*".to_owned())];
        let plain = log.options.iter().filter(|(key, _)| !consumed.contains(&key.as_str()));
        entries.extend(plain.map(|(key, value)| (key.clone(), filled(value))));
        // What a secret holds is not known here; that its option exists is.
        entries.extend(log.secret_options.iter().map(|s| (s.name.clone(), "secret".to_owned())));
        let output = config::section(SectionKind::Output, entries, flags::PLACE);
        let path = format!("{}: containerDefinitions[{at}].logConfiguration.options", file.display());
        for d in job::findings(output) {
            let hint = d.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            complain("warning", format_args!("{path}: {}{hint}", d.message));
        }
    }
}
