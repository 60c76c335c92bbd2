//! What only the whole document shows: filters and outputs that get nothing, ports that are wanted twice, TLS keys without
//! TLS, storage that has no place.
//!
//! Enters: a [`Document`]. Leaves: findings.

use super::diag::Diagnostics;
use super::section::{Document, Entry, Section};
use super::value;
use crate::text::{Regex, TagPattern};

/// Inputs whose records all have the input's tag. Others take it from the client or a file's name.
const ONE_TAG: &[&str] = &["dummy", "stdin", "tcp"];

/// Inputs that listen, and where they do if nothing else is said.
const PORTS: &[(&str, &str)] =
    &[("forward", "24224"), ("tcp", "5170"), ("cloudwatch_logs", "4586"), ("awslogs", "4586")];
/// Every address of the machine.
const ANY: &str = "0.0.0.0";

/// Checks what concerns more than one section.
pub fn check_whole(document: &Document, diags: &mut Diagnostics) {
    filters(document, diags);
    outputs(document, diags);
    plain_text(document, diags);
    ports(document, diags);
    overflow(document, diags);
    storage(document, diags);
}

fn outputs(document: &Document, diags: &mut Diagnostics) {
    let tags = known_tags(document);
    // Fluent Bit wires the only input to the only output when neither says otherwise.
    let wired = document.inputs.len() == 1 && document.outputs.len() == 1;
    for (n, section) in document.outputs.iter().enumerate() {
        let title = format!("[OUTPUT] {}", instance(section, n));
        let (plain, regex) = (set(section, "match"), set(section, "match_regex"));
        let Some(entry) = plain.or(regex) else {
            if !wired {
                let does = "it gets nothing; say which tags: Match *";
                diags.strict(Some(&section.pos), format!("{title} has no Match"), does);
            }
            continue;
        };
        if let Some(tags) = &tags
            && matches_none(section, tags)
        {
            diags.strict(
                Some(&entry.pos),
                format!("{title} matches the tag of no input"),
                format!("it gets nothing; the tags are {}", tags.join(", ")),
            );
        }
    }
}

/// A filter without a Match is refused where it is built.
fn filters(document: &Document, diags: &mut Diagnostics) {
    let Some(tags) = known_tags(document) else { return };
    for (n, section) in document.filters.iter().enumerate() {
        let Some(entry) = set(section, "match").or(set(section, "match_regex")) else { continue };
        if matches_none(section, &tags) {
            diags.strict(
                Some(&entry.pos),
                format!("[FILTER] {} matches the tag of no input", instance(section, n)),
                format!("it does nothing; the tags are {}", tags.join(", ")),
            );
        }
    }
}

/// Whether Match and Match_Regex of a section fit none of the tags.
fn matches_none(section: &Section, tags: &[String]) -> bool {
    let pattern = set(section, "match").map(|e| TagPattern::new(&e.value));
    // One that does not compile is reported where it is used.
    let Ok(regex) = set(section, "match_regex").map(|e| Regex::new(&e.value)).transpose() else {
        return false;
    };
    !tags.iter().any(|tag| {
        pattern.as_ref().is_some_and(|p| p.matches(tag.as_bytes()))
            || regex.as_ref().is_some_and(|r| r.is_match_at_start(tag.as_bytes()))
    })
}

/// Inputs that were given a certificate, or were told to ask for one, and take everybody in plain text.
fn plain_text(document: &Document, diags: &mut Diagnostics) {
    for (n, section) in document.inputs.iter().enumerate() {
        let on = |key: &str| section.last(key).and_then(|e| value::boolean(&e.value)) == Some(true);
        let asks = |e: &&Entry| match e.key.as_str() {
            "tls.crt_file" | "tls.key_file" => !e.value.is_empty(),
            "tls.verify_client_cert" => on("tls.verify_client_cert"),
            _ => false,
        };
        if !on("tls")
            && let Some(entry) = section.entries.iter().find(asks)
        {
            let message =
                format!("{} of [INPUT] {} is set, and tls is not on", entry.written, instance(section, n));
            diags.strict(Some(&entry.pos), message, "it takes plain text from everybody; set tls on");
        }
    }
}

/// The tags that records can have, if they can be known: not where a client or a rewrite_tag filter makes them.
fn known_tags(document: &Document) -> Option<Vec<String>> {
    if document.inputs.is_empty() {
        return None;
    }
    let plugin = |section: &Section| section.last("name").map(|e| e.value.to_ascii_lowercase());
    if document.filters.iter().any(|f| plugin(f).as_deref() == Some("rewrite_tag")) {
        return None;
    }
    document
        .inputs
        .iter()
        .enumerate()
        .map(|(n, section)| {
            let name = plugin(section)?;
            // A Tag replaces those of forward's clients, if no prefix is put before them.
            let one = ONE_TAG.contains(&name.as_str())
                || (name == "forward"
                    && set(section, "tag_prefix").is_none()
                    && set(section, "tag").is_some());
            one.then(|| set(section, "tag").map_or_else(|| format!("{name}.{n}"), |e| e.value.clone()))
        })
        .collect()
}

