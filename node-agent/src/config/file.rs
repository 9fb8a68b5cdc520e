//! The schema of the configuration file.

use std::fmt;
use std::net::SocketAddr;

use serde::de;
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Error;

use super::error::Place;
use super::locate::place;
use super::words;
use api::{PolicySpec, Quantity, TierReference, WireDuration};
use tiering::EngineChoice;

/// When the kernel itself may demote (`/sys/kernel/mm/numa/demotion_enabled`, one switch for the whole host).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum KernelDemotion {
    /// While the agent demotes, for milliseconds at a time. Else limits and shortages free cache and swap out, as without tiers.
    #[default]
    WhileActing,
    /// As long as the agent runs: whatever meets a limit sinks before it is swapped out.
    Always,
}

/// Which way to find and move pages, for the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum EngineFile {
    #[default]
    Auto,
    LruGen,
    Reclaim,
    Pages,
}

impl From<EngineFile> for EngineChoice {
    fn from(engine: EngineFile) -> Self {
        match engine {
            EngineFile::Auto => Self::Auto,
            EngineFile::LruGen => Self::LruGen,
            EngineFile::Reclaim => Self::Reclaim,
            EngineFile::Pages => Self::Pages,
        }
    }
}

/// Who brings hot memory back, for the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PromoterChoice {
    /// NUMA balancing beside the engines that demote by the kernel, else the engine itself.
    #[default]
    Auto,
    /// DAMON where it works, else as `Auto`.
    Damon,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    pub(super) listen: Option<Listen>,
    pub(super) state_file: Option<String>,
    pub(super) engine: EngineFile,
    pub(super) promoter: PromoterChoice,
    pub(super) observe_without_slow_tier: bool,
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

/// Why a text could not be read to its end.
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) place: Option<Place>,
    pub(super) message: String,
}

/// Whether it can be read on without what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// A value, or a field that there is not.
    Value,
    /// Something else stands in the place of a list or of fields.
    Shape,
    /// A field is not there; the place is what lacks it.
    Missing,
    /// It is no YAML from here on.
    Syntax,
}

pub(super) fn read(text: &str) -> Result<ConfigFile, Fault> {
    // A file of comments only is a configuration without policies.
    if text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(ConfigFile::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location().and_then(place);
        if let Some(fault) = words::whole_file(text) {
            return fault;
        }
        let error = error.without_snippet();
        let kind = match error {
            Error::SerdeMissingField { .. } => FaultKind::Missing,
            Error::SerdeUnknownField { .. }
            | Error::SerdeUnknownVariant { .. }
            | Error::SerdeInvalidType { .. }
            | Error::SerdeInvalidValue { .. }
            | Error::InvalidScalar { .. }
            | Error::NullIntoString { .. }
            | Error::DuplicateMappingKey { .. }
            | Error::Message { .. } => FaultKind::Value,
            Error::Unexpected { .. } => FaultKind::Shape,
            _ => FaultKind::Syntax,
        };
        let written = at.map(|place| words::written(text, place)).unwrap_or_default();
        let message = words::message(error, &written);
        match at {
            Some(place) if kind == FaultKind::Syntax => words::syntax(text, place, error, message),
            // What follows a list that is not closed was read as a part of it.
            Some(place) if kind == FaultKind::Shape => {
                words::not_closed(text, place).unwrap_or(Fault { kind, place: at, message })
            }
            _ => Fault { kind, place: at, message },
        }
    })
}
