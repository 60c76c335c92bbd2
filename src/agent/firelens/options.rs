//! `firelensConfiguration`, read as the ECS agent reads it.
//!
//! Enters: type and options. Leaves: what they mean. Can go wrong: in the ECS agent's words.

use crate::agent::definition::FirelensConfiguration;

/// What the router is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Fluent Bit, or what reads its configuration.
    Fluentbit,
    /// Fluentd.
    Fluentd,
}

impl Kind {
    /// As the definition writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fluentbit => "fluentbit",
            Kind::Fluentd => "fluentd",
        }
    }

    /// Where the router reads its configuration.
    pub fn config_path(self) -> &'static str {
        match self {
            Kind::Fluentbit => "/fluent-bit/etc/fluent-bit.conf",
            Kind::Fluentd => "/fluentd/etc/fluent.conf",
        }
    }

    /// Where it finds what came from S3.
    pub fn external_path(self) -> &'static str {
        match self {
            Kind::Fluentbit => "/fluent-bit/etc/external.conf",
            Kind::Fluentd => "/fluentd/etc/external.conf",
        }
    }

    pub(super) fn plugin_key(self) -> &'static str {
        match self {
            Kind::Fluentbit => "Name",
            Kind::Fluentd => "@type",
        }
    }

    pub(super) fn pattern(self, container: &str) -> String {
        let any = if self == Kind::Fluentbit { "*" } else { "**" };
        format!("{container}-firelens{any}")
    }

    pub(super) fn placeholder(self, variable: &str) -> String {
        match self {
            Kind::Fluentbit => format!("${{{variable}}}"),
            Kind::Fluentd => format!("\"#{{ENV['{variable}']}}\""),
        }
    }
}

/// Where the user's own part of the configuration is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// An object of S3, by its ARN.
    S3(String),
    /// A file inside the router's container.
    File(String),
}

/// `firelensConfiguration`, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// `type`
    pub kind: Kind,
    /// `enable-ecs-log-metadata`
    pub metadata: bool,
    /// `config-file-type`, `config-file-value`
    pub source: Option<Source>,
}

impl Options {
    /// Reads them. Keys that the agent does not know mean nothing.
    ///
    /// # Errors
    /// The ECS agent's words.
    pub fn read(config: &FirelensConfiguration) -> Result<Options, String> {
        let kind = match config.r#type.as_str() {
            "fluentbit" => Kind::Fluentbit,
            "fluentd" => Kind::Fluentd,
            other => return Err(format!("invalid firelens configuration type: {other}")),
        };
        // Go's ParseBool; what it cannot read leaves the flag at false, though its absence means true.
        let metadata = config
            .options
            .get("enable-ecs-log-metadata")
            .is_none_or(|text| matches!(text.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"));
        let value = || config.options.get("config-file-value").filter(|v| !v.is_empty()).cloned();
        let source = match config.options.get("config-file-type").map(String::as_str) {
            None => None,
            Some(of_type @ ("s3" | "file")) => {
                let value = value().ok_or("config-file-value must be specified when config-file-type is")?;
                Some(if of_type == "s3" { Source::S3(value) } else { Source::File(value) })
            }
            Some(other) => return Err(format!("invalid config-file-type: {other}; it is s3 or file")),
        };
        Ok(Options { kind, metadata, source })
    }

    /// What the configuration includes.
    pub(super) fn include(&self) -> Option<&str> {
        match self.source.as_ref()? {
            Source::S3(_) => Some(self.kind.external_path()),
            Source::File(path) => Some(path),
        }
    }
}
