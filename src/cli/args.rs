//! The command line as typed values, and the translation of Fluent Bit's flags into it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  firelane run -c /fluent-bit/etc/fluent-bit.conf   run with the configuration that ECS wrote
  firelane check -c router.yaml                     validate everything, send nothing
  firelane explain                                  list inputs, filters and outputs
  firelane explain filter grep                      the keys of a plugin
  firelane -i dummy -o stdout -m '*'                Fluent Bit's flags, without a file

Fluent Bit's flags (-c -R -i -F -o -m -t -p -f -l -q -v -e -D -V ...) work without a command, also when the program is
called fluent-bit.

Exit codes:
  0  nothing that was accepted was lost
  1  accepted records were given up, a port could not be opened, or a task failed
  2  the configuration or the command line was refused";

/// A FireLens log router: forward in, filters, files and more out, with Fluent Bit's configuration.
#[derive(Debug, Parser)]
#[command(name = "firelane", version, after_help = EXAMPLES)]
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
    /// List plugins, or the keys of one with their defaults
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Configuration file, classic (.conf) or YAML (.yaml, .yml)
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A further parsers file; may be repeated
    #[arg(short = 'R', long = "parser", value_name = "FILE")]
    pub(super) parsers: Vec<PathBuf>,
    /// Refuse what Fluent Bit passes over in silence (unset variables, unknown [SERVICE] keys, ...)
    #[arg(long)]
    pub(super) strict: bool,
    /// Seconds that records without an ack may wait in an output
    #[arg(short, long, value_name = "SECONDS")]
    pub(super) flush: Option<String>,
    /// Write the log to a file
    #[arg(short, long, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// More log: -v debug, -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// No log
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Validate and exit, as `check`
    #[arg(short = 'D', long)]
    pub(super) dry_run: bool,
    /// Change to this directory first
    #[arg(short, long, value_name = "DIR")]
    pub(super) workdir: Option<PathBuf>,
    /// Accepted for Fluent Bit's sake: firelane has its plugins built in
    #[arg(short = 'e', long = "plugin", value_name = "FILE.so")]
    pub(super) plugins: Vec<String>,
    /// A section made of flags: KIND=NAME or KEY=VALUE, filled in by the translation of -i -F -o -m -t -p
    #[arg(long = "section", hide = true)]
    pub(super) sections: Vec<String>,
    /// Flags of Fluent Bit that have no effect here, for a warning
    #[arg(long = "passed-over", hide = true)]
    pub(super) passed_over: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// input, filter, output, or a plugin's name
    pub(super) what: Option<String>,
    /// The plugin's name
    pub(super) name: Option<String>,
}

/// Flags of Fluent Bit that take a value and are passed over.
const PASSED_WITH_VALUE: &[&str] = &[
    "-b",
    "--storage_path",
    "-C",
    "--custom",
    "-L",
    "--http_listen",
    "-P",
    "--port",
    "-s",
    "--coro_stack_size",
    "-T",
    "--sp-task",
    "-r",
    "--processor",
];
/// Flags of Fluent Bit that stand alone and are passed over.
const PASSED_ALONE: &[&str] = &[
    "-d",
    "--daemon",
    "-H",
    "--http",
    "-S",
    "--sosreport",
    "-Y",
    "--enable-hot-reload",
    "-W",
    "--disable-thread-safety-on-hot-reloading",
    "-Z",
    "--enable-chunk-trace",
    "--supervisor",
    "--enable-fips",
];
/// Flags that make sections: flag, long flag, what it becomes.
const SECTION_FLAGS: &[(&str, &str, &str)] = &[
    ("-i", "--input", "input"),
    ("-F", "--filter", "filter"),
    ("-o", "--output", "output"),
    ("-m", "--match", "match"),
    ("-t", "--tag", "tag"),
];

/// Fluent Bit's command line has no commands: without one, `run` is meant, and its other flags are translated.
pub(super) fn translate(args: &[OsString]) -> Vec<OsString> {
    let text = |a: &OsString| a.to_string_lossy().into_owned();
    let first = args.get(1).map(text).unwrap_or_default();
    let commands = ["run", "check", "explain", "help"];
    if commands.contains(&first.as_str()) || ["-h", "--help", "-V", "--version"].contains(&first.as_str()) {
        return args.to_vec();
    }
    let mut out: Vec<OsString> = args.first().cloned().into_iter().collect();
    if args.len() < 2 {
        out.push("--help".into());
        return out;
    }
    out.push("run".into());
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        let flag = text(arg);
        let mut value = || rest.next().map(text).unwrap_or_default();
        if let Some((.., kind)) =
            SECTION_FLAGS.iter().find(|(short, long, _)| *short == flag || *long == flag)
        {
            out.extend(["--section".into(), format!("{kind}={}", value()).into()]);
        } else if flag == "-p" || flag == "--prop" {
            out.extend(["--section".into(), value().into()]);
        } else if PASSED_WITH_VALUE.contains(&flag.as_str()) {
            value();
            out.extend(["--passed-over".into(), flag.into()]);
        } else if PASSED_ALONE.contains(&flag.as_str()) {
            out.push(format!("--passed-over={flag}").into());
        } else if flag == "--log_file" {
            out.push("--log-file".into());
        } else {
            out.push(arg.clone());
        }
    }
    // `--passed-over -b` would read -b as a flag of its own.
    let mut fixed = Vec::with_capacity(out.len());
    let mut out = out.into_iter();
    while let Some(arg) = out.next() {
        if arg == "--passed-over" || arg == "--section" {
            let value = out.next().map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
            fixed.push(format!("{}={value}", arg.to_string_lossy()).into());
        } else {
            fixed.push(arg);
        }
    }
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Run {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        match Cli::try_parse_from(translate(&args)).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn fluent_bits_flags_work_without_a_command() {
        let run = parse("fluent-bit -e cloudwatch.so -c x.conf -R p.conf -q -b /st -H");
        assert_eq!(run.config, Some("x.conf".into()));
        assert_eq!(run.parsers, [PathBuf::from("p.conf")]);
        assert!(run.quiet);
        assert_eq!(run.passed_over, ["-b", "-H"]);
    }

    #[test]
    fn sections_are_made_of_flags_in_order() {
        let run = parse("firelane -i dummy -t a -p samples=1 -o stdout -m *");
        assert_eq!(run.sections, ["input=dummy", "tag=a", "samples=1", "output=stdout", "match=*"]);
    }
}
