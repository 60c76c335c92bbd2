//! `explain`: the tables of plugins and keys, as text. The tables are those that check configurations.

use std::process::ExitCode;

use super::EXIT_USAGE;
use crate::config::{CORE_FILTER, CORE_INPUT, CORE_OUTPUT, Key, PluginInfo, Type, nearest};
use crate::{filters, inputs, outputs};

type Row = (&'static str, &'static PluginInfo, &'static [Key]);

fn plugins() -> Vec<Row> {
    let inputs = inputs::KINDS.iter().map(|k| ("input", &k.info, CORE_INPUT));
    let filters = filters::KINDS.iter().map(|k| ("filter", &k.info, CORE_FILTER));
    let outputs = outputs::KINDS.iter().map(|k| ("output", &k.info, CORE_OUTPUT));
    inputs.chain(filters).chain(outputs).collect()
}

pub(super) fn explain(what: Option<&str>, name: Option<&str>) -> ExitCode {
    let all = plugins();
    let Some(what) = what else {
        list(&all, |_| true);
        println!("\nfirelane explain filter grep   shows the keys of a plugin");
        return ExitCode::SUCCESS;
    };
    let kind = what.trim_end_matches('s').to_ascii_lowercase();
    let is_kind = ["input", "filter", "output"].contains(&kind.as_str());
    let (kind, name) = match (is_kind, name) {
        (true, None) => {
            list(&all, |row| row.0 == kind);
            return ExitCode::SUCCESS;
        }
        (true, Some(name)) => (Some(kind), name),
        (false, _) => (None, what),
    };
    let found: Vec<&Row> = all
        .iter()
        .filter(|row| kind.as_deref().is_none_or(|k| row.0 == k) && row.1.name.eq_ignore_ascii_case(name))
        .collect();
    if found.is_empty() {
        let guess = match nearest(name, all.iter().map(|r| r.1.name)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "firelane explain lists all".to_owned(),
        };
        eprintln!("error: no plugin is called {name}; {guess}");
        return ExitCode::from(EXIT_USAGE);
    }
    for (kind, info, core) in found {
        println!("{kind} {}: {}\n", info.name, info.summary);
        keys(info.all_keys());
        println!("\nKeys that every {kind} takes:\n");
        keys(core.iter());
        println!();
    }
    ExitCode::SUCCESS
}

fn list(all: &[Row], keep: impl Fn(&Row) -> bool) {
    let mut last = "";
    for row in all.iter().filter(|r| keep(r)) {
        if row.0 != last {
            println!("{}{}s", if last.is_empty() { "" } else { "\n" }, row.0);
            last = row.0;
        }
        println!("  {:<18} {}", row.1.name, row.1.summary);
    }
}

fn keys(keys: impl Iterator<Item = &'static Key>) {
    for key in keys {
        let ty = match key.ty {
            Type::Str => "text",
            Type::Bool => "on|off",
            Type::Int => "number",
            Type::Float => "decimal",
            Type::Size => "size",
            Type::Time => "time",
            Type::List => "list",
            Type::Words(_) => "words",
            Type::Regex => "pattern",
        };
        let default = key.default.map(|d| format!(" [{d}]")).unwrap_or_default();
        let multi = if key.multi { " (repeatable)" } else { "" };
        println!("  {:<28} {ty:<8} {}{multi}{default}", key.name, key.help);
    }
}
