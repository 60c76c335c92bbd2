//! What a person types: `run`, `check`, `replay`, `explain`, and Fluent Bit's own flags.
//!
//! Enters: arguments. Leaves: an exit code: 0 nothing accepted was lost; 1 accepted records were given up, or a port could
//! not be opened, or a task failed; 2 the configuration or the command line was refused.

mod agent;
mod args;
mod aws;
mod explain;
mod flags;
mod follow;
mod job;
mod task;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::agent::process;
use args::{COMMANDS, Cli, Command};

/// Exit code: the configuration or the command line was refused.
pub const EXIT_USAGE: u8 = 2;

/// Runs the command line. Without a command, or when the program is called `fluent-bit`, the flags are Fluent Bit's.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    // What the agent starts, before anything else: these live in every container's memory and start-up time.
    match args.get(1).and_then(|a| a.to_str()) {
        Some("exec-stage") => return process::exec_stage(),
        Some("supervise") => {
            let rest = args.iter().skip(2).map(|a| a.to_string_lossy().into_owned());
            return process::supervise(&rest.collect::<Vec<_>>());
        }
        _ => {}
    }
    if flags::are_flags(&args, COMMANDS) {
        return match flags::parse(&args) {
            Ok(job) => job::run(&job),
            Err(e) => usage(&e),
        };
    }
    match Cli::try_parse_from(&args) {
        Ok(Cli { command: Command::Run(run) }) => job::run(&run.into()),
        Ok(Cli { command: Command::Check(check) }) => job::check(&check.into(), true),
        Ok(Cli { command: Command::Replay(args) }) => {
            job::replay(&args.run.into(), &args.files, args.filters, args.remove)
        }
        Ok(Cli { command: Command::Task(args) }) => task::main(&args.command),
        Ok(Cli { command: Command::Agent(args) }) => agent::main(&args),
        Ok(Cli { command: Command::Explain(what) }) => {
            explain::explain(what.what.as_deref(), what.name.as_deref())
        }
        Err(e) => usage(&e),
    }
}

/// Help and version were asked for; anything else was not understood.
fn usage(e: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the stream is gone.
    let _gone = e.print();
    ExitCode::from(if e.use_stderr() { EXIT_USAGE } else { 0 })
}

/// Prints to standard output; a reader that has gone (`| head`) is no failure.
fn say(text: &str) {
    let _gone = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Prints a container's line.
fn say_line(name: &str, line: &str) {
    say(&format!("{name} | {line}\n"));
}

/// The same to standard error.
fn say_line_aside(name: &str, line: &str) {
    say_aside(format_args!("{name} | {line}"));
}

/// Prints a line to standard error.
fn say_aside(line: impl Display) {
    let _gone = writeln!(std::io::stderr().lock(), "{line}");
}

/// Prints a finding to standard error.
fn complain(level: &str, finding: impl Display) {
    say_aside(format_args!("{level}: {finding}"));
}
