//! What the command line asks for, whoever's flags it was written in, and doing it: load, build, say what was found, go.

use std::path::PathBuf;
use std::process::ExitCode;

use super::flags::PLACE;
use super::{EXIT_USAGE, complain};
use crate::config::{self, Diagnostic, Diagnostics, Env, Level, Pos, Section, SectionKind, Service};
use crate::observe::log;
use crate::pipeline::{Pipeline, Replay};

/// What to run or check.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// The main file.
    pub(super) config: Option<PathBuf>,
    /// Further parsers files.
    pub(super) parsers: Vec<PathBuf>,
    /// Sections made of flags.
    pub(super) sections: Vec<Section>,
    /// Refuse what Fluent Bit passes over in silence.
    pub(super) strict: bool,
    /// 1: debug, 2: trace.
    pub(super) verbose: u8,
    /// No log.
    pub(super) quiet: bool,
    /// Check only.
    pub(super) dry_run: bool,
    /// Change to it first.
    pub(super) workdir: Option<PathBuf>,
    /// Flags that do nothing here.
    pub(super) passed_over: Vec<String>,
    /// Flags that ask for what firelane does not have.
    pub(super) refused: Vec<String>,
}

/// Loads and builds. No pipeline when the files could not be read: what follows from that would only hide it.
fn prepare(job: &Job) -> (Option<(Pipeline, Service)>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let place = Pos::new(PLACE, 0);
    for flag in &job.passed_over {
        diags.warn(Some(&place), format!("{flag}; it is passed over"));
    }
    for flag in &job.refused {
        diags.error(Some(&place), flag.as_str());
    }
    if let Some(dir) = &job.workdir
        && let Err(e) = std::env::set_current_dir(dir)
    {
        diags.error(Some(&place), format!("cannot change to {}: {e}", dir.display()));
        return (None, diags);
    }
    let mut env = Env::of_process();
    let document =
        config::load_with(job.config.as_deref(), &job.parsers, job.sections.clone(), &mut env, &mut diags);
    if diags.refused(false) {
        return (None, diags);
    }
    let mut service = Service::read(&document.service, &env, &mut diags);
    match (job.quiet, job.verbose) {
        (true, _) => service.log_level = "off".into(),
        (_, 0) => {}
        (_, 1) => service.log_level = "debug".into(),
        (_, _) => service.log_level = "trace".into(),
    }
    config::check_whole(&document, &mut diags);
    let pipeline = Pipeline::build(&document, &service, &mut diags);
    (Some((pipeline, service)), diags)
}

/// What would be refused of an output, if an input fed it.
pub(super) fn findings(output: Section) -> Vec<Diagnostic> {
    let words = |text: &str| vec![("Name".to_owned(), text.to_owned())];
    let input = config::section(SectionKind::Input, words("dummy"), PLACE);
    let (_, diags) = prepare(&Job { sections: vec![input, output], quiet: true, ..Job::default() });
    diags.iter().filter(|d| d.level == Level::Error).cloned().collect()
}

/// Says what was found. Level words are those of a compiler, because that is how one reads them.
fn show(diags: &Diagnostics, strict: bool, quiet: bool) {
    for d in diags.iter() {
        let refuses = d.level == Level::Error || (strict && d.level == Level::Strict);
        if refuses || !quiet {
            complain(if refuses { "error" } else { "warning" }, d);
        }
    }
}

/// Runs until a signal; with `dry_run` checks.
pub(super) fn run(job: &Job) -> ExitCode {
    if job.dry_run {
        return check(job, job.strict);
    }
    let (built, diags) = prepare(job);
    show(&diags, job.strict, job.quiet);
    let Some((pipeline, service)) = built.filter(|_| !diags.refused(job.strict)) else {
        complain("error", "the configuration is refused, nothing was started");
        return ExitCode::from(EXIT_USAGE);
    };
    // As in Fluent Bit, a log that cannot be written to its file is no reason to lose the records.
    if let Err(e) = log::init(&service.log_level, service.log_file.as_deref()) {
        match log::init(&service.log_level, None) {
            Ok(()) => tracing::warn!("{e}; the log goes to standard error"),
            Err(e) => complain("error", e),
        }
    }
    pipeline.run()
}

/// Sends the records of dead-letter files once more.
pub(super) fn replay(job: &Job, files: &[PathBuf], filters: bool, remove: bool) -> ExitCode {
    let (built, diags) = prepare(job);
    show(&diags, job.strict, job.quiet);
    let Some((pipeline, service)) = built.filter(|_| !diags.refused(job.strict)) else {
        complain("error", "the configuration is refused, nothing was sent");
        return ExitCode::from(EXIT_USAGE);
    };
    // Someone sits before it: what is said does not go to the log file of the router, and is not cut by its level.
    let level = if job.quiet || job.verbose > 0 { service.log_level.as_str() } else { "info" };
    let started = log::init(level, None).and_then(|()| Replay::new(files, filters, remove));
    match started {
        Ok(replay) => pipeline.replay(&replay),
        Err(e) => {
            complain("error", e);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Builds everything and starts nothing.
pub(super) fn check(job: &Job, strict: bool) -> ExitCode {
    let (built, diags) = prepare(job);
    show(&diags, strict, false);
    if built.is_none() || diags.refused(strict) {
        complain("error", "configuration test failed");
        return ExitCode::from(EXIT_USAGE);
    }
    for note in built.iter().flat_map(|(pipeline, _)| pipeline.notes()) {
        complain("note", note);
    }
    super::say_aside("configuration test is successful");
    ExitCode::SUCCESS
}
