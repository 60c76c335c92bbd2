//! What a task wants of AWS before it starts.
//!
//! Enters: a definition, and what whoever runs it gives by hand. Leaves: secrets by where they are, and who wants each;
//! files. Can go wrong: an ARN that is none; that is told with what AWS refuses.

use std::collections::{BTreeMap, BTreeSet};

use super::arn::{self, Object, Place, Secret};
use crate::agent::definition::TaskDefinition;
use crate::agent::firelens::{self, Source};
use crate::agent::planning::Choices;

/// Somebody who wants a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Wish {
    /// As the definition has it.
    pub(super) value_from: String,
    /// Of the variable or the log option.
    pub(super) name: String,
    /// `container web`
    pub(super) whose: String,
}

/// A wish, with what it says beyond the secret's name: a JSON key of Secrets Manager, an ARN of SSM.
pub(super) type Asked = (Option<String>, Wish);

/// A file, by its ARN.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct File {
    pub(super) arn: String,
    pub(super) object: Result<Object, String>,
}

/// Everything that is wanted and not given.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Of Secrets Manager, each with the JSON keys that are wanted of it.
    pub(super) secrets: BTreeMap<Secret, Vec<Asked>>,
    /// Of SSM, by region and name, each with the ARN where there is one.
    pub(super) parameters: BTreeMap<(String, String), Vec<Asked>>,
    /// Names of containers, and what says who may pull their images.
    pub(super) registry: Vec<(String, Secret)>,
    /// Names of containers, and their files in order.
    pub(super) files: Vec<(String, Vec<File>)>,
    /// The router's own configuration.
    pub(super) external: Option<File>,
    /// `valueFrom` that leads nowhere, in words.
    pub(super) bad: Vec<(String, Wish)>,
}

impl Wanted {
    /// Goes through the definition.
    pub(super) fn of(definition: &TaskDefinition, choices: &Choices) -> Wanted {
        let mut wanted = Wanted::default();
        for container in &definition.container_definitions {
            let name = &container.name;
            for secret in &container.secrets {
                wanted.wish(choices, &secret.name, &secret.value_from, format!("container {name}"));
            }
            for secret in container.log_configuration.iter().flat_map(|log| &log.secret_options) {
                let whose = format!("the log configuration of container {name}");
                wanted.wish(choices, &secret.name, &secret.value_from, whose);
            }
            let files: Vec<File> = container.environment_files.iter().map(|arn| file(arn)).collect();
            if !files.is_empty() {
                wanted.files.push((name.clone(), files));
            }
            // Processes of this machine need no images.
            let registry = container.repository_credentials.as_ref().filter(|_| !choices.process);
            if let Some(id) = registry.filter(|id| !choices.secrets.contains_key(*id)) {
                let region = id.starts_with("arn:").then(|| id.split(':').nth(3)).flatten();
                let region = region.filter(|r| arn::is_region(r)).unwrap_or(&choices.region).to_owned();
                let secret = Secret { region, id: id.clone(), stage: None, version: None };
                wanted.registry.push((name.clone(), secret));
            }
        }
        let options = firelens::router(definition).and_then(|r| r.firelens_configuration.as_ref());
        // What is wrong with them is planning's to say.
        if let Some(Ok(options)) = options.map(firelens::Options::read)
            && let Some(Source::S3(arn)) = options.source
        {
            wanted.external = Some(file(&arn));
        }
        wanted
    }

    fn wish(&mut self, choices: &Choices, name: &str, value_from: &str, whose: String) {
        if choices.given(name, value_from).is_some() {
            return;
        }
        let wish = Wish { value_from: value_from.to_owned(), name: name.to_owned(), whose };
        match arn::place(value_from, &choices.region) {
            Ok(Place::Manager { of, key }) => self.secrets.entry(of).or_default().push((key, wish)),
            Ok(Place::Parameter { region, name, arn }) => {
                self.parameters.entry((region, name)).or_default().push((arn, wish));
            }
            Err(why) => self.bad.push((why, wish)),
        }
    }

    /// Nothing has to be asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.secrets.is_empty()
            && self.parameters.is_empty()
            && self.registry.is_empty()
            && self.files.is_empty()
            && self.external.is_none()
            && self.bad.is_empty()
    }

    /// How ECS begins what it says when nothing can be asked for.
    pub(super) fn class(&self) -> &'static str {
        let secrets = !self.secrets.is_empty() || !self.parameters.is_empty() || !self.registry.is_empty();
        match (secrets, self.files.is_empty(), &self.external) {
            (false, false, _) => super::FILES,
            (false, true, Some(_)) => super::EXTERNAL,
            _ => super::SECRETS,
        }
    }

    /// All objects of S3, each once.
    pub(super) fn objects(&self) -> BTreeSet<&Object> {
        let files = self.files.iter().flat_map(|(_, files)| files).chain(&self.external);
        files.filter_map(|file| file.object.as_ref().ok()).collect()
    }
}

fn file(arn: &str) -> File {
    File { arn: arn.to_owned(), object: arn::object(arn) }
}
