//! `firelane task`: task definitions on this machine.
//!
//! Enters: a file and options. Leaves: a running task, a table of how its containers ended, the exit code of the essential
//! one. Can go wrong: the definition is refused (exit code 2, every problem with its place), or the task fails to start.

mod check;
mod options;
mod run;
mod show;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

pub(super) use self::options::{Run, Which, choices};
pub(super) use self::show::{columns, exit_code, table};
use super::{EXIT_USAGE, complain};
use crate::agent::definition::TaskDefinition;
use check::Check;

/// The largest task definition that is read.
const FILE_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Run a task definition to its end
    Run(Box<Run>),
    /// Validate task definitions: what ECS would refuse, what one machine cannot honour, plugins that are not built
    Check(Check),
}

/// Runs the command.
pub(super) fn main(command: &TaskCommand) -> ExitCode {
    match command {
        TaskCommand::Run(args) => run::run(args).unwrap_or_else(|e| {
            complain("error", e);
            ExitCode::from(EXIT_USAGE)
        }),
        TaskCommand::Check(args) => check::check(args),
    }
}

pub(super) fn read(file: &Path) -> Result<Option<TaskDefinition>, String> {
    let size = fs::metadata(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?.len();
    if size > FILE_MAX {
        return Err(format!("{} has {size} bytes; a task definition has at most {FILE_MAX}", file.display()));
    }
    let text = fs::read(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let show = |level: &str, p: &crate::agent::definition::Problem| {
        complain(level, format_args!("{}: {p}", file.display()));
    };
    let reading = crate::agent::definition::read_all(&text);
    if let Err(problems) = &reading.definition {
        problems.iter().for_each(|p| show("error", p));
    }
    reading.warnings.iter().for_each(|p| show("warning", p));
    Ok(reading.definition.ok())
}
