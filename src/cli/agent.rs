//! `firelane agent`: the daemon, and what asks it.
//!
//! Enters: options. Leaves: a daemon until SIGTERM or SIGINT, which leaves its tasks running; or a table of its tasks, lines of
//! their containers, exit codes. Can go wrong: no daemon answers, there is no such task; each is said in a sentence.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_USAGE, complain, say, say_aside, say_line, say_line_aside, task};
use crate::agent::daemon::{self, Ask, Client, Record, Said, Settings, Which};
use crate::agent::docker::{DockerRuntime, Lines};
use crate::agent::secrets;
use crate::observe::log;
use crate::rt::{Tasks, pages};

pub(super) const HELP: &str = "\
Without a command it is the daemon, in the foreground: let your init system start it again when it ends. SIGTERM and SIGINT end
the daemon and leave its tasks running; the next one takes them over. `firelane agent stop --all` stops tasks.

A TASK is its id, its ARN, or how its id begins.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Agent {
    #[command(flatten)]
    daemon: Daemon,
    #[command(subcommand)]
    command: Option<AgentCommand>,
}

#[derive(Debug, Args)]
struct State {
    /// The directory of the daemon: its socket, its records, the files of tasks [default: /var/lib/firelane for root, else
    /// ~/.local/state/firelane]
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
}

impl State {
    fn dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(daemon::default_state)
    }
}

