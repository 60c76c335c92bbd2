//! Checks a section against a plugin's table.

use super::diag::Diagnostics;
use super::kind::{Key, PluginInfo, Settings, Type};
use super::section::Section;

/// Keys every input takes.
pub const CORE_INPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("tag", Type::Str, "tag of the records; the instance name when it is not set"),
];
/// Keys every filter takes.
pub const CORE_FILTER: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it applies to; * stands for any run"),
];
/// Keys every output takes.
pub const CORE_OUTPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it takes; * stands for any run"),
];
/// Keys of inputs that listen on the network.
pub const NET_INPUT: &[Key] = &[Key::new("listen", Type::Str, "address").default("0.0.0.0")];
/// TLS keys of inputs.
pub const TLS_INPUT: &[Key] = &[Key::new("tls", Type::Bool, "TLS on the listener").default("off")];

/// Checks keys and values. `None` after an error.
pub fn check(
    section: &Section,
    instance: String,
    info: &'static PluginInfo,
    core: &'static [Key],
    _diags: &mut Diagnostics,
) -> Option<Settings> {
    Some(Settings::new(instance, info, core, section.clone()))
}

/// The candidate closest to `word`, if one is close enough to be meant.
pub fn nearest<'a>(_word: &str, _candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    None
}
