//! From a container's plan to what a supervisor runs.
//!
//! Enters: a plan. Leaves: a spec, and a warning for each thing that one machine's processes cannot have. Can go wrong: there
//! is no program to run, or a volume that is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::spec::{HealthCheck, Mount, Spec, Tmpfs, Ulimit};
use crate::agent::definition::{ContainerDefinition, NetworkMode, VolumeKind};
use crate::agent::open_files;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::Failure;

const MIB: u64 = 1 << 20;
/// The last of a directory's modes.
const MODE_MAX: u32 = 0o7777;
/// Where the images of Fluent Bit have their configuration.
pub(super) const CONFIG: &str = "/fluent-bit/etc/fluent-bit.conf";

/// What a supervisor is to run. `program`: firelane, which is the router; `id`: 64 hexadecimal digits.
///
/// # Errors
/// `CannotCreateContainerError`
pub(super) fn spec(
    task: &TaskPlan,
    plan: &ContainerPlan,
    program: &Path,
    id: String,
) -> Result<(Spec, Vec<String>), Failure> {
    let d = &plan.definition;
    let own_name = matches!(task.network_mode, NetworkMode::Bridge | NetworkMode::None);
    let hostname = d.hostname.clone().or_else(|| own_name.then(|| id.get(..12).unwrap_or(&id).to_owned()));
    let no_new_privileges = d.docker_security_options.iter().any(|o| o.starts_with("no-new-privileges"));
    let mut limits = d.clone();
    let mut warnings = warnings(d);
    warnings.extend(open_files::fit(task.launch_type, &mut limits, open_files::own_max()));
    let spec = Spec {
        name: d.name.clone(),
        docker_name: plan.docker_name.clone(),
        image: d.image.clone(),
        argv: argv(task, plan, program)?,
        env: plan.environment.clone(),
        labels: plan.labels.clone(),
        cwd: d.working_directory.clone(),
        user: d.user.clone(),
        hostname,
        ulimits: limits
            .ulimits
            .iter()
            .map(|u| Ulimit { name: u.name.clone(), soft: u.soft_limit, hard: u.hard_limit })
            .collect(),
        memory: d.memory.map(|m| m * MIB),
        memory_reservation: d.memory_reservation.map(|m| m * MIB),
        cpu_shares: (d.cpu > 0).then_some(d.cpu),
        mounts: mounts(task, plan)?,
        health: health(d),
        log_driver: plan.log_driver.clone(),
        log_options: plan.log_options.clone(),
        log_path: log_path(&task.dir, &d.name),
        no_new_privileges,
        id,
    };
    Ok((spec, warnings))
}

/// Where `json-file` writes.
pub(super) fn log_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}-json.log"))
}

fn refused(text: String) -> Failure {
    Failure::new("CannotCreateContainerError", text)
}

fn argv(task: &TaskPlan, plan: &ContainerPlan, program: &Path) -> Result<Vec<String>, Failure> {
    let d = &plan.definition;
    if let Some(exec) = &plan.exec {
        return Ok(exec.clone());
    }
    let mut argv: Vec<String> = d.entry_point.iter().chain(&d.command).flatten().cloned().collect();
    let own = program.to_string_lossy().into_owned();
    if task.firelens.as_deref() == Some(&d.name) {
        let kind = d.firelens_configuration.as_ref().map_or("fluentbit", |f| f.r#type.as_str());
        if kind != "fluentbit" {
            let name = &d.name;
            return Err(refused(format!(
                "the log router {name} is of type {kind}, which only the docker runtime can run; say --exec {name}=COMMAND to run another"
            )));
        }
        return Ok(match argv.first_mut() {
            None => vec![own, "-c".to_owned(), CONFIG.to_owned()],
            // Its image's program is this one.
            Some(first) if Path::new(first).file_name().is_some_and(|n| n == "fluent-bit") => {
                *first = own;
                argv
            }
            Some(_) => argv,
        });
    }
    if argv.is_empty() {
        let name = &d.name;
        return Err(refused(format!(
            "container {name} has neither entryPoint nor command, and the process runtime has no images; say --exec {name}=COMMAND"
        )));
    }
    Ok(argv)
}

fn health(d: &ContainerDefinition) -> Option<HealthCheck> {
    let check = d.health_check.as_ref()?;
    let argv = match check.command.split_first()? {
        (kind, rest) if kind == "CMD" => rest.to_vec(),
        (_, rest) => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
    };
    Some(HealthCheck {
        argv,
        interval: check.interval * 1000,
        timeout: check.timeout * 1000,
        retries: u32::try_from(check.retries).unwrap_or(u32::MAX),
        start_period: check.start_period * 1000,
    })
}

/// Volumes first, then files and directories of the plan, which win; memory last.
pub(super) fn mounts(task: &TaskPlan, plan: &ContainerPlan) -> Result<Vec<Mount>, Failure> {
    let d = &plan.definition;
    let mut mounts = Vec::new();
    for place in places(task, d, &mut BTreeMap::new()) {
        mounts.push(volume(task, place.volume, place.target, place.read_only)?);
    }
    for (source, target, read_only) in &plan.binds {
        mounts.push(Mount {
            source: Some(source.clone()),
            target: PathBuf::from(target),
            read_only: *read_only,
            ..Mount::default()
        });
    }
    mounts.extend(d.linux_parameters.tmpfs.iter().map(|(path, mib, options)| tmpfs(path, *mib, options).0));
    mounts.extend(d.linux_parameters.shared_memory_size.map(|mib| tmpfs("/dev/shm", mib, &[]).0));
    // The last of one place wins, as it would when mounted over the others.
    let last = |m: &Mount| mounts.iter().rposition(|other| other.target == m.target);
    Ok(mounts.iter().enumerate().filter(|(n, m)| last(m) == Some(*n)).map(|(_, m)| m.clone()).collect())
}

/// A volume, and where a container sees it.
#[derive(Clone, Copy)]
struct Place<'a> {
    volume: &'a str,
    target: &'a str,
    read_only: bool,
}

