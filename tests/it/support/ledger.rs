//! The summary line, read back: `summary received=5 ... | output=file.0 routed=5 ... | filter=grep.0 dropped=1 ...`.

use std::collections::HashMap;

type Counters = HashMap<String, u64>;

/// Counters by name.
#[derive(Debug)]
pub(crate) struct Ledger {
    line: String,
    pipeline: Counters,
    outputs: HashMap<String, Counters>,
}

fn counters(part: &str) -> (Option<String>, Counters) {
    let mut label = None;
    let mut found = Counters::new();
    for (key, value) in part.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        match value.parse() {
            Ok(number) => drop(found.insert(key.to_owned(), number)),
            Err(_) => label = Some(value.to_owned()),
        }
    }
    (label, found)
}

impl Ledger {
    /// Reads the last summary line of what a router has said.
    pub(crate) fn read(messages: &str) -> Self {
        let line = messages
            .lines()
            .rfind(|l| l.starts_with("summary "))
            .unwrap_or_else(|| panic!("no summary line in:\n{messages}"));
        let mut parts = line.split(" | ");
        let (_, pipeline) = counters(parts.next().unwrap());
        let outputs =
            parts.filter(|p| p.starts_with("output=")).map(counters).map(|(l, c)| (l.unwrap(), c)).collect();
        Ledger { line: line.to_owned(), pipeline, outputs }
    }

    /// A counter of the filters' side.
    pub(crate) fn get(&self, name: &str) -> u64 {
        *self.pipeline.get(name).unwrap_or_else(|| panic!("no {name} in {}", self.line))
    }

    /// A counter of one output.
    pub(crate) fn output(&self, label: &str, name: &str) -> u64 {
        *self
            .outputs
            .get(label)
            .and_then(|o| o.get(name))
            .unwrap_or_else(|| panic!("no {label} {name} in {}", self.line))
    }

    /// Both sums.
    pub(crate) fn assert_balance(&self) {
        let sum = |c: &Counters, names: &[&str]| names.iter().map(|n| c[*n]).sum::<u64>();
        assert_eq!(
            sum(&self.pipeline, &["received", "made"]),
            sum(&self.pipeline, &["refused", "filtered", "joined", "unrouted", "routed", "holding"]),
            "filters: {}",
            self.line
        );
        assert!(!self.outputs.is_empty(), "no output in {}", self.line);
        for output in self.outputs.values() {
            let dropped: u64 = output.iter().filter(|(k, _)| k.starts_with("dropped")).map(|(_, n)| n).sum();
            assert_eq!(
                sum(output, &["routed", "recovered"]),
                sum(output, &["delivered", "dead_lettered", "held"]) + dropped,
                "output: {}",
                self.line
            );
        }
    }
}
