//! Configuration: text, then sections with places, then checked settings.
//!
//! Enters: a path. Leaves: a [`Document`], findings in [`Diagnostics`], and through [`check()`] a plugin's [`Settings`].

mod check;
pub mod classic;
mod core_keys;
mod diag;
mod env;
mod headers;
mod kind;
mod load;
mod multiline;
mod names;
mod parsers;
#[cfg(test)]
mod samples;
mod section;
mod service;
mod storage;
mod streams;
pub mod value;
mod whole;
pub mod yaml;
mod yaml_sections;

pub use check::{check, nearest, unknown_plugin};
pub use core_keys::{
    CORE_FILTER, CORE_INPUT, CORE_OUTPUT, EMITTER, NET_INPUT, NET_OUTPUT, PEER, TLS_FILES, TLS_INPUT,
    TLS_OUTPUT, TLS_SPOKEN_OF,
};
pub use diag::{Diagnostic, Diagnostics, Level, Pos};
pub use env::Env;
pub use kind::{Key, PluginInfo, Settings, Type};
pub use load::{load, load_with, section};
pub use parsers::library;
pub use section::{Document, Entry, Section, SectionKind};
pub use service::{KEYS as SERVICE_KEYS, Service};
pub use storage::{AckLevel, Overflow, Storage, StorageType};
pub use whole::check_whole;
