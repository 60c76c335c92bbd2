//! `@SET` variables and the process environment.

use std::collections::HashMap;

/// Variables for `${NAME}`.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `@SET` and `env:`; they shadow the process.
    pub set: HashMap<String, String>,
    /// The process environment.
    pub process: HashMap<String, String>,
}

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Env {
        Env { set: HashMap::new(), process: std::env::vars().collect() }
    }
}