#[derive(Debug, Args)]
struct Daemon {
    #[command(flatten)]
    state: State,
    /// Minutes that files of ended tasks are kept
    #[arg(long, default_value_t = 180, value_name = "MINUTES")]
    keep: u64,
    /// More log: debug
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Have the daemon run a task definition; prints the task's ARN
    Run(Box<RunArgs>),
    /// List tasks
    Ps(PsArgs),
    /// Stop tasks in order, the router last
    Stop(StopArgs),
    /// Print what containers wrote, where it goes to files
    Logs(LogsArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    state: State,
    /// Wait for the end, and exit with the code of the essential container
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    run: task::Run,
}

#[derive(Debug, Args)]
struct PsArgs {
    #[command(flatten)]
    state: State,
    /// Those that have ended, too
    #[arg(short, long)]
    all: bool,
    /// One JSON object a task
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct StopArgs {
    #[command(flatten)]
    state: State,
    /// Tasks
    #[arg(required_unless_present = "all", value_name = "TASK")]
    tasks: Vec<String>,
    /// All that run
    #[arg(long, conflicts_with = "tasks")]
    all: bool,
    /// For stoppedReason
    #[arg(long, default_value = "Task stopped by user")]
    reason: String,
    /// Do not wait until they have stopped
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct LogsArgs {
    #[command(flatten)]
    state: State,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// The task
    task: String,
    /// Only of this container
    container: Option<String>,
}

/// Runs the command.
pub(super) fn main(args: &Agent) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain("error", format_args!("cannot start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match &args.command {
            None => serve(&args.daemon).await,
            Some(AgentCommand::Run(args)) => run(args).await,
            Some(AgentCommand::Ps(args)) => ps(args).await,
            Some(AgentCommand::Stop(args)) => stop(args).await,
            Some(AgentCommand::Logs(args)) => logs(args).await,
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            complain("error", e);
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &Daemon) -> Result<u8, String> {
    if args.verbose {
        log::init("debug", None)?;
    } else {
        log::init_without_sdk("info");
    }
    let state = args.state.dir();
    let program = std::env::current_exe().map_err(|e| format!("cannot find firelane itself: {e}"))?;
    let keep = Duration::from_secs(args.keep.saturating_mul(60));
    let failed = |e: std::io::Error| format!("cannot run an agent in {}: {e}", state.display());
    let agent = daemon::Agent::open(Settings { state: state.clone(), program, keep }).map_err(failed)?;
    let (int, term) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut int, mut term) = (int.map_err(failed)?, term.map_err(failed)?);
    let adopted = agent.resume();
    tracing::info!(state = %state.display(), adopted, "the agent is ready");
    pages::give_back_code();
    let end = async {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
    };
    daemon::serve(agent, end).await.map_err(failed)?;
    tracing::info!("the agent ends; its tasks run on");
    Ok(0)
}

async fn one(client: &mut Client) -> Result<Record, String> {
    match client.next().await? {
        Some(Said::Task(record)) => Ok(*record),
        other => Err(format!("the agent has said {other:?}")),
    }
}

async fn list(state: &Path) -> Result<Vec<Record>, String> {
    match Client::ask(state, &Ask::List).await?.next().await? {
        Some(Said::Tasks(all)) => Ok(all),
        other => Err(format!("the agent has said {other:?}")),
    }
}

/// Waits until a task has ended.
async fn ended(state: &Path, id: &str, mut report: impl FnMut(&Record)) -> Result<Record, String> {
    let mut client = Client::ask(state, &Ask::Watch { task: id.to_owned() }).await?;
    loop {
        let record = one(&mut client).await?;
        report(&record);
        if record.has_ended() {
            return Ok(record);
        }
    }
}

async fn run(args: &RunArgs) -> Result<u8, String> {
    if args.run.dir.is_some() {
        return Err("the files of an agent's tasks are in its --state; leave out --dir".to_owned());
    }
    let Some(read) = task::read(&args.run.file)? else { return Ok(EXIT_USAGE) };
    let settings = args.run.aws.settings()?;
    let definition = std::fs::read_to_string(&args.run.file)
        .map_err(|e| format!("cannot read {}: {e}", args.run.file.display()))?;
    let state = args.state.dir();
    let runtime = match args.run.runtime {
        task::Which::Auto => Which::Auto,
        task::Which::Docker => Which::Docker,
        task::Which::Process => Which::Process,
    };
    let waits = args.wait || args.run.follow;
    let line = if args.run.json { say_line_aside } else { say_line };
    let (mut records, mut warned) = (Vec::new(), BTreeSet::new());
    let mut choices = Box::new(task::choices(&args.run, &read, &state)?);
    // Where images may be pulled, that may need a password.
    choices.process = matches!(runtime, Which::Process);
    // With the rights of who runs the task: the agent is given what `--secret` would give it.
    let fetched = Box::pin(secrets::fetch(&read, &choices, &settings)).await;
    choices.fetched = fetched.map_err(|e| format!("{}: {e}", args.run.file.display()))?;
    for _ in 0..args.run.count {
        let choices = choices.clone();
        let ask = Ask::Run { definition: definition.clone(), runtime, choices };
        let record = one(&mut Client::ask(&state, &ask).await?).await?;
        // Once, however many tasks of the definition there are.
        for warning in &record.warnings {
            if warned.insert(warning.clone()) {
                complain("warning", warning);
            }
        }
        match (args.run.json, waits) {
            (false, _) => say(&format!("{}\n", record.arn)),
            (true, false) => show(&record, true),
            // Standard output is for how it ended.
            (true, true) => say_aside(&record.arn),
        }
        records.push(record);
    }
    let mut code = 0;
    if waits {
        for record in records {
            let mut told = 0;
            let report = |record: &Record| {
                let warnings = &record.view.warnings;
                warnings.iter().skip(told).for_each(|warning| complain("warning", warning));
                told = warnings.len();
            };
            let wait = ended(&state, &record.id, report);
            let record = if args.run.follow {
                followed(&state, &record, None, line, wait).await?
            } else {
                wait.await?
            };
            show(&record, args.run.json);
            code = if code == 0 { task::exit_code(&record.view) } else { code };
        }
    }
    Ok(code)
}

fn show(record: &Record, json: bool) {
    if json {
        say(&format!("{}\n", serde_json::to_string(record).unwrap_or_default()));
    } else {
        say(&task::table(&record.arn, &record.view));
    }
}

async fn ps(args: &PsArgs) -> Result<u8, String> {
    let mut all = list(&args.state.dir()).await?;
    all.retain(|r| args.all || !r.has_ended());
    if args.json {
        all.iter().for_each(|r| show(r, true));
        return Ok(0);
    }
    let mut rows = vec![["TASK", "DEFINITION", "STATUS", "AGE", "CONTAINERS", "REASON"].map(str::to_owned)];
    let now = crate::record::Time::now().millis();
    for r in &all {
        let containers: Vec<String> = r.view.containers.iter().map(container).collect();
        rows.push([
            r.id.clone(),
            format!("{}:{}", r.family, r.revision),
            if r.view.last_status.is_empty() { "PENDING".to_owned() } else { r.view.last_status.clone() },
            age(now.saturating_sub(r.created_at)),
            containers.join(" "),
            r.view.stopped_reason.clone().unwrap_or_default(),
        ]);
    }
    say(&task::columns(&rows));
    Ok(0)
}

/// `app=RUNNING`, `app=STOPPED(1)`
fn container(c: &crate::agent::engine::ContainerView) -> String {
    match c.exit_code {
        Some(code) => format!("{}={}({code})", c.name, c.last_status),
        None => format!("{}={}", c.name, c.last_status),
    }
}

/// `41s`, `3m`, `2h`, `5d`
fn age(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

async fn stop(args: &StopArgs) -> Result<u8, String> {
    let state = args.state.dir();
    let tasks = if args.all {
        list(&state).await?.into_iter().filter(|r| !r.has_ended()).map(|r| r.id).collect()
    } else {
        args.tasks.clone()
    };
    let mut code = 0;
    let mut asked = Vec::new();
    // All are asked before one is waited for.
    for task in tasks {
        let ask = Ask::Stop { task, reason: args.reason.clone() };
        match one(&mut Client::ask(&state, &ask).await?).await {
            Ok(record) => asked.push(record),
            Err(e) => {
                complain("error", e);
                code = 1;
            }
        }
    }
    for record in asked {
        if !args.no_wait {
            ended(&state, &record.id, |_| {}).await?;
        }
        say(&format!("{}\n", record.arn));
    }
    Ok(code)
}

/// The Docker engine of a task.
async fn engine(record: &Record) -> Result<DockerRuntime, String> {
    let host = if record.engine.is_empty() { DockerRuntime::host() } else { record.engine.clone() };
    DockerRuntime::connect(&host, &Tasks::new()).await.map_err(|e| e.to_string())
}

/// Shows lines of a task until `task` is done.
async fn followed<T>(
    state: &Path,
    record: &Record,
    only: Option<&str>,
    line: fn(&str, &str),
    task: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    if record.docker && !record.has_ended() {
        let engine = engine(record).await?;
        engine
            .logs_beside(&record.arn, only, &Lines::new(line), say_aside, task)
            .await
            .map_err(|e| e.to_string())?
    } else {
        super::follow::beside(&daemon::logs_dir(state, &record.id), only, line, task).await
    }
}

async fn logs(args: &LogsArgs) -> Result<u8, String> {
    let state = args.state.dir();
    let mut client = Client::ask(&state, &Ask::Watch { task: args.task.clone() }).await?;
    let record = one(&mut client).await?;
    if let Some(name) = &args.container
        && !record.view.containers.is_empty()
        && !record.view.containers.iter().any(|c| c.name == *name)
    {
        let known: Vec<&str> = record.view.containers.iter().map(|c| c.name.as_str()).collect();
        return Err(format!("task {} has no container {name}; it has {}", record.id, known.join(", ")));
    }
    let dir = daemon::logs_dir(&state, &record.id);
    let only = args.container.as_deref();
    if args.follow {
        followed(&state, &record, only, say_line, ended(&state, &record.id, |_| {})).await?;
    } else if record.docker && !record.has_ended() {
        engine(&record)
            .await?
            .logs(&record.arn, only, &Lines::new(say_line), say_aside)
            .await
            .map_err(|e| e.to_string())?;
    } else if super::follow::once(&dir, only, say_line).await == 0 {
        say_aside("no lines in files: containers that log through a router or to a service leave none here");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        assert_eq!([0, 119_999, 120_000, 7_200_000, 172_800_000].map(age), ["0s", "119s", "2m", "2h", "2d"]);
    }
}
