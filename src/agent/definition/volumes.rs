//! The volumes of a task definition.
//!
//! Enters: an object of `volumes`. Leaves: a volume. Can go wrong: what ECS refuses; what is not on this machine is a warning.

use super::json::{CLIENT, Object};
use super::model::{Volume, VolumeKind};
use super::read::{check_name, required};

pub(super) fn read(o: Object<'_>) -> Volume {
    let mut v = Volume { name: required(&o, "name"), kind: VolumeKind::Task };
    check_name(&o, "name", &v.name);
    let mut kinds = Vec::new();
    if let Some(host) = o.object("host") {
        let source = host.string("sourcePath").filter(|s| !s.is_empty());
        host.finish();
        if let Some(source) = source {
            kinds.push(VolumeKind::Host(source));
        }
    }
    if let Some(docker) = o.object("dockerVolumeConfiguration") {
        let shared = docker.one_of("scope", &["task", "shared"]) == Some("shared");
        let autoprovision = docker.boolean("autoprovision", false);
        if autoprovision && !shared {
            docker.notes.error(CLIENT, docker.at("autoprovision"), "is for volumes of scope shared only");
        }
        kinds.push(VolumeKind::Docker {
            shared,
            autoprovision,
            driver: docker.string("driver"),
            driver_opts: docker.map("driverOpts"),
            labels: docker.map("labels"),
        });
        docker.finish();
    }
    let elsewhere = [
        ("efsVolumeConfiguration", "an EFS file system"),
        ("fsxWindowsFileServerVolumeConfiguration", "an FSx file server"),
        ("s3filesVolumeConfiguration", "an S3 file system"),
    ];
    for (field, what) in elsewhere {
        let Some(there) = o.object(field) else { continue };
        match field {
            "efsVolumeConfiguration" => efs(there),
            "fsxWindowsFileServerVolumeConfiguration" => fsx(there),
            _ => {}
        }
        kinds.push(VolumeKind::Elsewhere(what.to_owned()));
        let text =
            format!("{what} is not on this machine: give a path in its place with --volume {}=PATH", v.name);
        o.notes.warn(o.at(field), text);
    }
    if o.boolean("configuredAtLaunch", false) {
        let what = "a volume that is configured at launch";
        kinds.push(VolumeKind::Elsewhere(what.to_owned()));
        let text =
            format!("{what} is not on this machine: give a path in its place with --volume {}=PATH", v.name);
        o.notes.warn(o.at("configuredAtLaunch"), text);
    }
    if kinds.len() > 1 {
        o.notes.error(
            CLIENT,
            o.path.clone(),
            format!("volume {} is of more than one kind; keep one", v.name),
        );
    }
    v.kind = kinds.into_iter().next().unwrap_or_default();
    o.finish();
    v
}

/// The rules are those of AWS's API reference, EFSVolumeConfiguration and EFSAuthorizationConfig.
fn efs(o: Object<'_>) {
    required(&o, "fileSystemId");
    let root = o.string("rootDirectory").unwrap_or_default();
    let encrypted = o.one_of("transitEncryption", &["ENABLED", "DISABLED"]) == Some("ENABLED");
    o.unsigned("transitEncryptionPort", 0..=65_535);
    if let Some(access) = o.object("authorizationConfig") {
        let point = access.string("accessPointId").is_some_and(|id| !id.is_empty());
        let iam = access.one_of("iam", &["ENABLED", "DISABLED"]) == Some("ENABLED");
        if (point || iam) && !encrypted {
            let what = if point { "an access point" } else { "IAM authorization" };
            o.notes.error(
                CLIENT,
                o.at("transitEncryption"),
                format!("must be ENABLED, because {what} is used"),
            );
        }
        if point && !matches!(root.as_str(), "" | "/") {
            let text = format!("must be left out, or /, beside an access point, not {root:?}");
            o.notes.error(CLIENT, o.at("rootDirectory"), text);
        }
        access.finish();
    }
    o.finish();
}

fn fsx(o: Object<'_>) {
    required(&o, "fileSystemId");
    required(&o, "rootDirectory");
    match o.object("authorizationConfig") {
        Some(access) => {
            required(&access, "credentialsParameter");
            required(&access, "domain");
            access.finish();
        }
        None => o.notes.error(CLIENT, o.at("authorizationConfig"), "must be given"),
    }
    o.finish();
}
