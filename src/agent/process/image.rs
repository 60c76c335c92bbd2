//! Files that the router's image has and task definitions name: parsers, configurations. In the process runtime the router
//! is this binary, so it brings them along.
//!
//! Enters: a task's directory. Leaves: the files beneath it, and mounts that put them where the image has them. What this
//! machine has at such a place stays. Can go wrong: the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::Mount;

/// Where they are kept in a task's directory.
const DIR: &str = "image";
/// What is mounted, and the files in it.
const FILES: &[(&str, &[(&str, &str)])] = &[
    (
        "/fluent-bit/configs",
        &[
            (
                "minimize-log-loss.conf",
                include_str!("../../../image/root/fluent-bit/configs/minimize-log-loss.conf"),
            ),
            (
                "multiline-parse-json.conf",
                include_str!("../../../image/root/fluent-bit/configs/multiline-parse-json.conf"),
            ),
            (
                "output-metrics-healthcheck.conf",
                include_str!("../../../image/root/fluent-bit/configs/output-metrics-healthcheck.conf"),
            ),
            ("parse-json.conf", include_str!("../../../image/root/fluent-bit/configs/parse-json.conf")),
            (
                "parse-multiline-json.conf",
                include_str!("../../../image/root/fluent-bit/configs/parse-multiline-json.conf"),
            ),
        ],
    ),
    ("/fluent-bit/parsers", &[PARSERS]),
    ("/fluent-bit/etc/parsers.conf", &[PARSERS]),
    (
        "/ecs",
        &[
            ("cloudwatch.conf", include_str!("../../../image/root/ecs/cloudwatch.conf")),
            ("ecs-metadata.conf", include_str!("../../../image/root/ecs/ecs-metadata.conf")),
            ("filter-parser.conf", include_str!("../../../image/root/ecs/filter-parser.conf")),
            ("input-forward.conf", include_str!("../../../image/root/ecs/input-forward.conf")),
            ("service.conf", include_str!("../../../image/root/ecs/service.conf")),
        ],
    ),
];
const PARSERS: (&str, &str) = ("parsers.conf", include_str!("../../../config/parsers.conf"));

/// Writes the files into `task`, and gives their mounts, but for those in whose place something else is.
///
/// # Errors
/// The disk's.
pub(super) fn mounts(task: &Path, taken: impl Fn(&Path) -> bool) -> io::Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (target, files) in FILES {
        let target = PathBuf::from(target);
        if taken(&target) {
            continue;
        }
        let is_file = target.extension().is_some();
        let below = target.strip_prefix("/").unwrap_or(&target);
        let source = task.join(DIR).join(below);
        for (name, text) in *files {
            let path = if is_file { source.clone() } else { source.join(name) };
            fs::create_dir_all(path.parent().unwrap_or(task))?;
            fs::write(path, text)?;
        }
        mounts.push(Mount { source: Some(source), target, ..Mount::default() });
    }
    Ok(mounts)
}

/// Removes them.
///
/// # Errors
/// The disk's.
pub(super) fn remove(task: &Path) -> io::Result<()> {
    match fs::remove_dir_all(task.join(DIR)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_image_has_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = mounts(dir.path(), |target| target == Path::new("/ecs")).unwrap();
        let targets: Vec<_> = mounts.iter().map(|m| m.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/fluent-bit/configs", "/fluent-bit/parsers", "/fluent-bit/etc/parsers.conf"]);
        let parsers = fs::read_to_string(mounts[2].source.as_ref().unwrap()).unwrap();
        assert!(parsers.contains("apache2"));
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/root");
        for folder in ["fluent-bit/configs", "ecs"] {
            let (_, files) = FILES.iter().find(|(target, _)| target.ends_with(folder)).unwrap();
            let mut names: Vec<_> = fs::read_dir(image.join(folder))
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{folder}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
