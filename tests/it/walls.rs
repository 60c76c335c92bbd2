//! The house rules that a reader relies on: which room may know which, what is pure, how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FLOOR: &[&str] = &["observe", "record", "rt", "text", "net", "wire"];
const ROOMS: &[&str] = &["buffer", "filters", "inputs", "outputs", "router"];
/// Codecs and parsers: no socket, no file, no clock, no runtime.
const PURE: &[&str] = &["text", "wire"];
const MAX_LINES: usize = 800;

/// What a room may import besides itself.
fn may_import(room: &str) -> Vec<&'static str> {
    let config = ["config"];
    match room {
        r if FLOOR.contains(&r) => FLOOR.to_vec(),
        "config" => FLOOR.to_vec(),
        r if ROOMS.contains(&r) => [FLOOR, &config].concat(),
        "pipeline" => [FLOOR, &config, ROOMS].concat(),
        "agent" => [FLOOR, &config].concat(),
        "cli" => [FLOOR, &config, &["agent", "pipeline"]].concat(),
        other => panic!("src/{other} is not in the table of tests/it/walls.rs: say what it may import"),
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            found.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// Every source file: path from `src`, text, and text without comments.
fn sources() -> Vec<(String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    rust_files(&src)
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
            (path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(), text, code)
        })
        .collect()
}

/// `filters` of `filters/grep.rs`; `None` for `lib.rs` and `main.rs`, which stand above the rooms.
fn room_of(path: &str) -> Option<&str> {
    let room = path.split_once('/').map_or_else(|| path.trim_end_matches(".rs"), |(room, _)| room);
    (!matches!(room, "lib" | "main")).then_some(room)
}

/// The rooms that code names: `crate::room`, `crate::{room, other::{..}}`, `pub(in crate::room)`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, word) in code.match_indices("crate::") {
        let rest = code.get(at + word.len()..).unwrap_or_default();
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => drop(found.insert(first_name(&std::mem::take(&mut name)))),
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            found.insert(first_name(&name));
        } else {
            found.insert(first_name(rest));
        }
    }
    found.remove("");
    found
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_import_only_what_the_house_allows() {
    let mut wrong = Vec::new();
    for (path, _, code) in sources() {
        let Some(room) = room_of(&path) else { continue };
        let allowed = may_import(room);
        for import in imports(&code) {
            if import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("src/{path} imports crate::{import}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::a::B; use crate::{c, d::{E, f::G}, h}; fn x() -> crate::i::J {}";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "c", "d", "h", "i"]);
}

#[test]
fn codecs_and_parsers_touch_no_socket_file_clock_or_runtime() {
    // A time may be passed in.
    let banned = [
        "std::fs",
        "std::net",
        "std::os",
        "std::thread",
        "std::env",
        "tokio",
        "rustix",
        "Instant::now",
        "SystemTime",
    ];
    let mut wrong = Vec::new();
    for (path, _, code) in sources() {
        if room_of(&path).is_some_and(|r| PURE.contains(&r)) && !path.ends_with("tests.rs") {
            // Tests stand last in a file.
            let code = code.split("#[cfg(test)]").next().unwrap();
            wrong
                .extend(banned.iter().filter(|b| code.contains(**b)).map(|b| format!("src/{path} uses {b}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_open_with_a_sentence_and_stay_short() {
    let mut wrong = Vec::new();
    for (path, text, _) in sources() {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("src/{path} has {lines} lines, more than {MAX_LINES}: split it by noun"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("src/{path} does not open with //!"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
