//! `firelane task`: task definitions on this machine.
//!
//! Enters: a file and options. Leaves: a running task, a table of how its containers ended, the exit code of the essential
//! one. Can go wrong: the definition is refused (exit code 2, every problem with its place), or the task fails to start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{EXIT_USAGE, complain, say, say_aside};
use crate::agent::definition::TaskDefinition;
use crate::agent::docker::{DockerRuntime, Lines};
use crate::agent::endpoints::{self, Base, Directory};
use crate::agent::engine::{StopCode, View};
use crate::agent::firelens;
use crate::agent::launch;
use crate::agent::planning::{self, Choices, Planned};
use crate::agent::process::ProcessRuntime;
use crate::agent::runtime::Runtime;
use crate::agent::secrets;
use crate::config::{self, SectionKind};
use crate::rt::Tasks;

/// The largest task definition that is read.
const FILE_MAX: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Run a task definition to its end
    Run(Box<Run>),
    /// Validate task definitions: what ECS would refuse, what one machine cannot honour, plugins that are not built
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Task definitions
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What stands in for the mode of log drivers that say none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum LogMode {
    /// As ECS has it: lines are dropped when a service is slow.
    #[default]
    NonBlocking,
    /// The container waits.
    Blocking,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum Which {
    /// docker where an engine answers, else process
    #[default]
    Auto,
    /// A Docker engine of this machine: DOCKER_HOST, else unix:///var/run/docker.sock
    Docker,
    /// Processes of this machine
    Process,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Task definition: the JSON of RegisterTaskDefinition, or what DescribeTaskDefinition prints
    pub(super) file: PathBuf,
    /// What runs containers
    #[arg(long, value_enum, default_value_t)]
    pub(super) runtime: Which,
    /// The image of the log router in place of the definition's; docker only
    #[arg(long, value_name = "IMAGE")]
    router_image: Option<String>,
    /// An image in place of a container's; docker only
    #[arg(long, value_name = "CONTAINER=IMAGE", value_parser = pair)]
    image: Vec<(String, String)>,
    /// Name of the cluster, for ARNs and metadata
    #[arg(long, default_value = "default")]
    cluster: String,
    /// Region, for ARNs and awslogs [default: AWS_REGION, else us-east-1]
    #[arg(long)]
    region: Option<String>,
    /// Account, for ARNs
    #[arg(long, default_value = "000000000000")]
    account: String,
    /// More environment for every container
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A command for a container in place of its image's program; /bin/sh runs it
    #[arg(long, value_name = "CONTAINER=COMMAND", value_parser = pair)]
    exec: Vec<(String, String)>,
    /// A path in place of a volume
    #[arg(long, value_name = "VOLUME=PATH", value_parser = pair)]
    volume: Vec<(String, String)>,
    /// A file or directory in place of what a container's image has there
    #[arg(long, value_name = "CONTAINER:PATH=PATH", value_parser = pair)]
    mount: Vec<(String, String)>,
    /// The value of a secret, by its name in the definition or by its valueFrom
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    secret: Vec<(String, String)>,
    /// A file of NAME=VALUE lines with the values of secrets
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) aws: super::aws::Aws,
    /// For awslogs without a mode
    #[arg(long, value_enum, default_value_t)]
    default_log_mode: LogMode,
    /// Whose credentials containers get: a role by name or ARN in place of the definition's taskRoleArn, own (the agent's)
    /// or none
    #[arg(long, value_name = "ROLE")]
    task_role: Option<String>,
    /// So many tasks of it at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) count: u16,
    /// Where the files of tasks are kept [default: a new directory in /tmp]
    #[arg(long, value_name = "DIRECTORY")]
    pub(super) dir: Option<PathBuf>,
    /// Print the lines of containers whose logs are in files
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Print how it ended as JSON, one task a line
    #[arg(long)]
    pub(super) json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    if name.is_empty() {
        Err("its name is empty".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

/// Runs the command.
pub(super) fn main(command: &TaskCommand) -> ExitCode {
    match command {
        TaskCommand::Run(args) => run(args).unwrap_or_else(|e| {
            complain("error", e);
            ExitCode::from(EXIT_USAGE)
        }),
        TaskCommand::Check(args) => check(args),
    }
}

/// Says what is wrong with each file. 0: ECS would take all of them.
fn check(args: &Check) -> ExitCode {
    let mut code = 0;
    for file in &args.files {
        match read(file) {
            Ok(Some(definition)) => {
                router(file, &definition);
                say(&format!(
                    "{}: {}: good, containers: {}\n",
                    file.display(),
                    definition.family,
                    definition.container_definitions.len()
                ));
            }
            Ok(None) => code = EXIT_USAGE,
            Err(e) => {
                complain("error", e);
                code = EXIT_USAGE;
            }
        }
    }
    ExitCode::from(code)
}

/// A value whose variables hold something: what, is known where the router runs. 1 is a number, a name, and a switch.
fn filled(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${")
        && let Some((_, behind)) = after.split_once('}')
    {
        out.push_str(before);
        out.push('1');
        rest = behind;
    }
    out + rest
}

/// Checks what the router would be told, as `firelane check` does: a plugin that is not built, an option that it does not
/// have. The user's own part of the configuration is in an image or in S3, and not looked at.
fn router(file: &Path, definition: &TaskDefinition) {
    let Some(config) = firelens::router(definition).and_then(|r| r.firelens_configuration.as_ref()) else {
        return;
    };
    let Ok(options) = firelens::Options::read(config) else { return };
    if options.kind != firelens::Kind::Fluentbit {
        return complain(
            "warning",
            format_args!("{}: a router of type fluentd runs with Docker only", file.display()),
        );
    }
    for (at, container) in definition.container_definitions.iter().enumerate() {
        let Some(log) = container.log_configuration.as_ref().filter(|_| firelens::logs_through(container))
        else {
            continue;
        };
        let Some(name) = log.options.get("Name") else { continue };
        let consumed = ["Name", "include-pattern", "exclude-pattern", "log-driver-buffer-limit"];
        let mut entries = vec![("Name".to_owned(), name.clone()), ("Match".to_owned(), "*".to_owned())];
        let plain = log.options.iter().filter(|(key, _)| !consumed.contains(&key.as_str()));
        entries.extend(plain.map(|(key, value)| (key.clone(), filled(value))));
        // What a secret holds is not known here; that its option exists is.
        entries.extend(log.secret_options.iter().map(|s| (s.name.clone(), "secret".to_owned())));
        let output = config::section(SectionKind::Output, entries, super::flags::PLACE);
        let path = format!("{}: containerDefinitions[{at}].logConfiguration.options", file.display());
        for d in super::job::findings(output) {
            let hint = d.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            complain("warning", format_args!("{path}: {}{hint}", d.message));
        }
    }
}

fn run(args: &Run) -> Result<ExitCode, String> {
    let Some(definition) = read(&args.file)? else { return Ok(ExitCode::from(EXIT_USAGE)) };
    let program = std::env::current_exe().map_err(|e| format!("cannot find firelane itself: {e}"))?;
    let settings = args.aws.settings()?;
    let data = directory(args)?;
    // What is found out beside the tasks' own states: a role that cannot be taken on, what cannot be taken down.
    crate::observe::log::init("warn", None)?;
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
    if docker.is_none() && (args.router_image.is_some() || !args.image.is_empty()) {
        complain("warning", "--router-image and --image have no effect: the process runtime has no images");
    }
    let directory = Directory::new(&tasks);
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    let listener = listener.map_err(|e| format!("cannot listen for the tasks' containers: {e}"))?;
    let asks = listener.local_addr().map_err(|e| format!("cannot listen for the tasks' containers: {e}"))?;
    let planned = choices(args, &definition, &data).map_err(|e| (EXIT_USAGE, e)).and_then(|mut choices| {
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
            if args.dir.is_none() {
                // Nothing is in it.
                let _ = fs::remove_dir(&data);
            }
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
                None => all(&ProcessRuntime::new(&program, &tasks), &planned, &directory, args).await,
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
    let lines = Lines::new(|name, line| say(&format!("{name} | {line}\n")));
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

/// SIGINT or SIGTERM stops all tasks in order. Never comes back.
async fn until_asked(ask: watch::Sender<Option<String>>) {
    let (int, term) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut int), Ok(mut term)) = (int, term) else { return std::future::pending().await };
    loop {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        say_aside("stopping");
        ask.send_replace(Some("Task stopped by user".to_owned()));
    }
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
    let report = |view: &View| {
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
    let ended = if args.follow { super::follow::beside(&logs, None, ended).await } else { ended.await };
    let view = match ended {
        Ok(view) => view,
        Err(e) => {
            complain("error", format_args!("task {}: {e}", planned.plan.arn));
            return 1;
        }
    };
    for warning in &view.warnings {
        complain("warning", warning);
    }
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

/// What the command's exit code says of a task that has ended.
pub(super) fn exit_code(view: &View) -> u8 {
    let code = view.exit_code().map(|code| u8::try_from(code).unwrap_or(1));
    match view.stop_code {
        Some(StopCode::EssentialContainerExited) => code.unwrap_or(1),
        Some(StopCode::UserInitiated) => 0,
        _ => 1,
    }
}

/// Rows below each other, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How it ended.
pub(super) fn table(arn: &str, view: &View) -> String {
    let mut rows = vec![["CONTAINER", "STATUS", "EXIT", "HEALTH", "REASON"].map(str::to_owned)];
    for c in &view.containers {
        let health = c.health_status.map_or("-".to_owned(), |h| format!("{h:?}").to_uppercase());
        rows.push([
            format!("{}{}", c.name, if c.essential { "" } else { " (not essential)" }),
            c.last_status.clone(),
            c.exit_code.map_or("-".to_owned(), |code| code.to_string()),
            health,
            c.reason.clone().unwrap_or_default(),
        ]);
    }
    let mut text = format!("\n{arn}\n{}", columns(&rows));
    let code = view.stop_code.map(|c| format!("{c:?}: ")).unwrap_or_default();
    text.push_str(&format!("{code}{}\n", view.stopped_reason.clone().unwrap_or_default()));
    for c in view.containers.iter().filter(|c| !c.last_words.is_empty()) {
        text.push_str(&format!("\nlast words of {}:\n", c.name));
        c.last_words.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
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
    match crate::agent::definition::read(&text) {
        Ok(checked) => {
            checked.warnings.iter().for_each(|p| show("warning", p));
            Ok(Some(checked.definition))
        }
        Err(problems) => {
            problems.iter().for_each(|p| show("error", p));
            Ok(None)
        }
    }
}

/// Where the tasks' files are: given, or new.
fn directory(args: &Run) -> Result<PathBuf, String> {
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("firelane-{}", planning::hex(8))));
    fs::create_dir_all(&dir)
        .and_then(|()| dir.canonicalize())
        .map_err(|e| format!("cannot use {}: {e}", dir.display()))
}

fn region(args: &Run) -> String {
    let region = args.region.clone().or_else(|| std::env::var("AWS_REGION").ok());
    region.unwrap_or_else(|| "us-east-1".to_owned())
}

pub(super) fn choices(args: &Run, definition: &TaskDefinition, data: &Path) -> Result<Choices, String> {
    let mut given = BTreeMap::new();
    if let Some(file) = &args.secrets_file {
        let text = fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        for (n, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'))
        {
            let (name, value) = pair(line).map_err(|e| format!("{}:{}: {e}", file.display(), n + 1))?;
            given.insert(name, value);
        }
    }
    given.extend(args.secret.iter().cloned());
    let whole = |(name, path): &(String, String)| match fs::canonicalize(path) {
        Ok(path) => Ok((name.clone(), path)),
        Err(e) => Err(format!("--volume {name}={path}: {e}")),
    };
    let volumes = args.volume.iter().map(whole).collect::<Result<_, String>>()?;
    let mut mounts: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (place, path) in &args.mount {
        let (name, target) = place
            .split_once(':')
            .filter(|(_, target)| target.starts_with('/'))
            .ok_or_else(|| format!("--mount {place}={path}: it must be CONTAINER:/PATH=PATH"))?;
        let path = fs::canonicalize(path).map_err(|e| format!("--mount {place}={path}: {e}"))?;
        mounts.entry(name.to_owned()).or_default().push((target.to_owned(), path));
    }
    let mut images: BTreeMap<_, _> = args.image.iter().cloned().collect();
    if let (Some(image), Some(router)) = (&args.router_image, firelens::router(definition)) {
        images.insert(router.name.clone(), image.clone());
    }
    let endpoints = args.aws.settings()?.endpoints;
    let shell = |command: &str| ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let task_role = match args.task_role.as_deref() {
        // The definition says which.
        None | Some("own") => None,
        Some("none") => Some(String::new()),
        Some(role) => Some(role.to_owned()),
    };
    Ok(Choices {
        id: planning::hex(32),
        cluster: args.cluster.clone(),
        region: region(args),
        account: args.account.clone(),
        data: data.to_owned(),
        environment: args.env.clone(),
        exec: args.exec.iter().map(|(name, command)| (name.clone(), shell(command))).collect(),
        images,
        volumes,
        mounts,
        secrets: given,
        fetched: secrets::Fetched::default(),
        endpoints: None,
        namespaces: false,
        task_role,
        own_credentials: args.task_role.as_deref() == Some("own"),
        sts: endpoints.set(secrets::Service::Sts).map(str::to_owned),
        logs: endpoints.set(secrets::Service::Logs).map(str::to_owned),
        blocking: args.default_log_mode == LogMode::Blocking,
        process: true,
    })
}
