//! The tag of a stream's records.
//!
//! Enters: a template, once; then names of groups and streams. Leaves: tags, in which `/` has become `.`. Can go wrong: a
//! template with fields that no call has.

use super::settings::Settings;
use super::window::Key;
use crate::record::{Record, Scratch, Tag, Time};
use crate::text::Template;
use crate::wire::{entry, msgpack};

/// `Tag`.
pub(super) enum TagTemplate {
    /// `awslogs.GROUP.STREAM`
    Names,
    Template(Template),
}

impl TagTemplate {
    /// Reads `Tag`; the fields that it may name are those of the records.
    pub(super) fn new(text: Option<&str>, group_key: &str, stream_key: &str) -> Result<Self, String> {
        let Some(text) = text else { return Ok(TagTemplate::Names) };
        let template = Template::new(text).map_err(|e| format!("bad template: {e}"))?;
        let known = render(&template, &[(group_key, "g"), (stream_key, "s")]).1 && !template.has_groups();
        if !known {
            return Err(format!(
                "the tag may hold ${group_key} and ${stream_key}, a call has no other fields"
            ));
        }
        Ok(TagTemplate::Template(template))
    }

    pub(super) fn render(&self, key: &Key, settings: &Settings) -> Vec<u8> {
        let (group, stream) = (key.group.replace('/', "."), key.stream.replace('/', "."));
        match self {
            TagTemplate::Names => format!("awslogs.{group}.{stream}").into_bytes(),
            TagTemplate::Template(template) => {
                render(template, &[(&settings.group_key, &group), (&settings.stream_key, &stream)]).0
            }
        }
    }
}

fn render(template: &Template, fields: &[(&str, &str); 2]) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    entry::write_head(&mut bytes, Time::new(1, 0), None);
    msgpack::write_map(&mut bytes, fields.len());
    for (key, value) in fields {
        msgpack::write_str(&mut bytes, key.as_bytes());
        msgpack::write_str(&mut bytes, value.as_bytes());
    }
    let mut scratch = Scratch::default();
    let mut out = Vec::new();
    let complete = match Record::open_next(&bytes, 0, &mut scratch) {
        Some((record, _)) => template.render(&Tag::new(b""), &record, None, &mut out),
        None => false,
    };
    (out, complete)
}

#[cfg(test)]
mod tests {
    use super::super::KIND;
    use super::*;
    use crate::config::Diagnostics;
    use crate::inputs::testing;

    fn tag(keys: &[(&str, &str)]) -> String {
        let mut diags = Diagnostics::new();
        let settings = Settings::read(&testing::settings(&KIND.info, keys), &mut diags);
        let Some(settings) = settings else { return diags.iter().map(ToString::to_string).collect() };
        let key = Key { group: "/ecs/shop".into(), stream: "web/app/0f1e".into() };
        String::from_utf8(settings.tag.render(&key, &settings)).unwrap()
    }

    #[test]
    fn tags_are_made_of_names_or_of_a_template() {
        assert_eq!(tag(&[]), "awslogs..ecs.shop.web.app.0f1e");
        assert_eq!(tag(&[("tag", "app")]), "app");
        assert_eq!(tag(&[("tag", "aws.$log_stream")]), "aws.web.app.0f1e");
        assert_eq!(tag(&[("group_key", "g"), ("tag", "x.$g.y")]), "x..ecs.shop.y");
        assert!(tag(&[("tag", "x.$nosuch")]).contains("may hold $log_group and $log_stream"));
        assert!(tag(&[("tag", "x.$1")]).contains("may hold $log_group and $log_stream"));
        assert!(tag(&[("tag", "x.$a/$b")]).contains("bad template"));
    }
}
