//! The tables of all plugins in one list, for those who only read them (`explain`).

use crate::config::{CORE_FILTER, CORE_INPUT, CORE_OUTPUT, Key, PluginInfo};
use crate::{filters, inputs, outputs};

/// A plugin as a reader sees it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// `input`, `filter` or `output`.
    pub kind: &'static str,
    /// Its own table.
    pub info: &'static PluginInfo,
    /// The keys that every plugin of its kind takes.
    pub core: &'static [Key],
}

/// Every plugin there is: inputs, filters, outputs.
pub fn plugins() -> impl Iterator<Item = Row> {
    let inputs = inputs::KINDS.iter().map(|k| Row { kind: "input", info: &k.info, core: CORE_INPUT });
    let filters = filters::KINDS.iter().map(|k| Row { kind: "filter", info: &k.info, core: CORE_FILTER });
    let outputs = outputs::KINDS.iter().map(|k| Row { kind: "output", info: &k.info, core: CORE_OUTPUT });
    inputs.chain(filters).chain(outputs)
}
