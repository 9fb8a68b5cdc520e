//! The agent's configuration: which cgroups get which policy.
//!
//! A [`Config`] is valid: whoever holds one need not check it again. Reading goes in two steps: `file` has the
//! schema and refuses what does not parse, `validate` checks what only makes sense together. Errors of both know
//! their line and column.

mod error;
mod faults;
mod file;
mod globs;
mod locate;
#[cfg(test)]
mod reference;
mod unit;
mod validate;
mod words;

pub use error::{ConfigError, Fault, Place, Warning};
pub use file::{KernelDemotion, PromoterChoice};

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobSet;
use tiering::{EngineChoice, Policy, TierOverride};

use error::{Problem, Whereabouts};

/// Where metrics and health are served unless the configuration says otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9440);
/// Where original values are kept unless the configuration says otherwise.
pub const DEFAULT_STATE_FILE: &str = "/run/thermocline/state";
/// Time between two rounds while something is to be done, unless the configuration says otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two rounds.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Greatest time between two rounds: the watchdog and `/healthz` wait for a round.
pub const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where metrics and health are served; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Where original values are kept.
    pub state_file: PathBuf,
    /// Which engine, for the whole host.
    pub engine: EngineChoice,
    /// Who promotes, for the whole host.
    pub promoter: PromoterChoice,
    /// Whether cgroups are looked at on a host without slow memory: only by reading, once a minute.
    pub observe_without_slow_tier: bool,
    /// When the kernel itself may demote.
    pub kernel_demotion: KernelDemotion,
    /// Time between two rounds while something is to be done.
    pub interval: Duration,
    /// Tiers, fast to slow, in place of the discovered ones; empty for those.
    pub tiers: Vec<TierOverride>,
    /// Policies in the order of the file.
    pub policies: Vec<PolicyEntry>,
    /// What is valid, but probably not meant.
    pub warnings: Vec<Warning>,
}

/// A policy and the cgroups it is for.
#[derive(Clone, Debug)]
pub struct PolicyEntry {
    /// Its name in metrics and logs.
    pub name: String,
    /// The policy.
    pub policy: Arc<Policy>,
    /// Globs of its cgroups.
    pub cgroups: Vec<String>,
    /// Globs of exceptions.
    pub exclude: Vec<String>,
    included: GlobSet,
    excluded: GlobSet,
}

impl PolicyEntry {
    /// Whether the policy is for this cgroup, given as its path below the cgroup mount, such as `/a.slice/b.service`.
    #[must_use]
    pub fn matches(&self, cgroup_path: &str) -> bool {
        self.included.is_match(cgroup_path) && !self.excluded.is_match(cgroup_path)
    }
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, &source))?;
        Self::parse(&text, path)
    }

    /// Reads and validates the file of a cluster's node: settings of the node, and no policies. Without a file, all are default.
    pub fn load_node_settings(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Self::parse_node_settings("", Path::new("")) };
        let text = fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, &source))?;
        Self::parse_node_settings(&text, path)
    }

    /// Validates the text of a cluster's node; `path` is for messages.
    pub fn parse_node_settings(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::checked(text, path, |file, _| validate::node_settings(file))
    }

    /// Validates text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::checked(text, path, validate::validate)
    }

    /// Everything that is wrong at once: what does not parse, and of the rest what does not fit together.
    fn checked(
        text: &str,
        path: &Path,
        validate: impl Fn(&file::ConfigFile, &str) -> Result<Self, Vec<Problem>>,
    ) -> Result<Self, ConfigError> {
        // A carriage return alone ends a line to some readers of YAML and not to others.
        let text = &text.replace("\r\n", "\n").replace('\r', "\n");
        let reading = faults::read_all(text);
        let valid = reading.file.as_ref().map(|file| validate(file, &reading.text));
        let mut problems = match valid {
            Some(Ok(config)) if reading.problems.is_empty() => return Ok(config),
            Some(Err(problems)) => problems,
            Some(Ok(_)) | None => Vec::new(),
        };
        // What lacks what was taken out is not at fault.
        problems.retain(|problem| match &problem.whereabouts {
            Whereabouts::Path(path) => !reading.is_torn(path),
            Whereabouts::Unknown | Whereabouts::Place(_) => true,
        });
        for problem in &mut problems {
            // In what is left, elements have other numbers, but are where they were.
            problem.whereabouts =
                problem.place(&reading.text).map_or(Whereabouts::Unknown, Whereabouts::Place);
        }
        problems.extend(reading.problems);
        Err(ConfigError::new(path, text, problems))
    }

    /// One policy for the cgroups of one glob, and nothing served or kept.
    ///
    /// # Errors
    /// In words, what is wrong with the glob.
    pub fn of_one_policy(name: &str, glob: &str, policy: Policy, interval: Duration) -> Result<Self, String> {
        let cgroups = vec![glob.to_owned()];
        let included = globs::compile(&cgroups).map_err(|error| error.message)?;
        let entry = PolicyEntry {
            name: name.to_owned(),
            policy: policy.into(),
            cgroups,
            exclude: Vec::new(),
            included,
            excluded: GlobSet::empty(),
        };
        Ok(Self {
            listen: None,
            state_file: DEFAULT_STATE_FILE.into(),
            engine: EngineChoice::Auto,
            promoter: PromoterChoice::default(),
            observe_without_slow_tier: false,
            kernel_demotion: KernelDemotion::default(),
            interval,
            tiers: Vec::new(),
            policies: vec![entry],
            warnings: Vec::new(),
        })
    }

    /// The policy of a cgroup, given as its path below the cgroup mount: the first of the file that matches.
    #[must_use]
    pub fn policy_for(&self, cgroup_path: &str) -> Option<&PolicyEntry> {
        self.policies.iter().find(|entry| entry.matches(cgroup_path))
    }
}

#[cfg(test)]
mod tests;
