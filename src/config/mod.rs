//! Configuration: text, then sections with places, then checked settings.
//!
//! Enters: a path. Leaves: a [`Document`], findings in [`Diagnostics`], and through [`check`] a plugin's [`Settings`].

mod check;
mod classic;
mod diag;
mod env;
mod kind;
mod load;
mod section;
mod service;
pub mod value;
mod yaml;

pub use check::{CORE_FILTER, CORE_INPUT, CORE_OUTPUT, NET_INPUT, TLS_INPUT, check, nearest};
pub use diag::{Diagnostic, Diagnostics, Level, Pos};
pub use env::Env;
pub use kind::{Key, PluginInfo, Settings, Type};
pub use load::load;
pub use section::{Document, Entry, Section, SectionKind};
pub use service::Service;
