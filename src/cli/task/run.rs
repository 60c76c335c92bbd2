//! `firelane task run`: tasks to their end.
//!
//! Enters: options. Leaves: running tasks, lines, a table of how their containers ended, an exit code. Can go wrong: what the
//! definition asks for is not here; a task fails to start, and says why.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::options::{self, Run, Which, choices};
use super::read;
use super::show::{exit_code, table};
use crate::agent::docker::{DockerRuntime, Lines};
use crate::agent::endpoints::{self, Base, Directory};
use crate::agent::engine::View;
use crate::agent::launch;
use crate::agent::planning::{self, Choices, Planned};
use crate::agent::process::ProcessRuntime;
use crate::agent::runtime::Runtime;
use crate::agent::secrets;
use crate::cli::{EXIT_USAGE, complain, follow, say, say_aside, say_line};
use crate::rt::Tasks;

pub(super) fn run(args: &Run) -> Result<ExitCode, String> {
    let Some(definition) = read(&args.file)? else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let program = std::env::current_exe().map_err(|e| format!("cannot find firelane itself: {e}"))?;
    let settings = args.aws.settings()?;
    let held = options::Directory::of(args)?;
    let data = &held.path;
    // What is found out beside the tasks' own states: a role that cannot be taken on, what cannot be taken down.
    crate::observe::log::init_without_sdk("warn");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let tasks = Tasks::new();
    let docker = match args.runtime {
        Which::Process => None,
        Which::Docker => Some(runtime.block_on(docker(args, &tasks))?),
        Which::Auto => match runtime.block_on(docker(args, &tasks)) {
            Ok(docker) => Some(docker),
            Err(e) => {
                // Who has named an engine means it.
                if std::env::var_os("DOCKER_HOST").is_some() {
                    complain("warning", format_args!("{e}; containers are processes of this machine"));
                }
                None
            }
        },
    };
    let docker = match docker {
        Some(docker) => {
            // Before this command holds its directory: the one that was killed may have had the same.
            match runtime.block_on(docker.orphans()) {
                Ok(all) => all.iter().for_each(|orphan| complain("warning", orphan)),
                Err(e) => complain("warning", format_args!("cannot look for tasks of killed commands: {e}")),
            }
            let held = docker.of_command(data);
            Some(held.map_err(|e| format!("cannot lock {}: {e}", data.display()))?)
        }
        None => None,
    };
    if docker.is_none() && args.replaces_images() {
        complain("warning", "--router-image and --image have no effect: the process runtime has no images");
    }
    let directory = Directory::new(&tasks);
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    let listener = listener.map_err(|e| format!("cannot listen for the tasks' containers: {e}"))?;
    let asks = listener.local_addr().map_err(|e| format!("cannot listen for the tasks' containers: {e}"))?;
    let planned = choices(args, &definition, data).map_err(|e| (EXIT_USAGE, e)).and_then(|mut choices| {
        choices.process = docker.is_none();
        choices.endpoints = Some(Base::of(asks));
        // Entering a task's network takes root.
        choices.namespaces = rustix::process::geteuid().is_root();
        let refused = |code| move |e| (code, format!("{}: {e}", args.file.display()));
        let fetched = Box::pin(secrets::fetch(&definition, &choices, &settings));
        choices.fetched = runtime.block_on(fetched).map_err(refused(1))?;
        let one = |_| {
            let choices = Choices { id: planning::hex(32), ..choices.clone() };
            planning::plan(&definition, &choices).map(|made| (made, choices)).map_err(refused(EXIT_USAGE))
        };
        (0..args.count).map(one).collect::<Result<Vec<_>, _>>()
    });
    let planned = match planned {
        Ok(planned) => planned,
        Err((code, e)) => {
            complain("error", e);
            return Ok(ExitCode::from(code));
        }
    };
    for warning in planned.first().iter().flat_map(|(made, _)| &made.warnings) {
        complain("warning", warning);
    }
    let code = runtime.block_on(async {
        let served = endpoints::serve(listener, Arc::clone(&directory));
        let ran = async {
            match docker {
                Some(docker) => all(&docker.with_endpoints(&directory), &planned, &directory, args).await,
                None => {
                    let processes = ProcessRuntime::new(&program, &tasks).tethered();
                    all(&processes, &planned, &directory, args).await
                }
            }
        };
        tokio::select! {
            code = ran => code,
            Err(e) = served => {
                complain("error", format_args!("the metadata endpoint: {e}"));
                1
            }
        }
    });
    say_aside(format_args!("files of the tasks are in {}", data.display()));
    Ok(ExitCode::from(code))
}

