//! What a configuration says about keeping records: storage and acks of an input, shares, retries and names of outputs.
//!
//! Enters: checked settings of a section and the service's. Leaves: values for the plan, and findings where they cannot
//! be kept together. Nothing here touches the world.

use std::collections::HashMap;

use crate::config::{AckLevel, Diagnostics, Overflow, Service, Settings, StorageType, value};
use crate::outputs::{RetryPolicy, gives_up};

/// Keys that say where an output sends: with the plugin and the tags they are its identity.
const DESTINATION: &[&str] = &[
    "host",
    "port",
    "unix_path",
    "uri",
    "path",
    "file",
    "region",
    "endpoint",
    "role_arn",
    "log_group_name",
    "log_group_template",
    "log_stream_name",
    "log_stream_prefix",
    "log_stream_template",
    "brokers",
    "topics",
    "topic_key",
    "bucket",
    "s3_key_format",
    "stream",
    "delivery_stream",
    "index",
];

/// What an input promises.
pub(super) struct Promise {
    pub(super) storage: StorageType,
    pub(super) ack: AckLevel,
    /// `Mem_Buf_Limit`, 0 where it has no effect.
    pub(super) mem_buf_limit: u64,
}

/// Reads `storage.type`, `ack` and `mem_buf_limit` of an input. `None` after an error.
pub(super) fn promise(settings: &Settings, service: &Service, diags: &mut Diagnostics) -> Option<Promise> {
    let storage =
        settings.str("storage.type").and_then(StorageType::parse).unwrap_or(service.storage.inherited);
    let ack = settings.str("ack").and_then(AckLevel::parse).unwrap_or_else(|| AckLevel::default_for(storage));
    let mut mem_buf_limit = settings.size("mem_buf_limit").unwrap_or(0);
    let title = format!("[INPUT] {}", settings.label);
    if ack == AckLevel::Durable && storage != StorageType::Filesystem {
        diags.error_hint(
            Some(settings.pos_of("ack")),
            format!("{title} promises ack durable, but keeps its records in memory"),
            "set storage.type filesystem here and storage.path in [SERVICE], or use ack delivered",
        );
        return None;
    }
    if storage == StorageType::Filesystem && mem_buf_limit > 0 {
        diags.warn(
            Some(settings.pos_of("mem_buf_limit")),
            format!("{title}: mem_buf_limit has no effect with storage.type filesystem; memory.limit bounds what is in memory"),
        );
        mem_buf_limit = 0;
    }
    Some(Promise { storage, ack, mem_buf_limit })
}

/// `storage.total_limit_size`: `None` when it is not set, no limit when it is off.
pub(super) fn limit(settings: &Settings) -> Option<u64> {
    let text = settings.str("storage.total_limit_size")?;
    let off = value::boolean(text) == Some(false);
    value::size(text).filter(|bytes| *bytes > 0 && !off).or(Some(u64::MAX))
}

/// `overflow`.
pub(super) fn overflow(settings: &Settings) -> Overflow {
    settings.str("overflow").and_then(Overflow::parse).unwrap_or_default()
}

/// When an output's failed batches are tried again; says after how long it gives up.
pub(super) fn retry(settings: &Settings, service: &Service, diags: &mut Diagnostics) -> RetryPolicy {
    let limit = match settings.str("retry_limit").map(str::to_ascii_lowercase).as_deref() {
        None | Some("no_limits" | "false" | "off") => None,
        Some("no_retries") => Some(0),
        // A bad number was replaced when the section was checked.
        Some(number) => value::int(number).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
    };
    let policy = RetryPolicy {
        limit,
        max_age: settings.time("retry.max_age"),
        base: service.storage.retry_base,
        cap: service.storage.retry_cap,
    };
    let name = settings.info().name;
    let title = format!("[OUTPUT] {}", settings.label);
    let set = |key| settings.entry(key).filter(|e| !e.value.is_empty());
    let said = |key| set(key).map(|e| format!("{} {}", e.written, e.value));
    let keys: Vec<String> = ["retry_limit", "retry.max_age"].into_iter().filter_map(said).collect();
    let place = set("retry_limit").or_else(|| set("retry.max_age")).map_or(settings.pos(), |e| &e.pos);
    if let Some(patience) = policy.patience() {
        let keys = keys.join(", ");
        if gives_up(name) {
            let after = match patience.as_secs() {
                0 => "at the first failure".to_owned(),
                n => format!("after {n} s of failures"),
            };
            let then = if service.storage.dead_letters.is_some() {
                "it then goes to the dead letters"
            } else {
                "it is then lost, as there is no dead_letter.path"
            };
            diags.warn(Some(place), format!("{title} gives a batch up {after} ({keys}); {then}"));
        } else {
            diags.warn(Some(place), format!("{title} never gives up: {keys} has no effect on {name}"));
        }
    }
    policy
}

