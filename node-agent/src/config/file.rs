//! The schema of the configuration file.

use std::fmt;
use std::net::SocketAddr;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::{DefaultMessageFormatter, Error, MessageFormatter};

use super::error::{Problem, Whereabouts};
use super::locate::place;
use api::{PolicySpec, Quantity, TierReference, WireDuration};

/// When the kernel itself may demote (`/sys/kernel/mm/numa/demotion_enabled`, one switch for the whole host).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum KernelDemotion {
    /// While the agent demotes, for milliseconds at a time. Else limits and shortages free cache and swap out, as without tiers.
    #[default]
    WhileActing,
    /// As long as the agent runs: whatever meets a limit sinks before it is swapped out.
    Always,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    pub(super) listen: Option<Listen>,
    pub(super) state_file: Option<String>,
    pub(super) kernel_demotion: KernelDemotion,
    pub(super) interval: Option<WireDuration>,
    pub(super) tiers: Option<Vec<TierFile>>,
    pub(super) policies: Option<Vec<PolicyFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TierFile {
    pub(super) name: TierReference,
    pub(super) nodes: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicyFile {
    pub(super) name: String,
    pub(super) cgroups: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    pub(super) inputs: Option<InputsFile>,
    #[serde(default)]
    pub(super) spec: PolicySpec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct InputsFile {
    pub(super) request: Option<Quantity>,
    pub(super) limit: Quantity,
}

/// An address, or `off`.
#[derive(Debug)]
pub(super) struct Listen(pub(super) Option<SocketAddr>);

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListenVisitor;

        impl de::Visitor<'_> for ListenVisitor {
            type Value = Listen;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address and port, for example 127.0.0.1:9440 or \"[::]:9440\", or off")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Listen, E> {
                if text == "off" {
                    return Ok(Listen(None));
                }
                text.parse().map(|address| Listen(Some(address))).map_err(|_| {
                    E::custom(format_args!(
                        "`{text}` is not an address to listen on: write an IP address and a port, for example \
                         127.0.0.1:9440 or \"[::]:9440\", or off"
                    ))
                })
            }

            /// YAML 1.1 reads `off` as `false`.
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Listen, E> {
                if on { self.visit_str("true") } else { Ok(Listen(None)) }
            }
        }

        deserializer.deserialize_any(ListenVisitor)
    }
}

pub(super) fn read(text: &str) -> Result<ConfigFile, Problem> {
    // A file of comments only is a configuration without policies.
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(ConfigFile::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let whereabouts = error.location().and_then(place).map_or(Whereabouts::Unknown, Whereabouts::Place);
        Problem { whereabouts, message: message(error.without_snippet()) }
    })
}

fn message(error: &Error) -> String {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => match similar(field, expected) {
            Some(known) => format!("there is no field `{field}` here; did you mean `{known}`?"),
            None => format!("there is no field `{field}` here; there are {}", expected.join(", ")),
        },
        Error::SerdeUnknownVariant { variant, expected, .. } => match similar(variant, expected) {
            Some(known) => format!("`{variant}` is not known; did you mean {known}?"),
            None => format!("`{variant}` is not known; write one of {}", expected.join(", ")),
        },
        Error::SerdeMissingField { field, .. } => format!("the field `{field}` is missing"),
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("`{key}` is there twice; remove one"),
            None => "a field is there twice; remove one".to_owned(),
        },
        error => DefaultMessageFormatter.format_message(error).into_owned(),
    }
}

/// The known word that was probably meant: equal but for case, or few edits away.
fn similar(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&word, &known.to_lowercase());
    known
        .iter()
        .copied()
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) <= 1 + known.len() / 4)
}
