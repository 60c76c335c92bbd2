//! `explain`: the tables of plugins and keys, as text. The tables are those that check configurations.

use std::fmt::Write;
use std::process::ExitCode;

use super::{EXIT_USAGE, complain, say};
use crate::config::{Key, PluginInfo, SERVICE_KEYS, Type, nearest};
use crate::pipeline::catalog::{Row, plugins};

const MORE: &str = "\n\
    firelane explain filter grep   the keys of a plugin\n\
    firelane explain service       the keys of [SERVICE]\n";

/// Prints the lists, or what is asked for.
pub(super) fn explain(what: Option<&str>, name: Option<&str>) -> ExitCode {
    match text(what, name) {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain("error", message);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn text(what: Option<&str>, name: Option<&str>) -> Result<String, String> {
    let all: Vec<Row> = plugins().collect();
    let Some(what) = what else { return Ok(list(&all, None) + MORE) };
    let kind = what.trim_matches(['[', ']']).trim_end_matches(['s', 'S']).to_ascii_lowercase();
    if kind == "service" {
        return Ok("[SERVICE]: settings of the process\n\n".to_owned() + &keys(SERVICE_KEYS.iter()));
    }
    let is_kind = ["input", "filter", "output"].contains(&kind.as_str());
    let wanted = match name {
        None if is_kind => return Ok(list(&all, Some(&kind))),
        None => what,
        Some(_) if !is_kind => return Err(format!("{what} is none of input, filter and output")),
        Some(name) => name,
    };
    let found: Vec<String> = all
        .iter()
        .filter(|row| (!is_kind || row.kind == kind) && is_called(row.info, wanted))
        .map(plugin)
        .collect();
    if found.is_empty() {
        let guess = match nearest(&wanted.to_ascii_lowercase(), all.iter().map(|r| r.info.name)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "firelane explain lists all".to_owned(),
        };
        let kind = if is_kind { kind.as_str() } else { "plugin" };
        return Err(format!("no {kind} is called {wanted}; {guess}"));
    }
    Ok(found.join("\n"))
}

fn is_called(info: &PluginInfo, name: &str) -> bool {
    std::iter::once(&info.name).chain(info.aliases).any(|n| n.eq_ignore_ascii_case(name))
}

fn list(all: &[Row], kind: Option<&str>) -> String {
    let mut out = String::new();
    let mut last = "";
    for Row { kind: k, info, .. } in all.iter().filter(|row| kind.is_none_or(|k| row.kind == k)) {
        if *k != last {
            line(&mut out, format_args!("{}{k}s:", if last.is_empty() { "" } else { "\n" }));
            last = k;
        }
        line(&mut out, format_args!("  {:<18} {}", info.name, info.summary));
    }
    out
}

fn plugin(Row { kind, info, core }: &Row) -> String {
    let mut out = String::new();
    line(&mut out, format_args!("{kind} {}: {}", info.name, info.summary));
    if !info.aliases.is_empty() {
        line(&mut out, format_args!("also called {}", info.aliases.join(", ")));
    }
    if info.all_keys().next().is_some() {
        line(&mut out, format_args!("\nIts keys:\n"));
        out += &keys(info.all_keys());
    }
    line(&mut out, format_args!("\nKeys that every {kind} takes:\n"));
    // A plugin lists some of them to say more.
    out += &keys(core.iter().filter(|c| info.all_keys().all(|k| k.name != c.name)));
    out
}

fn keys<'k>(keys: impl Iterator<Item = &'k Key>) -> String {
    let rows: Vec<(String, &Key)> =
        keys.map(|k| (if k.prefix { format!("{}*", k.name) } else { k.name.to_owned() }, k)).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (name, key) in rows {
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
        let multi = if key.multi { ", repeatable" } else { "" };
        let default = key.default.or(key.otherwise).map(|d| format!(" [{d}]")).unwrap_or_default();
        line(&mut out, format_args!("  {name:<width$}  {ty:<8} {}{multi}{default}", key.help));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _always_ok = writeln!(out, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_is_listed_and_explained() {
        let all = text(None, None).unwrap();
        for Row { kind, info, .. } in plugins() {
            assert!(all.contains(info.name), "{}", info.name);
            let one = text(Some(kind), Some(info.name)).unwrap();
            for key in info.all_keys() {
                let shown = one.lines().filter(|l| {
                    l.strip_prefix("  ").is_some_and(|l| l.split_whitespace().next() == Some(key.name))
                });
                assert_eq!(shown.count(), usize::from(!key.prefix), "{} {}", info.name, key.name);
            }
        }
        assert!(text(Some("grep"), None).unwrap().contains("exclude"));
        assert!(text(Some("filters"), None).unwrap().contains("grep"));
        assert!(text(Some("service"), None).unwrap().contains("flush"));
    }

    #[test]
    fn a_misspelt_name_gets_a_guess() {
        assert_eq!(text(Some("grpe"), None).unwrap_err(), "no plugin is called grpe; did you mean grep?");
        assert!(
            text(Some("filter"), Some("forward")).unwrap_err().starts_with("no filter is called forward")
        );
        assert!(text(Some("grep"), Some("x")).is_err());
    }
}