/// What `check` says about an output whose defaults differ from Fluent Bit's.
pub(super) fn note(settings: &Settings) -> Option<String> {
    let set = |key| settings.entry(key).is_some_and(|e| !e.value.is_empty());
    let mut notes = Vec::new();
    if !set("retry_limit") && gives_up(settings.info().name) {
        notes.push("without Retry_Limit it never gives up (Fluent Bit: after one retry)");
    }
    if set("storage.total_limit_size") && !set("overflow") {
        notes.push(
            "at storage.total_limit_size its sources wait (Fluent Bit drops the oldest: overflow drop_oldest)",
        );
    }
    (!notes.is_empty()).then(|| format!("[OUTPUT] {}: {}", settings.label, notes.join("; ")))
}

/// Names of outputs that a restart finds again, in whatever order they are written: `Alias`, else plugin, tags and
/// destination. Full equals get numbers.
#[derive(Default)]
pub(super) struct Identities {
    /// Identity without a number, and all that the section says, to tell equals apart.
    list: Vec<(String, String)>,
}

impl Identities {
    /// Takes the next output.
    pub(super) fn add(&mut self, settings: &Settings) {
        let text = |key: &str| settings.str(key).map(|value| format!(" {key}={value:?}"));
        let name = match settings.str("alias") {
            Some(alias) => format!("alias {alias:?}"),
            None => {
                let keys = ["match", "match_regex"].into_iter().chain(DESTINATION.iter().copied());
                settings.info().name.to_owned() + &keys.filter_map(text).collect::<String>()
            }
        };
        let mut all: Vec<String> =
            settings.entries().iter().map(|e| format!("{}={:?}", e.key, e.value)).collect();
        all.sort();
        self.list.push((name, all.join(" ")));
    }

    /// The identities, in the order in which they were added.
    pub(super) fn names(&self) -> Vec<String> {
        // Among equals the number comes from the rest of the section, not from the position; those that say the same
        // to the letter may be exchanged.
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|&n| self.list.get(n));
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut names: Vec<(usize, String)> = Vec::with_capacity(order.len());
        for n in order {
            let Some((name, _)) = self.list.get(n) else { continue };
            let number = seen.entry(name).and_modify(|n| *n += 1).or_insert(1);
            names.push((n, if *number == 1 { name.clone() } else { format!("{name} #{number}") }));
        }
        names.sort();
        names.into_iter().map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::build::{Plan, plan};
    use super::*;
    use crate::config::{Document, Env, SectionKind, section};

    fn planned(service: &str, inputs: &[&str], outputs: &[&str]) -> (Plan, String) {
        let sections = |kind, list: &[&str]| {
            list.iter()
                .map(|keys| {
                    let pairs = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
                    section(kind, pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(), "f")
                })
                .collect::<Vec<_>>()
        };
        let document = Document {
            service: sections(SectionKind::Service, &[service]).remove(0).entries,
            inputs: sections(SectionKind::Input, inputs),
            outputs: sections(SectionKind::Output, outputs),
            ..Document::default()
        };
        let mut diags = Diagnostics::new();
        let service = Service::read(&document.service, &Env::of(&[]), &mut diags);
        let plan = plan(&document, &service, &mut diags);
        (plan, diags.iter().map(|d| format!("{:?} {d}", d.level)).collect::<Vec<_>>().join("|"))
    }

    fn settings(keys: &str, service: &str) -> (Settings, Service) {
        let pairs = |keys: &str| {
            let pairs = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>()
        };
        let service = section(SectionKind::Service, pairs(service), "f").entries;
        let service = Service::read(&service, &Env::of(&[]), &mut Diagnostics::new());
        let section = section(SectionKind::Output, pairs(keys), "f");
        let info = &crate::outputs::find("null").unwrap().info;
        (Settings::new("null.0".into(), info, crate::config::CORE_OUTPUT, section), service)
    }

    #[test]
    fn an_input_acks_as_its_storage_allows() {
        for (service, input, want) in [
            ("", "name=dummy", Some((StorageType::Memory, AckLevel::Delivered))),
            ("", "name=dummy ack=accept", Some((StorageType::Memory, AckLevel::Accept))),
            ("", "name=dummy ack=durable", None),
            ("", "name=dummy storage.type=memrb ack=durable", None),
            ("storage.path=/s", "name=dummy", Some((StorageType::Memory, AckLevel::Delivered))),
            (
                "storage.path=/s",
                "name=dummy storage.type=filesystem",
                Some((StorageType::Filesystem, AckLevel::Durable)),
            ),
            (
                "storage.path=/s storage.type=filesystem storage.inherit=on",
                "name=dummy ack=delivered",
                Some((StorageType::Filesystem, AckLevel::Delivered)),
            ),
            (
                "storage.path=/s storage.type=filesystem storage.inherit=on",
                "name=dummy storage.type=memory",
                Some((StorageType::Memory, AckLevel::Delivered)),
            ),
        ] {
            let (plan, found) = planned(service, &[input], &[]);
            assert_eq!(plan.inputs.first().map(|i| (i.storage, i.ack)), want, "{service} {input}: {found}");
            let refused = found.starts_with("Error f: [INPUT] dummy.0 promises ack durable")
                && found.ends_with("or use ack delivered");
            assert_eq!(refused, want.is_none(), "{found}");
        }
    }

