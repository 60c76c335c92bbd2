//! What a person types: `run`, `check`, `explain`, and Fluent Bit's own flags.
//!
//! Enters: arguments. Leaves: an exit code: 0 nothing accepted was lost; 1 accepted records were given up, or a port could
//! not be opened, or a task failed; 2 the configuration or the command line was refused.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where firelane speaks to a person")]

mod args;
mod explain;
mod start;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// Exit code: the configuration or the command line was refused.
pub const EXIT_USAGE: u8 = 2;

/// Runs the command line; the program's name decides nothing, Fluent Bit's flags work under any name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::try_parse_from(args::translate(&args)) {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { EXIT_USAGE } else { 0 };
            // Nobody is left to tell when standard error is gone.
            let _gone = e.print();
            return ExitCode::from(code);
        }
    };
    match cli.command {
        Command::Run(run) => start::run(&run),
        Command::Check(check) => start::check(&check),
        Command::Explain(what) => explain::explain(what.what.as_deref(), what.name.as_deref()),
    }
}
