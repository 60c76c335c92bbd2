//! The command line of `firelane`: commands and their options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::job::Job;

const REPLAY: &str = "\
Records go to the output that had given them up, as it stands in the configuration; where it has none of that name, to
those that take their tags. Inputs are not opened, storage is not touched, and an output that gives up again leaves its
records where they are: in the file. Bytes that were no record are reported and left out.

Exit codes:
  0  every record was delivered
  1  some were not, or a line is no dead letter; no file was removed
  2  the configuration or the command line was refused; nothing was sent";

const EXAMPLES: &str = "\
Examples:
  firelane run -c /fluent-bit/etc/fluent-bit.conf   run with the configuration that ECS wrote
  firelane check -c router.yaml                     validate everything, send nothing
  firelane replay DIR -c router.yaml                send dead letters once more
  firelane task run task-definition.json            run an ECS task here, its logs through its own router
  firelane agent                                    a daemon for tasks; `firelane agent run FILE`, `ps`, `stop`, `logs`
  firelane explain                                  list inputs, filters and outputs
  firelane explain filter grep                      the keys of a plugin
  firelane -i dummy -o stdout -m '*'                Fluent Bit's flags, without a command

Fluent Bit's flags (-c -R -i -F -o -m -t -p -f -l -q -v -e -D -V ...) work without a command, also when the program is
called fluent-bit; `fluent-bit --help` lists them.

Exit codes:
  0  nothing that was accepted was lost
  1  accepted records were given up, a port could not be opened, or a task failed
  2  the configuration or the command line was refused; nothing was started";

/// A FireLens log router: forward in, filters, files and more out, with Fluent Bit's configuration.
#[derive(Debug, Parser)]
#[command(name = "firelane", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run until SIGTERM or SIGINT
    Run(Run),
    /// Validate a configuration: everything is built, nothing is opened or sent
    Check(Run),
    /// Send the records of dead-letter files once more
    #[command(after_help = REPLAY)]
    Replay(Replay),
    /// Run ECS task definitions on this machine
    Task(Task),
    /// A daemon that runs tasks and survives its own end; with a command: ask it
    #[command(after_help = super::agent::HELP)]
    Agent(super::agent::Agent),
    /// List plugins, or the keys of one with their defaults
    Explain(Explain),
}

/// The names of the commands.
pub(super) const COMMANDS: &[&str] = &["run", "check", "replay", "task", "agent", "explain", "help"];

#[derive(Debug, Args)]
pub(super) struct Task {
    #[command(subcommand)]
    pub(super) command: super::task::TaskCommand,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file, classic (.conf) or YAML (.yaml, .yml)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// A further parsers file; may be repeated
    #[arg(short = 'R', long = "parser", value_name = "FILE")]
    parsers: Vec<PathBuf>,
    /// Refuse what Fluent Bit passes over in silence: unset variables, unknown sections and `[SERVICE]` keys, ...
    /// (`check` always does)
    #[arg(long)]
    strict: bool,
    /// More log: -v debug, -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// No log, no warnings
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Dead-letter files, or directories of them
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Let the configuration's filters run again: these records have passed them before
    #[arg(long)]
    pub(super) filters: bool,
    /// Remove the files once everything in them was delivered
    #[arg(long)]
    pub(super) remove: bool,
    #[command(flatten)]
    pub(super) run: Run,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// input, filter, output, service, or a plugin's name
    pub(super) what: Option<String>,
    /// The plugin's name
    pub(super) name: Option<String>,
}

impl From<Run> for Job {
    fn from(run: Run) -> Job {
        Job {
            config: Some(run.config),
            parsers: run.parsers,
            strict: run.strict,
            verbose: run.verbose,
            quiet: run.quiet,
            ..Job::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_well_made() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn run_and_check_need_a_file() {
        let Command::Run(run) =
            Cli::try_parse_from(["firelane", "run", "-c", "x", "--strict"]).unwrap().command
        else {
            panic!()
        };
        let job = Job::from(run);
        assert!(job.strict && job.config == Some("x".into()));
        assert!(Cli::try_parse_from(["firelane", "check"]).is_err());
        assert!(Cli::try_parse_from(["firelane"]).is_err());
    }
}