    #[test]
    fn mem_buf_limit_has_no_effect_on_records_that_are_on_disk() {
        let input = ["name=dummy storage.type=filesystem mem_buf_limit=5M"];
        let (plan, found) = planned("storage.path=/s", &input, &[]);
        assert_eq!(plan.inputs[0].mem_buf_limit, 0);
        assert!(found.starts_with("Warning f: [INPUT] dummy.0: mem_buf_limit has no effect"), "{found}");
    }

    #[test]
    fn outputs_are_known_by_alias_or_destination_and_never_by_position() {
        let a = "name=file match=a.* path=/x file=one";
        let b = "name=file match=a.* path=/x file=two";
        let c = "name=null match=* alias=last";
        // Equal in what names them, but not in what they write.
        let d = "name=file match=b path=/y format=plain";
        let e = "name=file match=b path=/y format=csv";
        let identities = |outputs: &[&str]| {
            let (plan, _) = planned("", &["name=dummy"], outputs);
            plan.outputs.into_iter().map(|o| o.identity).collect::<Vec<_>>()
        };
        let mut one = identities(&[a, b, c, d, e]);
        assert_eq!(one[0], r#"file match="a.*" path="/x" file="one""#);
        assert_eq!(one[2], r#"alias "last""#);
        assert_eq!(one[3], format!("{} #2", one[4]));
        let mut other = identities(&[e, c, b, d, a]);
        assert_eq!((&other[0], &other[3]), (&one[4], &one[3]));
        one.sort();
        other.sort();
        assert_eq!(one, other);
        assert_eq!(identities(&[c, c]), [r#"alias "last""#, r#"alias "last" #2"#]);
    }

    #[test]
    fn limits_and_overflow_of_outputs_are_read() {
        for (keys, limit, overflow) in [
            ("", None, Overflow::Block),
            ("storage.total_limit_size=5M", Some(5_000_000), Overflow::Block),
            ("storage.total_limit_size=off overflow=drop_oldest", Some(u64::MAX), Overflow::DropOldest),
            ("storage.total_limit_size=0 overflow=DROP_newest", Some(u64::MAX), Overflow::DropNewest),
            ("storage.total_limit_size=false", Some(u64::MAX), Overflow::Block),
        ] {
            let (plan, found) = planned("", &["name=dummy"], &[&format!("name=null match=* {keys}")]);
            assert_eq!((plan.outputs[0].limit, plan.outputs[0].overflow), (limit, overflow), "{keys}");
            assert_eq!(found, "");
        }
    }

    #[test]
    fn retry_limits_are_those_of_fluent_bit_except_for_the_default() {
        for (keys, limit) in [
            ("", None),
            ("retry_limit=", None),
            ("retry_limit=no_limits", None),
            ("retry_limit=False", None),
            ("retry_limit=off", None),
            ("retry_limit=no_retries", Some(0)),
            ("retry_limit=3", Some(3)),
            ("retry_limit=99999999999", Some(u32::MAX)),
        ] {
            let (settings, service) = settings(keys, "scheduler.base=1 scheduler.cap=2");
            let policy = retry(&settings, &service, &mut Diagnostics::new());
            let want = RetryPolicy {
                limit,
                max_age: None,
                base: Duration::from_secs(1),
                cap: Duration::from_secs(2),
            };
            assert_eq!(policy, want, "{keys}");
        }
        let (settings, service) = settings("retry.max_age=1h", "");
        let policy = retry(&settings, &service, &mut Diagnostics::new());
        assert_eq!(policy.max_age, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn what_has_no_effect_on_an_output_is_said() {
        let (_, found) = planned("", &["name=dummy"], &["name=null match=* retry_limit=3 retry.max_age=5m"]);
        let want = "Warning f: [OUTPUT] null.0 never gives up: retry_limit 3, retry.max_age 5m has no effect on null";
        assert_eq!(found, want);
    }

    #[test]
    fn a_limit_without_overflow_is_noted_because_fluent_bit_drops_there() {
        let (plan, _) = planned(
            "",
            &["name=dummy"],
            &["name=null match=*", "name=null match=* storage.total_limit_size=1M"],
        );
        assert_eq!(plan.notes.len(), 1);
        assert!(plan.notes[0].starts_with("[OUTPUT] null.1: at storage.total_limit_size its sources wait"));
    }
}
