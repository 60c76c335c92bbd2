//! The configurations that the project ships load as they stand, and a wrong one is refused with its place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| ["conf", "yaml", "yml"].iter().any(|x| e == *x)))
        .filter(|p| cfg!(feature = "kafka") || !p.ends_with("kafka.conf"))
        // Parsers are read through the configurations that name them.
        .filter(|p| !p.file_name().unwrap().to_string_lossy().starts_with("parsers"))
        .collect();
    found.sort();
    found
}

fn check(conf: &Path) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_firelane")).args(["check", "-c"]).arg(conf).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_sample_configuration_passes_check() {
    let samples = samples();
    assert!(samples.len() >= 3, "FireLens bridge and awsvpc, and standalone: {samples:?}");
    for conf in samples {
        let (code, messages) = check(&conf);
        assert_eq!(code, Some(0), "{}: {messages}", conf.display());
    }
}

#[test]
fn a_refusal_names_file_line_key_and_the_likely_spelling_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("wrong.conf");
    fs::write(&conf, "[INPUT]\n    Name forward\n    Prot 24224\n[OUTPUT]\n    Name null\n    Match *\n")
        .unwrap();
    let (code, messages) = check(&conf);
    assert_eq!(code, Some(2), "{messages}");
    for words in ["wrong.conf:3", "Prot", "Port"] {
        assert!(messages.contains(words), "{words} is not in: {messages}");
    }
}
