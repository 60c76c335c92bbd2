//! Fluent Bit's own command line, which has no commands: flags into the same [`Job`] that `run` makes.
//!
//! Enters: arguments. Leaves: sections of flags, in their order, as if a file held them. Can go wrong: an unknown flag or
//! one without its value.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

use super::job::Job;
use crate::config::{self, Section, SectionKind};

/// Where findings about flags stand.
pub(super) const PLACE: &str = "command line";

const WITHOUT_EFFECT: &str = "Accepted without effect yet";

/// A FireLens log router, with Fluent Bit's flags.
#[derive(Debug, Parser)]
#[command(name = "firelane", bin_name = "fluent-bit", version, arg_required_else_help = true)]
#[command(after_help = "`firelane --help` shows firelane's own commands and the exit codes.")]
pub(super) struct Flags {
    /// Configuration file, classic (.conf) or YAML (.yaml, .yml)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A parsers file; may be repeated
    #[arg(short = 'R', long = "parser", value_name = "FILE")]
    parsers: Vec<PathBuf>,
    /// Add an input
    #[arg(short, long, value_name = "PLUGIN")]
    input: Vec<String>,
    /// Add a filter
    #[arg(short = 'F', long, value_name = "PLUGIN")]
    filter: Vec<String>,
    /// Add an output
    #[arg(short, long, value_name = "PLUGIN")]
    output: Vec<String>,
    /// A key of the plugin before it
    #[arg(short, long, value_name = "KEY=VALUE", allow_hyphen_values = true)]
    prop: Vec<String>,
    /// Match of the filter or output before it
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    r#match: Vec<String>,
    /// Tag of the input before it
    #[arg(short, long, value_name = "TAG", allow_hyphen_values = true)]
    tag: Vec<String>,
    /// Seconds between flushes, unless the file says otherwise
    #[arg(short, long, value_name = "SECONDS")]
    flush: Option<String>,
    /// Write the log to a file, unless the configuration names another
    #[arg(short, long = "log_file", value_name = "FILE")]
    log_file: Option<String>,
    /// More log: -v debug, -vv trace
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    /// No log, no warnings
    #[arg(short, long)]
    quiet: bool,
    /// Validate the configuration and exit
    #[arg(short = 'D', long = "dry-run")]
    dry_run: bool,
    /// Change to this directory first
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Refuse what Fluent Bit passes over in silence (firelane's own flag)
    #[arg(long)]
    strict: bool,
    /// Passed over with a warning: firelane's plugins are built in
    #[arg(short = 'e', long = "plugin", value_name = "FILE.so")]
    plugins: Vec<String>,
    /// Where records are kept (storage.path)
    #[arg(short = 'b', long = "storage_path", value_name = "DIR")]
    storage_path: Option<String>,
    /// The HTTP server
    #[arg(help_heading = WITHOUT_EFFECT, short = 'H', long)]
    http: bool,
    /// Its address
    #[arg(help_heading = WITHOUT_EFFECT, short = 'L', long = "http_listen", value_name = "ADDRESS")]
    http_listen: Option<String>,
    /// Its port
    #[arg(help_heading = WITHOUT_EFFECT, short = 'P', long, value_name = "PORT")]
    port: Option<String>,
    /// Run in the background
    #[arg(help_heading = WITHOUT_EFFECT, short, long)]
    daemon: bool,
    /// Stack of a coroutine
    #[arg(help_heading = WITHOUT_EFFECT, short = 's', long = "coro_stack_size", value_name = "BYTES")]
    coro_stack_size: Option<String>,
    /// Reload on a signal
    #[arg(help_heading = WITHOUT_EFFECT, short = 'Y', long = "enable-hot-reload")]
    hot_reload: bool,
    /// Reload with less care
    #[arg(help_heading = WITHOUT_EFFECT, short = 'W', long = "disable-thread-safety-on-hot-reloading")]
    unsafe_reload: bool,
    /// Trace chunks
    #[arg(help_heading = WITHOUT_EFFECT, short = 'Z', long = "enable-chunk-trace")]
    chunk_trace: bool,
    /// FIPS mode
    #[arg(help_heading = WITHOUT_EFFECT, long = "enable-fips")]
    fips: bool,
    /// A support report
    #[arg(help_heading = WITHOUT_EFFECT, short = 'S', long)]
    sosreport: bool,
    /// A supervising parent
    #[arg(help_heading = WITHOUT_EFFECT, long)]
    supervisor: bool,
    /// A pipeline for traces
    #[arg(help_heading = WITHOUT_EFFECT, long = "trace", value_name = "PIPELINE")]
    trace: Option<String>,
    /// Its input
    #[arg(help_heading = WITHOUT_EFFECT, long = "trace-input", value_name = "INPUT")]
    trace_input: Option<String>,
    /// Its output
    #[arg(help_heading = WITHOUT_EFFECT, long = "trace-output", value_name = "OUTPUT")]
    trace_output: Option<String>,
    /// A key of its output
    #[arg(help_heading = WITHOUT_EFFECT, long = "trace-output-property", value_name = "KEY=VALUE")]
    trace_output_property: Vec<String>,
    /// A custom plugin (refused)
    #[arg(help_heading = WITHOUT_EFFECT, short = 'C', long, value_name = "PLUGIN")]
    custom: Vec<String>,
    /// A stream processor task (refused; use -F rewrite_tag)
    #[arg(help_heading = WITHOUT_EFFECT, short = 'T', long = "sp-task", value_name = "SQL")]
    sp_task: Vec<String>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

/// Reads Fluent Bit's flags.
pub(super) fn parse(args: &[OsString]) -> Result<Job, clap::Error> {
    let matches = Flags::command().try_get_matches_from(args)?;
    let flags = Flags::from_arg_matches(&matches)?;
    let mut job = Job {
        config: flags.config.clone(),
        parsers: flags.parsers.clone(),
        strict: flags.strict,
        verbose: flags.verbose,
        quiet: flags.quiet,
        dry_run: flags.dry_run,
        workdir: flags.workdir.clone(),
        ..Job::default()
    };
    job.sections.extend(service(&flags));
    plugins(&matches, &mut job);
    let plugin_files = flags.plugins.iter().map(|file| format!("-e {file}: firelane's plugins are built in"));
    let names = [
        (flags.sosreport, "-S"),
        (flags.supervisor, "--supervisor"),
        (flags.trace.is_some(), "--trace"),
        (flags.trace_input.is_some(), "--trace-input"),
        (flags.trace_output.is_some(), "--trace-output"),
        (!flags.trace_output_property.is_empty(), "--trace-output-property"),
    ];
    let without =
        names.iter().filter(|(given, _)| *given).map(|(_, name)| format!("{name}: no effect in firelane"));
    let rest = flags.rest.iter().map(|word| format!("\"{word}\": no flag"));
    job.passed_over.extend(plugin_files.chain(without).chain(rest));
    job.refused.extend(
        flags.custom.iter().map(|name| format!("-C {name}: custom plugins are not built into firelane")),
    );
    job.refused.extend(flags.sp_task.iter().map(|_| {
        "-T: the stream processor is not supported; use a filter instead: -F rewrite_tag".to_owned()
    }));
    Ok(job)
}

/// Whether these arguments are Fluent Bit's: by the program's name, or because they begin with a flag.
pub(super) fn are_flags(args: &[OsString], commands: &[&str]) -> bool {
    let text = |n: usize| args.get(n).map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
    let (program, first) = (text(0), text(1));
    let name = Path::new(&program).file_name().map(|n| n.to_string_lossy().into_owned());
    if commands.contains(&first.as_str()) {
        return false;
    }
    name.is_some_and(|n| n == "fluent-bit" || n == "td-agent-bit")
        || (first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first.as_str()))
}

/// Flags that are keys of `[SERVICE]`.
fn service(flags: &Flags) -> Option<Section> {
    let on = |given: bool, value: &str| given.then(|| value.to_owned());
    let keys = [
        ("flush", flags.flush.clone()),
        ("log_file", flags.log_file.clone()),
        ("storage.path", flags.storage_path.clone()),
        ("http_server", on(flags.http, "on")),
        ("http_listen", flags.http_listen.clone()),
        ("http_port", flags.port.clone()),
        ("daemon", on(flags.daemon, "on")),
        ("coro_stack_size", flags.coro_stack_size.clone()),
        ("hot_reload", on(flags.hot_reload, "on")),
        ("hot_reload.ensure_thread_safety", on(flags.unsafe_reload, "off")),
        ("enable_chunk_trace", on(flags.chunk_trace, "on")),
        ("security.fips_mode", on(flags.fips, "on")),
    ];
    let entries: Vec<_> =
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!entries.is_empty()).then(|| config::section(SectionKind::Service, entries, PLACE))
}