/// Two inputs that want one port: the second could not open it.
fn ports(document: &Document, diags: &mut Diagnostics) {
    let mut taken: Vec<(String, String, String)> = Vec::new();
    for (n, section) in document.inputs.iter().enumerate() {
        let name = section.last("name").map(|e| e.value.to_ascii_lowercase()).unwrap_or_default();
        let Some((_, usual)) = PORTS.iter().find(|(plugin, _)| *plugin == name) else { continue };
        if set(section, "unix_path").is_some() {
            continue;
        }
        let value =
            |key: &str, usual: &str| set(section, key).map_or_else(|| usual.to_owned(), |e| e.value.clone());
        let (host, port) = (value("listen", ANY), value("port", usual));
        let clash =
            |(h, p, _): &&(String, String, String)| *p == port && (*h == host || h == ANY || host == ANY);
        if let Some((_, _, other)) = taken.iter().find(clash).filter(|_| port != "0") {
            diags.error_hint(
                Some(set(section, "port").map_or(&section.pos, |e| &e.pos)),
                format!("[INPUT] {} wants port {port}, as {other} does", instance(section, n)),
                "give one of them another port, or another address to listen on",
            );
        }
        taken.push((host, port, instance(section, n)));
    }
}

/// Records that are in memory only wait with their source.
fn overflow(document: &Document, diags: &mut Diagnostics) {
    let on_disk = document.inputs.iter().any(|section| on_disk(document, section).is_some());
    for (n, section) in document.outputs.iter().enumerate() {
        if let Some(entry) = section.last("overflow")
            && !on_disk
            && !matches!(entry.value.to_ascii_lowercase().as_str(), "" | "block")
        {
            diags.strict(
                Some(&entry.pos),
                format!(
                    "overflow {} of [OUTPUT] {} has no effect: no input has storage.type filesystem",
                    entry.value,
                    instance(section, n)
                ),
                "sources wait where it is behind; storage.type memrb on an input drops its oldest",
            );
        }
    }
}

/// An input that wants its records on disk needs a place for them; Fluent Bit refuses it, too.
fn storage(document: &Document, diags: &mut Diagnostics) {
    if service(document, "storage.path").is_some_and(|e| !e.value.is_empty()) {
        return;
    }
    for (n, section) in document.inputs.iter().enumerate() {
        if let Some(entry) = on_disk(document, section) {
            diags.error_hint(
                Some(&entry.pos),
                format!(
                    "[INPUT] {} wants storage.type filesystem, but there is no storage.path",
                    instance(section, n)
                ),
                "set storage.path in [SERVICE]",
            );
        }
    }
}

/// The last entry of a key that has a value.
fn set<'s>(section: &'s Section, key: &str) -> Option<&'s Entry> {
    section.last(key).filter(|e| !e.value.is_empty())
}

/// The last entry of a key of `[SERVICE]`.
fn service<'d>(document: &'d Document, key: &str) -> Option<&'d Entry> {
    document.service.iter().rev().find(|e| e.key == key)
}

/// What says that an input's records go to the disk, if they do.
fn on_disk<'d>(document: &'d Document, input: &'d Section) -> Option<&'d Entry> {
    let inherit = service(document, "storage.inherit").and_then(|e| value::boolean(&e.value)) == Some(true);
    let common = service(document, "storage.type").filter(|_| inherit);
    input.last("storage.type").or(common).filter(|e| e.value.eq_ignore_ascii_case("filesystem"))
}

