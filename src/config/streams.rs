//! Stream processor tasks of Fluent Bit, as far as a rewrite_tag filter does the same: what to write instead. Pure.
//!
//! Enters: the query of a task. Leaves: a hint; a general one where the query does more than send records on.

use fancy_regex::Regex;

/// What to do instead of a task whose query is not known.
pub(super) const HINT: &str =
    "use a filter instead: [FILTER] Name rewrite_tag, Match TAG, Rule $KEY REGEX NEW_TAG true";

/// `CREATE STREAM x WITH (tag='NEW') AS SELECT * FROM TAG:'OLD' WHERE key = 'value';`
const QUERY: &str = r"(?is)^\s*CREATE\s+STREAM\s+\S+\s+WITH\s*\(\s*tag\s*=\s*'([^']+)'\s*\)\s*AS\s+SELECT\s+\*\s+FROM\s+TAG\s*:\s*'([^']+)'(?:\s+WHERE\s+([\w.-]+(?:\['[^']+'\])*)\s*=\s*'([^']*)')?\s*;?\s*$";

/// The filter that does what the tasks do.
pub(super) fn hint<'q>(queries: impl Iterator<Item = &'q str>) -> String {
    let filters: Option<Vec<String>> = queries.map(filter).collect();
    match filters {
        Some(filters) if !filters.is_empty() => format!("use a filter instead: {}", filters.join("; ")),
        _ => HINT.to_owned(),
    }
}

fn filter(query: &str) -> Option<String> {
    let found = Regex::new(QUERY).ok()?.captures(query).ok()??;
    let (new, old) = (found.get(1)?.as_str(), found.get(2)?.as_str());
    let (key, pattern) = match (found.get(3), found.get(4)) {
        (Some(key), Some(value)) => (key.as_str(), format!("^{}$", fancy_regex::escape(value.as_str()))),
        // Any text will do, but a rule looks at one key.
        _ => ("KEY", ".".to_owned()),
    };
    let pattern = if pattern.contains(' ') { format!("\"{pattern}\"") } else { pattern };
    Some(format!("[FILTER] Name rewrite_tag, Match {old}, Rule ${key} {pattern} {new} true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_sends_records_on_has_an_equal_rule() {
        for (query, want) in [
            (
                "CREATE STREAM errors WITH (tag='app.errors') AS SELECT * FROM TAG:'app.*' WHERE level = 'error';",
                "[FILTER] Name rewrite_tag, Match app.*, Rule $level ^error$ app.errors true",
            ),
            (
                "create stream x with (tag='n') as select * from tag:'a' where k['b'] = 'c d.'",
                "[FILTER] Name rewrite_tag, Match a, Rule $k['b'] \"^c d\\.$\" n true",
            ),
            (
                "CREATE STREAM x WITH (tag='n') AS SELECT * FROM TAG:'a';",
                "[FILTER] Name rewrite_tag, Match a, Rule $KEY . n true",
            ),
        ] {
            assert_eq!(hint([query].into_iter()), format!("use a filter instead: {want}"));
        }
    }

    #[test]
    fn other_queries_get_the_general_hint() {
        let counting = "CREATE STREAM x AS SELECT COUNT(*) FROM TAG:'a' WINDOW TUMBLING (5 SECOND);";
        assert_eq!(hint([counting].into_iter()), HINT);
        assert_eq!(hint(std::iter::empty()), HINT);
    }
}