/// The volumes of a container: those of the containers that it takes volumes from, which have theirs from others in turn;
/// then its own, which win. `known`: what has been found, so that each container is looked at once, and a circle ends.
fn places<'a>(
    task: &'a TaskPlan,
    d: &'a ContainerDefinition,
    known: &mut BTreeMap<&'a str, Vec<Place<'a>>>,
) -> Vec<Place<'a>> {
    if let Some(found) = known.get(d.name.as_str()) {
        return found.clone();
    }
    // While it is looked at it has none: that is what a circle finds.
    known.insert(&d.name, Vec::new());
    let mut all: Vec<Place<'a>> = Vec::new();
    for from in &d.volumes_from {
        let source = task.containers.iter().find(|c| c.definition.name == from.source_container);
        let theirs = source.map(|c| places(task, &c.definition, known)).unwrap_or_default();
        all.extend(theirs.into_iter().map(|p| Place { read_only: p.read_only || from.read_only, ..p }));
    }
    all.extend(d.mount_points.iter().map(|point| Place {
        volume: &point.source_volume,
        target: &point.container_path,
        read_only: point.read_only,
    }));
    // The last of one place wins; the others would only be handed on.
    let mut seen = BTreeSet::new();
    all.reverse();
    all.retain(|place| seen.insert(place.target));
    all.reverse();
    known.insert(&d.name, all.clone());
    all
}

/// A tmpfs with mount options, and those of them that have no effect here.
fn tmpfs<'o>(path: &str, mib: u64, options: &'o [String]) -> (Mount, Vec<&'o str>) {
    let size = Some(mib.saturating_mul(MIB));
    let mut mount = Mount {
        source: None,
        target: PathBuf::from(path),
        read_only: false,
        tmpfs: Tmpfs { size, ..Tmpfs::default() },
    };
    let mut others = Vec::new();
    // The last one of a kind holds.
    for option in options {
        match (option.as_str(), option.strip_prefix("mode=").map(|mode| u32::from_str_radix(mode, 8))) {
            ("rw", _) => mount.read_only = false,
            ("ro", _) => mount.read_only = true,
            ("exec", _) => mount.tmpfs.exec = true,
            ("noexec", _) => mount.tmpfs.exec = false,
            ("suid", _) => mount.tmpfs.suid = true,
            ("nosuid", _) => mount.tmpfs.suid = false,
            ("dev", _) => mount.tmpfs.dev = true,
            ("nodev", _) => mount.tmpfs.dev = false,
            ("defaults", _) => {}
            (_, Some(Ok(mode))) if mode <= MODE_MAX => mount.tmpfs.mode = Some(mode),
            (other, _) => others.push(other),
        }
    }
    (mount, others)
}

fn volume(task: &TaskPlan, name: &str, target: &str, read_only: bool) -> Result<Mount, Failure> {
    let found = task.volumes.iter().find(|v| v.name == name);
    let Some(found) = found else { return Err(refused(format!("there is no volume {name}"))) };
    let source = match &found.kind {
        VolumeKind::Host(path) => PathBuf::from(path),
        VolumeKind::Docker { shared: true, .. } => {
            // Beside the tasks: it outlives this one.
            task.dir.parent().unwrap_or(&task.dir).join("volumes").join(name)
        }
        VolumeKind::Task | VolumeKind::Docker { .. } => task.dir.join("volumes").join(name),
        VolumeKind::Elsewhere(what) => {
            return Err(Failure::new(
                "InvalidVolumeError",
                format!("volume {name} is {what}, which is not on this machine; say --volume {name}=PATH"),
            ));
        }
    };
    Ok(Mount { source: Some(source), target: PathBuf::from(target), read_only, ..Mount::default() })
}

