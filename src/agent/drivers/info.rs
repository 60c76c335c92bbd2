//! What a log driver says of its container: the tag, labels, environment.
//!
//! Enters: the container's names and the options `tag`, `labels`, `labels-regex`, `env`, `env-regex`. Leaves: the tag's text
//! and the extra attributes. Can go wrong: a template with more in it than a field, a pattern that is none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::options::Options;
use super::template::{Bad, Template};
use crate::agent::plan::names;
use crate::text::Regex;

/// A container, as a driver sees it. `Debug` prints no values of its variables.
#[derive(Clone, Default)]
pub struct Info {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the slash that docker puts before it.
    pub name: String,
    /// The image as the task definition names it.
    pub image: String,
    /// entryPoint and command.
    pub command: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// This machine's name.
    pub hostname: String,
    /// Where `json-file` writes.
    pub log_path: PathBuf,
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("env", &names(&self.env))
            .finish_non_exhaustive()
    }
}

impl Info {
    /// The text of `tag`, or of the driver's own template.
    ///
    /// # Errors
    /// When the template is none, or is one for docker alone.
    pub(super) fn tag(&self, options: &Options, default: &str) -> Result<String, String> {
        let template = options.get("tag").filter(|t| !t.is_empty()).map_or(default, String::as_str);
        Template::new(template).map_err(Bad::text)?.render(self, &self.extra(options)?)
    }

    /// Labels and variables that a driver was asked to add.
    ///
    /// # Errors
    /// When a pattern is none.
    pub(super) fn extra(&self, options: &Options) -> Result<BTreeMap<String, String>, String> {
        let mut out = BTreeMap::new();
        let list = |name: &str| options.get(name).filter(|v| !v.is_empty());
        let env: BTreeMap<&String, &String> = self.env.iter().map(|(k, v)| (k, v)).collect();
        for (names, pattern, from) in [
            (list("labels"), list("labels-regex"), self.labels.iter().collect()),
            (list("env"), list("env-regex"), env),
        ] {
            let named: Vec<&str> = names.iter().flat_map(|n| n.split(',')).collect();
            let pattern = pattern.map(|p| Regex::new(p)).transpose()?;
            for (key, value) in from {
                let wanted = named.contains(&key.as_str())
                    || pattern.as_ref().is_some_and(|p| p.is_match(key.as_bytes()));
                if wanted {
                    out.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::of;
    use super::*;

    fn info() -> Info {
        Info {
            id: "0123456789abcdef".repeat(4),
            name: "ecs-web-1".into(),
            image: "Web:latest".into(),
            command: vec!["sh".into(), "-c".into()],
            env: vec![("A".into(), "1".into()), ("AB".into(), "2".into()), ("C".into(), "3".into())],
            labels: [("x".to_owned(), "y".to_owned())].into(),
            hostname: "host".into(),
            log_path: PathBuf::new(),
        }
    }

    #[test]
    fn a_tag_is_text_and_fields() {
        for (template, want) in [
            ("web-firelens-1", "web-firelens-1"),
            ("{{.ID}}", "0123456789ab"),
            ("{{ .Name }}/{{.Hostname}}", "ecs-web-1/host"),
            ("{{lower .ImageName}} {{.Command}}", "web:latest sh -c"),
        ] {
            assert_eq!(info().tag(&of(&[("tag", template)]), "").unwrap(), want);
        }
        assert_eq!(info().tag(&of(&[]), "{{.DaemonName}}").unwrap(), "docker");
        let extra = [("tag", "{{(.ExtraAttributes nil).C}}"), ("env", "C")];
        assert_eq!(info().tag(&of(&extra), "").unwrap(), "3");
        assert!(info().tag(&of(&[("tag", "{{.Nope}}")]), "").unwrap_err().contains("{{.Nope}}"));
        assert!(info().tag(&of(&[("tag", "{{.ID")]), "").is_err());
    }

    #[test]
    fn extra_attributes_are_named_or_match() {
        let extra = |pairs: &[(&str, &str)]| {
            info().extra(&of(pairs)).unwrap().into_iter().map(|(k, v)| k + "=" + &v).collect::<Vec<_>>()
        };
        assert_eq!(extra(&[("env", "C,none"), ("labels", "x")]), ["C=3", "x=y"]);
        assert_eq!(extra(&[("env-regex", "^A")]), ["A=1", "AB=2"]);
        assert!(info().extra(&of(&[("labels-regex", "(")])).is_err());
    }
}
