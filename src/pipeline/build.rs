//! A checked configuration into plugins: nothing here touches the world, so `check` does the same as `run`.
//!
//! Enters: a [`Document`]. Leaves: a [`Plan`], and findings with file and line.

use std::sync::Arc;

use super::keeping::{self, Identities};
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
    /// 0: no limit.
    pub(super) mem_buf_limit: u64,
    pub(super) storage: StorageType,
    pub(super) ack: AckLevel,
    /// The one output that gets its records, whatever their tags.
    pub(super) only: Option<usize>,
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
    /// What a restart knows it by: see [`Identities`].
    pub(super) identity: String,
    /// `storage.total_limit_size`; `None`: its part of the whole.
    pub(super) limit: Option<u64>,
    pub(super) overflow: Overflow,
    pub(super) matcher: Matcher,
    pub(super) output: Box<dyn Output>,
}

/// Everything a configuration asks for.
pub(super) struct Plan {
    pub(super) inputs: Vec<PlannedInput>,
    pub(super) filters: Vec<PlannedFilter>,
    pub(super) outputs: Vec<PlannedOutput>,
    /// Where what firelane does by default differs from Fluent Bit; `check` says it.
    pub(super) notes: Vec<String>,
}

/// Builds every plugin. What could not be built is missing from the plan and reported in `diags`.
pub(super) fn plan(document: &Document, service: &Service, diags: &mut Diagnostics) -> Plan {
    let library = config::library(document, diags);
    let (mut identities, mut notes) = (Identities::default(), Vec::new());
    let inputs =
        each(&document.inputs, diags, |n, section, diags| input(n, section, &library, service, diags));
    let filters =
        each(&document.filters, diags, |n, section, diags| filter(n, section, &library, service, diags));
    let mut outputs = each(&document.outputs, diags, |n, section, diags| {
        let (settings, output) = output(n, section, document, service, diags)?;
        identities.add(&settings);
        notes.extend(keeping::note(&settings));
        Some(output)
    });
    for (output, identity) in outputs.iter_mut().zip(identities.names()) {
        output.identity = identity;
    }
    Plan { inputs, filters, outputs, notes }
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

fn input(
    n: usize,
    section: &Section,
    library: &Library,
    service: &Service,
    diags: &mut Diagnostics,
) -> Option<PlannedInput> {
    let (kind, settings) = settle(
        n,
        section,
        CORE_INPUT,
        |name| inputs::find(name).map(|k| (k, &k.info)),
        inputs::KINDS.iter().map(|k| k.info.name),
        diags,
    )?;
    let input = (kind.build)(&settings, &inputs::BuildContext { library }, diags);
    let promise = keeping::promise(&settings, service, diags)?;
    let tag = settings.entry("tag").map(|e| e.value.clone()).filter(|t| !t.is_empty());
    Some(PlannedInput {
        label: settings.label.clone(),
        tag_is_set: tag.is_some(),
        tag: tag.unwrap_or_else(|| settings.instance.clone()),
        mem_buf_limit: promise.mem_buf_limit,
        storage: promise.storage,
        ack: promise.ack,
        only: None,
        input: input?,
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
) -> Option<(Settings, PlannedOutput)> {
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
        retry: keeping::retry(&settings, service, diags),
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
    let output = PlannedOutput {
        label: settings.label.clone(),
        identity: String::new(),
        limit: keeping::limit(&settings),
        overflow: keeping::overflow(&settings),
        matcher,
        output,
    };
    Some((settings, output))
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
