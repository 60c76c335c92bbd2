//! A checked configuration into plugins: nothing here touches the world, so `check` does the same as `run`.
//!
//! Enters: a [`Document`]. Leaves: a [`Plan`], and findings with file and line.

use std::sync::Arc;

use crate::config::{
    self, AckLevel, CORE_FILTER, CORE_INPUT, CORE_OUTPUT, Diagnostics, Document, Key, Overflow, PluginInfo,
    Section, Service, Settings, StorageType,
};
use crate::filters::{self, Filter};
use crate::inputs::{self, Input};
use crate::outputs::{self, Output};
use crate::router::Matcher;
use crate::text::{Library, Regex, TagPattern};

/// An input ready to start.
pub(super) struct PlannedInput {
    pub(super) label: String,
    pub(super) tag: String,
    pub(super) tag_is_set: bool,
    pub(super) mem_buf_limit: u64,
    pub(super) storage: StorageType,
    pub(super) ack: AckLevel,
    pub(super) input: Box<dyn Input>,
}

/// A filter with the tags it applies to.
pub(super) struct PlannedFilter {
    pub(super) label: String,
    pub(super) matcher: Matcher,
    pub(super) filter: Arc<dyn Filter>,
}

/// An output with the tags it takes.
pub(super) struct PlannedOutput {
    pub(super) label: String,
    pub(super) matcher: Matcher,
    /// What the log calls it, whatever its place in the configuration.
    pub(super) identity: String,
    /// `storage.total_limit_size`, bytes.
    pub(super) limit: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) output: Box<dyn Output>,
}

/// Everything a configuration asks for.
pub(super) struct Plan {
    pub(super) inputs: Vec<PlannedInput>,
    pub(super) filters: Vec<PlannedFilter>,
    pub(super) outputs: Vec<PlannedOutput>,
}

/// Builds every plugin. What could not be built is missing from the plan and reported in `diags`.
pub(super) fn plan(document: &Document, service: &Service, diags: &mut Diagnostics) -> Plan {
    let library = config::library(document, diags);
    Plan {
        inputs: each(&document.inputs, diags, |n, section, diags| input(n, section, &library, diags)),
        filters: each(&document.filters, diags, |n, section, diags| {
            filter(n, section, &library, service, diags)
        }),
        outputs: each(&document.outputs, diags, |n, section, diags| {
            output(n, section, document, service, diags)
        }),
    }
}

fn each<T>(
    sections: &[Section],
    diags: &mut Diagnostics,
    mut build: impl FnMut(usize, &Section, &mut Diagnostics) -> Option<T>,
) -> Vec<T> {
    sections.iter().enumerate().filter_map(|(n, section)| build(n, section, diags)).collect()
}

/// Finds the plugin of a section and checks its keys.
fn settle<K>(
    n: usize,
    section: &Section,
    core: &'static [Key],
    find: impl Fn(&str) -> Option<(&'static K, &'static PluginInfo)>,
    names: impl Iterator<Item = &'static str>,
    diags: &mut Diagnostics,
) -> Option<(&'static K, Settings)> {
    let name = match section.last("name") {
        Some(name) if !name.value.is_empty() => name,
        _ => {
            diags.error_hint(
                Some(&section.pos),
                format!("{} has no Name", section.kind.title()),
                "say which plugin with Name",
            );
            return None;
        }
    };
    let Some((kind, info)) = find(&name.value) else {
        let (message, hint) = config::unknown_plugin(section.kind, &name.value, names);
        diags.error_hint(Some(&name.pos), message, hint);
        return None;
    };
    let settings = config::check(section, format!("{}.{n}", info.name), info, core, diags)?;
    Some((kind, settings))
}

fn input(n: usize, section: &Section, library: &Library, diags: &mut Diagnostics) -> Option<PlannedInput> {
    let (kind, settings) = settle(
        n,
        section,
        CORE_INPUT,
        |name| inputs::find(name).map(|k| (k, &k.info)),
        inputs::KINDS.iter().map(|k| k.info.name),
        diags,
    )?;
    let input = (kind.build)(&settings, &inputs::BuildContext { library }, diags)?;
    let tag = settings.entry("tag").map(|e| e.value.clone()).filter(|t| !t.is_empty());
    Some(PlannedInput {
        label: settings.label.clone(),
        tag_is_set: tag.is_some(),
        tag: tag.unwrap_or_else(|| settings.instance.clone()),
        mem_buf_limit: settings.size("mem_buf_limit").unwrap_or(0),
        storage: match settings.str("storage.type") {
            Some("filesystem") => StorageType::Filesystem,
            Some("memrb") => StorageType::MemoryRing,
            _ => StorageType::Memory,
        },
        ack: match settings.str("storage.type") {
            Some("filesystem") => AckLevel::Durable,
            _ => AckLevel::Delivered,
        },
        input,
    })
}

fn filter(
    n: usize,
    section: &Section,
    library: &Library,
    service: &Service,
    diags: &mut Diagnostics,
) -> Option<PlannedFilter> {
    let (kind, settings) = settle(
        n,
        section,
        CORE_FILTER,
        |name| filters::find(name).map(|k| (k, &k.info)),
        filters::KINDS.iter().map(|k| k.info.name),
        diags,
    )?;
    let cx = filters::BuildContext { library, multiline_buffer_limit: service.multiline_buffer_limit };
    let filter = (kind.build)(&settings, &cx, diags)?;
    Some(PlannedFilter { label: settings.label.clone(), matcher: matcher(&settings, diags), filter })
}

fn output(
    n: usize,
    section: &Section,
    document: &Document,
    service: &Service,
    diags: &mut Diagnostics,
) -> Option<PlannedOutput> {
    let (kind, settings) = settle(
        n,
        section,
        CORE_OUTPUT,
        |name| outputs::find(name).map(|k| (k, &k.info)),
        outputs::KINDS.iter().map(|k| k.info.name),
        diags,
    )?;
    let cx = outputs::BuildContext {
        escape_unicode: service.escape_unicode,
        flush: service.flush,
        retry: outputs::RetryPolicy::default(),
    };
    let output = (kind.build)(&settings, &cx, diags)?;
    let mut matcher = matcher(&settings, diags);
    // Fluent Bit wires the only input to the only output when neither says otherwise.
    if matcher.pattern.is_none()
        && matcher.regex.is_none()
        && document.inputs.len() == 1
        && document.outputs.len() == 1
    {
        matcher.pattern = Some(TagPattern::new("*"));
    }
    Some(PlannedOutput {
        label: settings.label.clone(),
        identity: settings.label.clone(),
        limit: None,
        overflow: Overflow::Block,
        matcher,
        output,
    })
}

fn matcher(settings: &Settings, diags: &mut Diagnostics) -> Matcher {
    let regex = settings.entry("match_regex").filter(|e| !e.value.is_empty()).and_then(|entry| {
        Regex::new(&entry.value)
            .map_err(|e| {
                diags.strict(
                    Some(&entry.pos),
                    format!("bad regular expression in {}: {e}", entry.written),
                    "it matches nothing",
                );
            })
            .ok()
    });
    let pattern =
        settings.entry("match").filter(|e| !e.value.is_empty()).map(|entry| TagPattern::new(&entry.value));
    Matcher { pattern, regex }
}