fn instance(section: &Section, n: usize) -> String {
    section
        .last("name")
        .map_or_else(|| format!("number {n}"), |e| format!("{}.{n}", e.value.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SectionKind;
    use crate::config::load::section;

    fn sections(kind: SectionKind, list: &[&str]) -> Vec<Section> {
        list.iter()
            .map(|keys| {
                let entries = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
                section(kind, entries.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(), "f")
            })
            .collect()
    }

    fn findings(service: &str, inputs: &[&str], filters: &[&str], outputs: &[&str]) -> String {
        let document = Document {
            service: sections(SectionKind::Service, &[service]).remove(0).entries,
            inputs: sections(SectionKind::Input, inputs),
            filters: sections(SectionKind::Filter, filters),
            outputs: sections(SectionKind::Output, outputs),
            ..Document::default()
        };
        let mut diags = Diagnostics::new();
        check_whole(&document, &mut diags);
        diags.iter().map(|d| format!("{:?} {d}", d.level)).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn outputs_that_get_nothing_are_named_when_that_can_be_known() {
        for (inputs, filters, outputs, want) in [
            (&["name=dummy"][..], &[][..], &["name=null"][..], ""),
            (&["name=dummy"], &[], &["name=null match="], ""),
            (
                &["name=dummy", "name=tcp"],
                &[],
                &["name=null"],
                "Strict f: [OUTPUT] null.0 has no Match; it gets nothing",
            ),
            (&["name=dummy", "name=tcp"], &[], &["name=null match=tcp.1"], ""),
            (
                &["name=dummy", "name=tcp tag=t"],
                &[],
                &["name=null match=x*", "name=file match_regex=^t"],
                "Strict f: [OUTPUT] null.0 matches the tag of no input; it gets nothing; the tags are dummy.0, t",
            ),
            (&["name=dummy"], &["name=rewrite_tag"], &["name=null match=x"], ""),
            (&["name=forward"], &[], &["name=null match=x"], ""),
            (
                &["name=forward tag=a"],
                &[],
                &["name=null match=x"],
                "Strict f: [OUTPUT] null.0 matches the tag of no",
            ),
            (&["name=forward tag=a tag_prefix=b"], &[], &["name=null match=x"], ""),
            (&["name=dummy"], &[], &["name=null match_regex=(x"], ""),
        ] {
            let found = findings("", inputs, filters, outputs);
            assert!(
                found.starts_with(want) && found.is_empty() == want.is_empty(),
                "{inputs:?} {outputs:?}: {found}"
            );
            assert!(!found.contains('|'), "{found}");
        }
    }

    #[test]
    fn filters_that_apply_to_nothing_are_named() {
        let found = findings(
            "",
            &["name=dummy"],
            &["name=grep match=x", "name=grep match=*"],
            &["name=null match=*"],
        );
        assert_eq!(
            found,
            "Strict f: [FILTER] grep.0 matches the tag of no input; it does nothing; the tags are dummy.0"
        );
        assert_eq!(findings("", &["name=forward"], &["name=grep match=x"], &["name=null match=*"]), "");
    }

    #[test]
    fn an_input_with_a_certificate_and_without_tls_is_named() {
        for (input, want) in [
            (
                "name=tcp tls.crt_file=/c",
                "Strict f: tls.crt_file of [INPUT] tcp.0 is set, and tls is not on; it takes plain",
            ),
            ("name=tcp tls.verify_client_cert=on", "Strict f: tls.verify_client_cert of"),
            ("name=tcp tls.verify_client_cert=off tls=off", ""),
            ("name=tcp tls.crt_file=/c tls=on", ""),
        ] {
            let found = findings("", &[input], &[], &["name=null match=*"]);
            assert!(found.starts_with(want) && found.is_empty() == want.is_empty(), "{input}: {found}");
        }
    }

    #[test]
    fn a_port_that_two_inputs_want_is_named() {
        let found = |inputs: &[&str]| findings("", inputs, &[], &["name=null match=*"]);
        for inputs in [
            ["name=forward", "name=forward"],
            ["name=tcp port=9", "name=forward port=9 listen=127.0.0.1"],
            ["name=awslogs listen=127.0.0.1", "name=tcp port=4586 listen=127.0.0.1"],
        ] {
            assert!(found(&inputs).contains("wants port"), "{inputs:?}");
        }
        for inputs in [
            ["name=forward", "name=tcp"],
            ["name=forward", "name=forward unix_path=/s"],
            ["name=tcp listen=127.0.0.1", "name=tcp listen=127.0.0.2"],
            ["name=tcp port=0", "name=tcp port=0"],
        ] {
            assert_eq!(found(&inputs), "", "{inputs:?}");
        }
    }

    #[test]
    fn overflow_of_an_output_that_never_gets_anything_from_disk_is_named() {
        let output = &["name=null match=* overflow=drop_oldest"][..];
        let found = findings("", &["name=dummy"], &[], output);
        assert!(
            found.starts_with("Strict f: overflow drop_oldest of [OUTPUT] null.0 has no effect"),
            "{found}"
        );
        assert_eq!(findings("storage.path=/x", &["name=dummy storage.type=filesystem"], &[], output), "");
        assert_eq!(findings("", &["name=dummy"], &[], &["name=null match=* overflow=block"]), "");
    }

    #[test]
    fn storage_on_disk_needs_a_path() {
        let input = &["name=dummy storage.type=filesystem"][..];
        assert!(
            findings("", input, &[], &[])
                .starts_with("Error f: [INPUT] dummy.0 wants storage.type filesystem")
        );
        assert_eq!(findings("storage.path=/x", input, &[], &[]), "");
        assert_eq!(findings("storage.type=filesystem", &["name=dummy"], &[], &[]), "");
        let inherited = findings("storage.type=filesystem storage.inherit=on", &["name=dummy"], &[], &[]);
        assert!(inherited.starts_with("Error"), "{inherited}");
    }
}