/// `-i NAME -p key=value -F NAME -m MATCH -o NAME`: each key belongs to the plugin before it.
fn plugins(matches: &ArgMatches, job: &mut Job) {
    let ids = ["input", "filter", "output", "prop", "match", "tag"];
    let mut given: Vec<(usize, &str, &String)> = ids
        .iter()
        .flat_map(|&id| {
            let values = matches.get_many::<String>(id).into_iter().flatten();
            let places = matches.indices_of(id).into_iter().flatten();
            places.zip(values).map(move |(at, value)| (at, id, value))
        })
        .collect();
    given.sort_by_key(|(at, ..)| *at);
    let mut open: Option<(SectionKind, Vec<(String, String)>)> = None;
    let close = |open: Option<(SectionKind, Vec<(String, String)>)>, job: &mut Job| {
        job.sections.extend(open.map(|(kind, entries)| config::section(kind, entries, PLACE)));
    };
    for (_, id, value) in given {
        let kind = match id {
            "input" => Some(SectionKind::Input),
            "filter" => Some(SectionKind::Filter),
            "output" => Some(SectionKind::Output),
            _ => None,
        };
        if let Some(kind) = kind {
            close(open.replace((kind, vec![("Name".to_owned(), value.clone())])), job);
            continue;
        }
        let pair = match id {
            "prop" => value.split_once('='),
            _ => Some((id, value.as_str())),
        };
        match (&mut open, pair) {
            // As in Fluent Bit, an input has no Match.
            (Some((SectionKind::Input, _)), Some(("match", _))) => {
                job.passed_over.push(format!("-m {value}: an input has no Match"));
            }
            (Some((_, entries)), Some((key, value))) => entries.push((key.to_owned(), value.to_owned())),
            (Some(_), None) => job.passed_over.push(format!("-p {value}: write KEY=VALUE")),
            (None, _) => job
                .passed_over
                .push(format!("--{id} {value}: it belongs to no plugin, give -i, -F or -o first")),
        }
    }
    close(open, job);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn sections(job: &Job) -> String {
        let keys = |s: &Section| {
            s.entries.iter().map(|e| format!("{}={}", e.key, e.value)).collect::<Vec<_>>().join(",")
        };
        job.sections.iter().map(|s| format!("{}{}", s.kind.title(), keys(s))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_flags_of_the_aws_image_work() {
        let job = parse(&args("fluent-bit -e /fluent-bit/cloudwatch.so -c x.conf -R p.conf -qvv -R q.conf"))
            .unwrap();
        assert_eq!(
            (job.config, job.parsers),
            (Some("x.conf".into()), vec!["p.conf".into(), "q.conf".into()])
        );
        assert!(job.quiet && job.verbose == 2 && job.sections.is_empty());
        assert_eq!(job.passed_over, ["-e /fluent-bit/cloudwatch.so: firelane's plugins are built in"]);
    }

    #[test]
    fn sections_are_made_of_flags_in_order() {
        for (line, want) in [
            (
                "f -i dummy -t a -p samples=1 -p dummy={\"a\":\"b=c\"} -o stdout -m *",
                "[INPUT]name=dummy,tag=a,samples=1,dummy={\"a\":\"b=c\"} [OUTPUT]name=stdout,match=*",
            ),
            (
                "f --input=dummy -Fgrep -m x --output stdout",
                "[INPUT]name=dummy [FILTER]name=grep,match=x [OUTPUT]name=stdout",
            ),
            (
                "f -idummy -f 0.5 -H -P 1 -o null",
                "[SERVICE]flush=0.5,http_server=on,http_port=1 [INPUT]name=dummy [OUTPUT]name=null",
            ),
        ] {
            assert_eq!(sections(&parse(&args(line)).unwrap()), want, "{line}");
        }
    }

    #[test]
    fn flags_that_belong_to_nothing_are_passed_over_and_unknown_ones_refused() {
        let job = parse(&args("f -m x -i dummy -m y -p z -S word")).unwrap();
        assert_eq!((sections(&job).as_str(), job.passed_over.len()), ("[INPUT]name=dummy", 5));
        assert_eq!(parse(&args("f -C x -T y")).unwrap().refused.len(), 2);
        assert!(parse(&args("f --nonsense")).is_err());
        assert!(parse(&args("f -c")).is_err());
    }

    #[test]
    fn the_programs_name_or_a_first_flag_tells() {
        let commands = ["run", "check"];
        for (line, want) in [
            ("/usr/bin/fluent-bit", true),
            ("fluent-bit -h", true),
            ("fluent-bit run -c x", false),
            ("firelane -c x", true),
            ("firelane -h", false),
            ("firelane --version", false),
            ("firelane check -c x", false),
            ("firelane", false),
        ] {
            assert_eq!(are_flags(&args(line), &commands), want, "{line}");
        }
    }
}