/// What processes of one machine do not have.
fn warnings(d: &ContainerDefinition) -> Vec<String> {
    let l = &d.linux_parameters;
    let security = |kind: &str| d.docker_security_options.iter().any(|option| option.starts_with(kind));
    let no_effect = |field: &str, why: &str| {
        format!("container {}: {field} has no effect in the process runtime: {why}", d.name)
    };
    let mut all: Vec<String> = [
        (d.readonly_root_filesystem, "readonlyRootFilesystem", "it sees the machine's own files"),
        (d.privileged, "privileged", "it has the rights of its user"),
        (
            !l.add.is_empty() || !l.drop.is_empty(),
            "linuxParameters.capabilities",
            "it has the rights of its user",
        ),
        (!l.devices.is_empty(), "linuxParameters.devices", "it sees the machine's devices"),
        (
            l.max_swap.is_some() || l.swappiness.is_some(),
            "linuxParameters.maxSwap and swappiness",
            "swap is the machine's",
        ),
        (d.interactive, "interactive", "its standard input is empty"),
        (d.pseudo_terminal, "pseudoTerminal", "its output is a pipe"),
        (d.disable_networking, "disableNetworking", "it has the machine's network"),
        (!d.links.is_empty(), "links", "containers reach one another on 127.0.0.1"),
        (
            !d.dns_servers.is_empty() || !d.dns_search_domains.is_empty(),
            "dnsServers and dnsSearchDomains",
            "names are resolved as on the machine",
        ),
        (!d.extra_hosts.is_empty(), "extraHosts", "names are resolved as on the machine"),
        (!d.system_controls.is_empty(), "systemControls", "the machine's hold"),
        (
            l.init_process_enabled,
            "linuxParameters.initProcessEnabled",
            "its supervisor reaps what its processes leave",
        ),
        (security("apparmor:"), "dockerSecurityOptions apparmor", "it has the profile of the agent"),
        (security("label:"), "dockerSecurityOptions label", "it has the labels of the agent"),
        (
            d.port_mappings.iter().any(|p| p.host_port.is_some_and(|h| h != 0 && h != p.container_port.0)),
            "portMappings.hostPort",
            "it listens where it listens, on the machine's network",
        ),
    ]
    .into_iter()
    .filter(|(set, ..)| *set)
    .map(|(_, field, why)| no_effect(field, why))
    .collect();
    for (n, (path, mib, options)) in l.tmpfs.iter().enumerate() {
        for option in tmpfs(path, *mib, options).1 {
            let why = match option.split('=').next() {
                Some("size") => "the field size holds",
                _ => "of the options there are ro, rw, exec, suid, dev with and without no, and mode=OCTAL",
            };
            all.push(no_effect(&format!("linuxParameters.tmpfs[{n}].mountOptions {option}"), why));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::definition::{FirelensConfiguration, MountPoint, Volume, VolumeFrom};

    fn plan(name: &str) -> ContainerPlan {
        ContainerPlan {
            definition: ContainerDefinition { name: name.into(), ..ContainerDefinition::default() },
            ..ContainerPlan::default()
        }
    }

    fn task() -> TaskPlan {
        TaskPlan { dir: "/state/t".into(), firelens: Some("router".into()), ..TaskPlan::default() }
    }

    fn words(plan: &ContainerPlan) -> Result<String, String> {
        argv(&task(), plan, Path::new("/bin/firelane")).map(|a| a.join(" ")).map_err(|e| e.text)
    }

    #[test]
    fn a_program_is_the_definitions_or_given_and_the_router_is_firelane() {
        let mut app = plan("app");
        assert!(words(&app).unwrap_err().contains("say --exec app=COMMAND"));
        app.definition.entry_point = Some(vec!["sh".into(), "-c".into()]);
        app.definition.command = Some(vec!["echo".into()]);
        assert_eq!(words(&app).unwrap(), "sh -c echo");
        app.exec = Some(vec!["true".into()]);
        assert_eq!(words(&app).unwrap(), "true");
        let mut router = plan("router");
        assert_eq!(words(&router).unwrap(), "/bin/firelane -c /fluent-bit/etc/fluent-bit.conf");
        router.definition.command = Some(vec!["/fluent-bit/bin/fluent-bit".into(), "-c".into(), "/x".into()]);
        assert_eq!(words(&router).unwrap(), "/bin/firelane -c /x");
        router.definition.firelens_configuration =
            Some(FirelensConfiguration { r#type: "fluentd".into(), ..FirelensConfiguration::default() });
        assert!(words(&router).unwrap_err().contains("only the docker runtime"));
    }

    #[test]
    fn volumes_are_directories_and_the_last_mount_of_a_place_wins() {
        let volume = |name: &str, kind| Volume { name: name.into(), kind };
        let mut task = task();
        task.volumes = vec![
            volume("own", VolumeKind::Task),
            volume("host", VolumeKind::Host("/srv".into())),
            volume("efs", VolumeKind::Elsewhere("an EFS file system".into())),
        ];
        let point = |v: &str, path: &str| MountPoint {
            source_volume: v.into(),
            container_path: path.into(),
            read_only: true,
        };
        let mut app = plan("app");
        app.definition.mount_points = vec![point("own", "/a"), point("host", "/b")];
        app.binds = vec![("/file".into(), "/b".into(), false)];
        let found = mounts(&task, &app).unwrap();
        let texts: Vec<_> =
            found.iter().map(|m| (m.source.as_deref().unwrap().to_str().unwrap(), m.read_only)).collect();
        assert_eq!(texts, [("/state/t/volumes/own", true), ("/file", false)]);
        app.definition.mount_points = vec![point("efs", "/a")];
        assert!(mounts(&task, &app).unwrap_err().text.contains("--volume efs=PATH"));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let mut d =
            ContainerDefinition { name: "app".into(), privileged: true, ..ContainerDefinition::default() };
        assert_eq!(warnings(&d).len(), 1);
        assert!(warnings(&d)[0].contains("privileged"));
        d.privileged = false;
        d.linux_parameters.init_process_enabled = true;
        d.docker_security_options =
            vec!["apparmor:p".into(), "label:type:t".into(), "no-new-privileges".into()];
        let options =
            ["ro", "mode=0700", "noexec", "defaults", "uid=1", "size=9m"].map(str::to_owned).to_vec();
        d.linux_parameters.tmpfs = vec![("/t".into(), 1, options)];
        let said = warnings(&d);
        for part in [
            "linuxParameters.initProcessEnabled",
            "dockerSecurityOptions apparmor",
            "dockerSecurityOptions label",
            "linuxParameters.tmpfs[0].mountOptions uid=1",
            "linuxParameters.tmpfs[0].mountOptions size=9m has no effect in the process runtime: the field size",
        ] {
            assert!(said.iter().any(|w| w.contains(part)), "{part} in {said:?}");
        }
        assert_eq!(said.len(), 5, "{said:?}");
    }

    #[test]
    fn a_tmpfs_is_mounted_as_its_options_say_and_else_as_docker_does() {
        let options = |all: &[&str]| all.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
        let made = |all: &[&str]| tmpfs("/t", 2, &options(all)).0;
        let size = Some(2 * MIB);
        assert_eq!(made(&[]).tmpfs, Tmpfs { size, ..Tmpfs::default() });
        let open = made(&["ro", "rw", "exec", "suid", "dev", "mode=0750"]);
        assert_eq!(open.tmpfs, Tmpfs { size, mode: Some(0o750), exec: true, suid: true, dev: true });
        assert!(!open.read_only && made(&["ro"]).read_only);
        assert!(!made(&["exec", "noexec"]).tmpfs.exec);
        let odd = options(&["mode=9", "mode=77777"]);
        assert_eq!(tmpfs("/t", 2, &odd).1, ["mode=9", "mode=77777"]);
    }

    #[test]
    fn volumes_of_others_come_with_those_that_these_have_from_others() {
        let mut task = task();
        task.volumes = vec![
            Volume { name: "v".into(), kind: VolumeKind::Host("/v".into()) },
            Volume { name: "w".into(), kind: VolumeKind::Host("/w".into()) },
        ];
        let point = |v: &str, path: &str| MountPoint {
            source_volume: v.into(),
            container_path: path.into(),
            read_only: false,
        };
        let from = |c: &str, read_only| VolumeFrom { source_container: c.into(), read_only };
        let (mut a, mut b, mut c) = (plan("a"), plan("b"), plan("c"));
        c.definition.mount_points = vec![point("v", "/data"), point("v", "/more")];
        b.definition.volumes_from = vec![from("c", true)];
        b.definition.mount_points = vec![point("w", "/more")];
        a.definition.volumes_from = vec![from("b", false)];
        // ECS refuses a circle; it must end all the same.
        c.definition.volumes_from = vec![from("a", false)];
        task.containers = vec![a, b, c];
        let found = mounts(&task, &task.containers[0]).unwrap();
        let texts: Vec<_> = found
            .iter()
            .map(|m| {
                (m.source.as_deref().unwrap().to_str().unwrap(), m.target.to_str().unwrap(), m.read_only)
            })
            .collect();
        assert_eq!(texts, [("/v", "/data", true), ("/w", "/more", false)]);
    }
}
