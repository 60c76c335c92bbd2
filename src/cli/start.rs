//! `run` and `check`: load, build, say what was found, go.

use std::process::ExitCode;

use super::EXIT_USAGE;
use super::args::Run;
use crate::config::{self, Diagnostics, Document, Entry, Env, Level, Pos, SectionKind, Service};
use crate::observe::log;
use crate::pipeline::Pipeline;

/// Everything before the first port opens.
fn prepare(args: &Run) -> (Pipeline, Service, Diagnostics) {
    let mut diags = Diagnostics::new();
    let mut env = Env::of_process();
    let mut document = match &args.config {
        Some(path) => config::load(path, &args.parsers, &mut env, &mut diags),
        None => Document { main: "command line".into(), ..Document::default() },
    };
    add_sections(&mut document, &args.sections, &mut diags);
    let flag = |key: &str, value: &str| Entry {
        key: key.to_owned(),
        written: key.to_owned(),
        value: value.to_owned(),
        pos: Pos::new("command line", 0),
    };
    if let Some(seconds) = &args.flush {
        document.service.push(flag("flush", seconds));
    }
    for name in &args.passed_over {
        diags.warn(Some(&Pos::new("command line", 0)), format!("{name} has no effect in firelane yet"));
    }
    for plugin in &args.plugins {
        let pos = Pos::new("command line", 0);
        diags.warn(Some(&pos), format!("-e {plugin} is passed over: firelane's plugins are built in"));
    }
    let mut service = Service::read(&document.service, &env, &mut diags);
    if let Some(path) = &args.log_file {
        service.log_file = Some(path.clone());
    }
    match (args.quiet, args.verbose) {
        (true, _) => service.log_level = "off".into(),
        (_, 0) => {}
        (_, 1) => service.log_level = "debug".into(),
        (_, _) => service.log_level = "trace".into(),
    }
    let pipeline = Pipeline::build(&document, &service, &mut diags);
    (pipeline, service, diags)
}

/// `-i NAME -p key=value -o NAME -m MATCH` as sections.
fn add_sections(document: &mut Document, flags: &[String], diags: &mut Diagnostics) {
    let mut open: Option<(SectionKind, Vec<(String, String)>)> = None;
    let mut done = Vec::new();
    for flag in flags {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        let kind = match key {
            "input" => Some(SectionKind::Input),
            "filter" => Some(SectionKind::Filter),
            "output" => Some(SectionKind::Output),
            _ => None,
        };
        match (kind, &mut open) {
            (Some(kind), _) => done.extend(open.replace((kind, vec![("Name".into(), value.into())]))),
            (None, Some((_, entries))) => entries.push((key.to_owned(), value.to_owned())),
            (None, None) => diags.error(
                Some(&Pos::new("command line", 0)),
                format!("{key}={value} belongs to no plugin: give -i, -F or -o first"),
            ),
        }
    }
    done.extend(open);
    for (kind, entries) in done {
        let section = config::section(kind, entries, "command line");
        match kind {
            SectionKind::Input => document.inputs.push(section),
            SectionKind::Filter => document.filters.push(section),
            _ => document.outputs.push(section),
        }
    }
}

/// Prints what was found. Level words are those of a compiler, because that is how one reads them.
fn show(diags: &Diagnostics, strict: bool, quiet: bool) {
    for d in diags.iter() {
        let word = match d.level {
            Level::Error => "error",
            Level::Strict if strict => "error",
            Level::Strict | Level::Warning => "warning",
        };
        if word == "error" || !quiet {
            eprintln!("{word}: {d}");
        }
    }
}

pub(super) fn run(args: &Run) -> ExitCode {
    if let Some(dir) = &args.workdir
        && let Err(e) = std::env::set_current_dir(dir)
    {
        eprintln!("error: cannot change to {}: {e}", dir.display());
        return ExitCode::from(EXIT_USAGE);
    }
    if args.dry_run {
        return check(args);
    }
    let (pipeline, service, diags) = prepare(args);
    show(&diags, args.strict, service.log_level == "off");
    if diags.refused(args.strict) {
        eprintln!("error: the configuration is refused, nothing was started");
        return ExitCode::from(EXIT_USAGE);
    }
    if let Err(e) = log::init(&service.log_level, service.log_file.as_deref()) {
        eprintln!("error: {e}");
        return ExitCode::from(EXIT_USAGE);
    }
    pipeline.run()
}

pub(super) fn check(args: &Run) -> ExitCode {
    let (_, _, diags) = prepare(args);
    show(&diags, true, false);
    if diags.refused(true) {
        eprintln!("error: configuration test failed");
        return ExitCode::from(EXIT_USAGE);
    }
    eprintln!("configuration test is successful");
    ExitCode::SUCCESS
}
