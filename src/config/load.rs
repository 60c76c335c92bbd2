//! Reads the main file and everything it includes.

use std::path::{Path, PathBuf};

use super::diag::Diagnostics;
use super::env::Env;
use super::section::Document;

/// Reads `path` (YAML by its extension, else classic) and what it includes; `parsers` are further parsers files (`-R`).
pub fn load(path: &Path, _parsers: &[PathBuf], _env: &mut Env, _diags: &mut Diagnostics) -> Document {
    Document { main: path.display().to_string(), ..Document::default() }
}