/// The Docker engine of this machine.
async fn docker(args: &Run, tasks: &Tasks) -> Result<DockerRuntime, String> {
    let docker = DockerRuntime::connect(&DockerRuntime::host(), tasks).await.map_err(|e| e.to_string())?;
    let lines = Lines::new(say_line);
    Ok(if args.follow { docker.with_lines(lines) } else { docker })
}

/// Runs all tasks at once. Gives the first exit code that is not 0.
async fn all<R: Runtime>(
    runtime: &R,
    planned: &[(Planned, Choices)],
    directory: &Arc<Directory>,
    args: &Run,
) -> u8 {
    let (ask, stop) = watch::channel(None);
    let all =
        planned.iter().map(|(made, choices)| one(runtime, made, choices, directory, args, stop.clone()));
    tokio::select! {
        codes = futures_all(all) => codes.into_iter().find(|code| *code != 0).unwrap_or(0),
        () = until_asked(ask) => 1,
    }
}

/// Waits for all of them at once.
async fn futures_all<F: Future<Output = u8>>(all: impl Iterator<Item = F>) -> Vec<u8> {
    let mut waiting: Vec<_> = all.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let std::task::Poll::Ready(code) = future.as_mut().poll(cx)
            {
                *done = Some(code);
            }
        }
        let codes: Option<Vec<u8>> = waiting.iter().map(|(_, done)| *done).collect();
        codes.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    })
    .await
}

/// SIGINT, SIGTERM or the end of the terminal stops all tasks in order. Never comes back.
async fn until_asked(ask: watch::Sender<Option<String>>) {
    let (int, term) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut int), Ok(mut term)) = (int, term) else { return std::future::pending().await };
    // To listen would undo what nohup has done.
    let mut hup = if is_hangup_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    let mut hung_up = async || match &mut hup {
        Some(hup) => hup.recv().await,
        None => std::future::pending().await,
    };
    loop {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hung_up() => {}
        }
        say_aside("stopping");
        ask.send_replace(Some("Task stopped by user".to_owned()));
    }
}

/// Whether whoever started us wants us to outlive the terminal.
fn is_hangup_ignored() -> bool {
    const SIGHUP: u64 = 1;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGHUP != 0)
}

async fn one<R: Runtime>(
    runtime: &R,
    planned: &Planned,
    choices: &Choices,
    directory: &Arc<Directory>,
    args: &Run,
    stop: watch::Receiver<Option<String>>,
) -> u8 {
    let mut last = BTreeMap::new();
    let short = choices.id.get(..8).unwrap_or_default();
    let mut told = 0;
    let report = |view: &View| {
        // As they come: the task may run for long.
        view.warnings.iter().skip(told).for_each(|warning| complain("warning", warning));
        told = view.warnings.len();
        for c in &view.containers {
            if last.insert(c.name.clone(), c.last_status.clone()).as_ref() != Some(&c.last_status)
                && !args.json
            {
                say_aside(format_args!("{short} {} {}", c.name, c.last_status));
            }
        }
    };
    let logs = planned.plan.dir.join("logs");
    let firelens = choices.firelens_dir();
    let new = View::default();
    let ended = launch::run(runtime, planned, &firelens, Some(directory), &new, stop, report);
    let ended = if args.follow { follow::beside(&logs, None, say_line, ended).await } else { ended.await };
    let view = match ended {
        Ok(view) => view,
        Err(e) => {
            complain("error", format_args!("task {}: {e}", planned.plan.arn));
            return 1;
        }
    };
    if args.json {
        let mut json = serde_json::to_value(&view).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.insert("taskArn".to_owned(), planned.plan.arn.clone().into());
        }
        say(&format!("{json}\n"));
    } else {
        say(&table(&planned.plan.arn, &view));
    }
    exit_code(&view)
}
