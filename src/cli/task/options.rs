//! The options of `firelane task run`, which are those of `firelane agent run`, too.
//!
//! Enters: flags. Leaves: what whoever runs a task decides. Can go wrong: a file that cannot be read, a path that is not
//! there, an endpoint that is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::agent::definition::{TAGS_MAX, TaskDefinition, tag_problems};
use crate::agent::firelens;
use crate::agent::planning::{self, Choices};
use crate::agent::secrets;

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
pub(in crate::cli) enum Which {
    /// docker where an engine answers, else process
    #[default]
    Auto,
    /// A Docker engine of this machine: DOCKER_HOST, else unix:///var/run/docker.sock
    Docker,
    /// Processes of this machine
    Process,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Run {
    /// Task definition: the JSON of RegisterTaskDefinition, or what DescribeTaskDefinition prints
    pub(in crate::cli) file: PathBuf,
    /// What runs containers
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) runtime: Which,
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
    /// A tag of the task, for /taskWithTags of its metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
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
    pub(in crate::cli) aws: crate::cli::aws::Aws,
    /// For awslogs without a mode
    #[arg(long, value_enum, default_value_t)]
    default_log_mode: LogMode,
    /// Whose credentials containers get: a role by name or ARN in place of the definition's taskRoleArn, own (the agent's)
    /// or none
    #[arg(long, value_name = "ROLE")]
    task_role: Option<String>,
    /// So many tasks of it at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(in crate::cli) count: u16,
    /// Where the files of tasks are kept [default: a new directory in /tmp]
    #[arg(long, value_name = "DIRECTORY")]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Print the lines of containers whose logs are in files
    #[arg(short, long)]
    pub(in crate::cli) follow: bool,
    /// Print how it ended as JSON, one task a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl Run {
    /// It names images in place of the definition's.
    pub(super) fn replaces_images(&self) -> bool {
        self.router_image.is_some() || !self.image.is_empty()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be NAME=VALUE")?;
    if name.is_empty() {
        Err("its name is empty".to_owned())
    } else {
        Ok((name.to_owned(), value.to_owned()))
    }
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    match tag_problems(&key, &value).as_slice() {
        [] => Ok((key, value)),
        all => {
            Err(all.iter().map(|(field, why)| format!("its {field} {why}")).collect::<Vec<_>>().join("; "))
        }
    }
}

/// What ECS has against tags that stand together.
fn tags(given: &[(String, String)]) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for (key, value) in given {
        if all.insert(key.clone(), value.clone()).is_some() {
            return Err(format!("--tag {key}={value}: the task has a tag of this key already"));
        }
    }
    match all.len() {
        0..=TAGS_MAX => Ok(all),
        many => Err(format!("--tag: a task has at most {TAGS_MAX} tags, not {many}")),
    }
}

/// Where the tasks' files are. One that is new goes when nothing was put there.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    new: bool,
}

impl Directory {
    /// As it is given, or a new one.
    pub(super) fn of(args: &Run) -> Result<Directory, String> {
        let new = || std::env::temp_dir().join(format!("firelane-{}", planning::hex(8)));
        let dir = args.dir.clone().unwrap_or_else(new);
        let path = fs::create_dir_all(&dir).and_then(|()| dir.canonicalize());
        let path = path.map_err(|e| format!("cannot use {}: {e}", dir.display()))?;
        Ok(Directory { path, new: args.dir.is_none() })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.new {
            // With files in it, it stays.
            let _full = fs::remove_dir(&self.path);
        }
    }
}

fn region(args: &Run) -> String {
    let region = args.region.clone().or_else(|| std::env::var("AWS_REGION").ok());
    region.unwrap_or_else(|| "us-east-1".to_owned())
}

pub(in crate::cli) fn choices(
    args: &Run,
    definition: &TaskDefinition,
    data: &Path,
) -> Result<Choices, String> {
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
        tags: tags(&args.tag)?,
        data: data.to_owned(),
        environment: args.env.clone(),
        exec: args.exec.iter().map(|(name, command)| (name.clone(), shell(command))).collect(),
        images,
        volumes,
        mounts,
        secrets: given,
        meant_secrets: args.secret.iter().map(|(name, _)| name.clone()).collect(),
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
