//! What an owner writes on a pod or a namespace.
//!
//! A bad value never stops a pod: [`Requests::parse`] keeps what it understands and says what it does not, and
//! [`Overrides::apply`] takes what a policy allows and makes sense, key by key.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::duration::WireDuration;
use crate::node_tiering::MOST_APART;
use crate::notation::{ParseError, excerpt};
use crate::policy_spec::{
    AllowedOverride, MemoryHighInputs, MemoryHighMode, MemoryHighSpec, ModeSpec, OverrideBounds, PolicySpec,
    SpecError, TierReference,
};
use crate::quantity::{Factor, Percentage, Quantity, WireShare};

/// What our keys start with.
pub const PREFIX: &str = "thermocline.io/";
/// What the keys of single containers start with; the container's name follows.
pub const CONTAINER_PREFIX: &str = "container.thermocline.io/";
/// On a namespace: what the floors of its pods may sum to.
pub const FLOOR_QUOTA: &str = "thermocline.io/dram-floor-quota";
/// Instead of a policy's name: none. An empty value says the same.
pub const OPT_OUT: &str = "none";

/// A key that is the same for every pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// The policy; the one key that a namespace may carry, too.
    Policy,
    /// Overrides `mode`.
    Mode,
    /// Overrides `tiers`.
    Tiers,
    /// Overrides `dram.floor`.
    DramFloor,
    /// Overrides `dram.ceiling`.
    DramCeiling,
    /// Overrides `demote.after`.
    DemoteAfter,
    /// Overrides `memoryHigh`.
    MemoryHigh,
}

impl Key {
    /// All of them, in the order of the reference.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::Mode,
        Self::Tiers,
        Self::DramFloor,
        Self::DramCeiling,
        Self::DemoteAfter,
        Self::MemoryHigh,
    ];

    /// The key as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "thermocline.io/policy",
            Self::Mode => "thermocline.io/mode",
            Self::Tiers => "thermocline.io/tiers",
            Self::DramFloor => "thermocline.io/dram-floor",
            Self::DramCeiling => "thermocline.io/dram-ceiling",
            Self::DemoteAfter => "thermocline.io/demote-after",
            Self::MemoryHigh => "thermocline.io/memory-high",
        }
    }

    /// What it does, what it takes, and an example, for the reference.
    #[must_use]
    pub const fn describe(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Policy => (
                "The `TieringPolicy` of all containers of the pod. On a namespace: of its pods that say nothing themselves.",
                "the name of a policy; `none` or empty opts out",
                "batch",
            ),
            Self::Mode => ("Overrides `mode`.", "`Observe` or `Enforce`", "Observe"),
            Self::Tiers => (
                "Overrides `tiers`.",
                "tiers by name (`dram`, `pmem`, `cxl`, `hbm`, `slow`) or rank, separated by commas",
                "dram,slow",
            ),
            Self::DramFloor => {
                ("Overrides `dram.floor`.", "an amount, or a percentage of the anonymous memory", "256Mi")
            }
            Self::DramCeiling => {
                ("Overrides `dram.ceiling`.", "an amount, or a percentage of the anonymous memory", "60%")
            }
            Self::DemoteAfter => ("Overrides `demote.after`.", "a duration of 2s to 168h", "5m"),
            Self::MemoryHigh => (
                "Overrides `memoryHigh`.",
                "`none`, an amount (mode `Fixed`), or a percentage (mode `Formula` with this factor)",
                "1Gi",
            ),
        }
    }

    /// What a policy's `allowOverrides` must hold for it; the policy itself needs nobody's leave.
    #[must_use]
    pub const fn allowed_by(self) -> Option<AllowedOverride> {
        match self {
            Self::Policy => None,
            Self::Mode => Some(AllowedOverride::Mode),
            Self::Tiers => Some(AllowedOverride::Tiers),
            Self::DramFloor => Some(AllowedOverride::Floor),
            Self::DramCeiling => Some(AllowedOverride::Ceiling),
            Self::DemoteAfter => Some(AllowedOverride::After),
            Self::MemoryHigh => Some(AllowedOverride::MemoryHigh),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which policy an annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyChoice {
    /// This one.
    Named(String),
    /// None.
    OptOut,
}

impl PolicyChoice {
    /// Reads the value of a policy key; anything is a name, and whether there is such a policy is another question.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "" | OPT_OUT => Self::OptOut,
            name => Self::Named(name.to_owned()),
        }
    }
}

/// What the annotations of one pod ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The pod's policy, if it says anything.
    pub policy: Option<PolicyChoice>,
    /// What it overrides.
    pub overrides: Overrides,
    /// Policies of single containers, by name.
    pub containers: BTreeMap<String, PolicyChoice>,
    /// What has no meaning.
    pub problems: Vec<Problem>,
}

/// What the annotations of a namespace ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRequests {
    /// The policy of its pods that say nothing themselves.
    pub policy: Option<PolicyChoice>,
    /// What the floors of its pods may sum to.
    pub floor_quota: Option<Quantity>,
    /// What has no meaning.
    pub problems: Vec<Problem>,
}

/// Values that a pod overrides in its policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<Key, Override>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Override {
    Mode(ModeSpec),
    Tiers(Vec<TierReference>),
    Floor(WireShare),
    Ceiling(WireShare),
    After(WireDuration),
    MemoryHigh(MemoryHighSpec),
}

/// An annotation that does not apply, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("annotation {key}: {cause}")]
pub struct Problem {
    /// Its key.
    pub key: String,
    /// Why it does not apply.
    pub cause: Cause,
}

/// Why an annotation does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// Not one of our keys.
    #[error("there is no such key{}", .0.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey(Option<String>),
    /// Of a domain below ours that has no keys.
    #[error("there is no such key: keys start with {PREFIX} or {CONTAINER_PREFIX}")]
    UnknownDomain,
    /// Not a value of this key.
    #[error("{0}")]
    Value(ParseError),
    /// The policy does not list it.
    #[error("policy {policy} does not allow this override; its allowOverrides would have to list {field}")]
    NotAllowed {
        /// The policy.
        policy: String,
        /// What it would have to list.
        field: String,
    },
    /// It goes further than the policy lets it.
    #[error("policy {policy} does not let it go so far: its overrideBounds have {field} {bounds}")]
    OutOfBounds {
        /// The policy.
        policy: String,
        /// The bounded field.
        field: String,
        /// The bounds.
        bounds: String,
    },
    /// Pods of this namespace can't have the named policy.
    #[error(
        "TieringPolicy `{0}` is not for pods of this namespace (allowedNamespaces): without another they are only observed"
    )]
    NotForNamespace(String),
    /// A policy that can't be left applies.
    #[error("TieringPolicy `{0}` is enforced here: nothing else can be named, and nobody can opt out")]
    Enforced(String),
    /// With it, the policy makes no sense.
    #[error("it does not fit policy {policy}: {error}")]
    DoesNotFit {
        /// The policy.
        policy: String,
        /// Why.
        error: SpecError,
    },
    /// The named policy does not exist, or can't be read.
    #[error("there is no TieringPolicy `{}` that can be read: `kubectl get tpol` lists those that there are", excerpt(.0))]
    NoPolicy(String),
    /// The named policy was not accepted.
    #[error("TieringPolicy `{0}` is rejected: `kubectl get tpol {0} -o yaml` says why")]
    RejectedPolicy(String),
    /// On a namespace, only the policy and the quota have a meaning.
    #[error(
        "it has no meaning on a namespace: only {} and {FLOOR_QUOTA} have; annotate the pods",
        Key::Policy
    )]
    NotOfNamespace,
    /// On a pod, a quota has no meaning.
    #[error("it has a meaning on a namespace alone")]
    OfNamespace,
    /// The pod has no such container.
    #[error("the pod has no container `{0}`")]
    NoContainer(String),
    /// So many containers of the pod have a policy of their own already, the first by name.
    #[error(
        "at most {MOST_APART} containers of a pod can have a policy of their own; name the policy of most of them by {}",
        Key::Policy
    )]
    TooManyContainers,
}

impl Requests {
    /// Reads all annotations of a pod; those of others are passed over.
    pub fn parse<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut requests = Self::default();
        for (key, value) in annotations {
            if let Some(container) = key.strip_prefix(CONTAINER_PREFIX) {
                requests.containers.insert(container.to_owned(), PolicyChoice::parse(value));
            } else if is_ours(key)
                && let Err(cause) = requests.take(key, value)
            {
                requests.problems.push(Problem { key: key.to_owned(), cause });
            }
        }
        requests
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), Cause> {
        if key == FLOOR_QUOTA {
            return Err(Cause::OfNamespace);
        }
        let known = Key::ALL.into_iter().find(|known| known.as_str() == key);
        let key = known.ok_or_else(|| unknown(key))?;
        let value = value.trim();
        let read = match key {
            Key::Policy => {
                self.policy = Some(PolicyChoice::parse(value));
                return Ok(());
            }
            Key::Mode => mode(value).map(Override::Mode),
            Key::Tiers => value
                .split(',')
                .map(|tier| tier.trim().parse())
                .collect::<Result<_, _>>()
                .map(Override::Tiers),
            Key::DramFloor => value.parse().map(Override::Floor),
            Key::DramCeiling => value.parse().map(Override::Ceiling),
            Key::DemoteAfter => value.parse().map(Override::After),
            Key::MemoryHigh => memory_high(value).map(Override::MemoryHigh),
        };
        self.overrides.0.insert(key, read.map_err(Cause::Value)?);
        Ok(())
    }
}

impl NamespaceRequests {
    /// Reads all annotations of a namespace; those of others are passed over.
    pub fn parse<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut quota = None;
        let others = annotations.into_iter().filter(|(key, value)| {
            let is_quota = *key == FLOOR_QUOTA;
            if is_quota {
                quota = Some(value.trim().parse());
            }
            !is_quota
        });
        let Requests { policy, overrides, containers, mut problems } = Requests::parse(others);
        let misplaced = overrides.0.keys().map(Key::to_string);
        let containers = containers.keys().map(|name| format!("{CONTAINER_PREFIX}{name}"));
        problems.extend(misplaced.chain(containers).map(|key| Problem { key, cause: Cause::NotOfNamespace }));
        let floor_quota = match quota {
            Some(Ok(quota)) => Some(quota),
            Some(Err(error)) => {
                problems.push(Problem { key: FLOOR_QUOTA.to_owned(), cause: Cause::Value(error) });
                None
            }
            None => None,
        };
        Self { policy, floor_quota, problems }
    }
}

impl Overrides {
    /// Whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The spec of policy `name` with the overrides that it allows and that make sense with it, and what became of the others.
    ///
    /// All are tried together first: a floor may need the ceiling that comes with it. Where they do not fit, each is taken that
    /// fits those before it, in the order of [`Key`].
    #[must_use]
    pub fn apply(
        &self,
        name: &str,
        spec: &PolicySpec,
        inputs: Option<MemoryHighInputs>,
    ) -> (PolicySpec, Vec<Problem>) {
        let allows = |key: Key| {
            let allowed = spec.allow_overrides.as_deref().unwrap_or_default();
            key.allowed_by().is_none_or(|field| allowed.contains(&field))
        };
        let (allowed, refused): (Vec<_>, Vec<_>) = self.0.iter().partition(|(key, _)| allows(**key));
        let mut problems: Vec<Problem> =
            refused.into_iter().map(|(key, _)| not_allowed(*key, name)).collect();
        let within = |key: Key, value: &Override| match value.beyond(&spec.override_bounds) {
            None => Ok(()),
            Some(bounds) => {
                let field = key.allowed_by().map(|field| field.to_string()).unwrap_or_default();
                let cause = Cause::OutOfBounds { policy: name.to_owned(), field, bounds };
                Err(Problem { key: key.to_string(), cause })
            }
        };
        let allowed = allowed.into_iter().filter(|(key, value)| match within(**key, value) {
            Ok(()) => true,
            Err(problem) => {
                problems.push(problem);
                false
            }
        });
        let allowed: Vec<_> = allowed.collect();

        let mut all = spec.clone();
        for (_, value) in &allowed {
            value.set(&mut all);
        }
        if fits(&all, inputs).is_ok() {
            return (all, problems);
        }
        let mut kept = spec.clone();
        for (key, value) in allowed {
            let mut with = kept.clone();
            value.set(&mut with);
            match fits(&with, inputs) {
                Ok(()) => kept = with,
                Err(error) => problems.push(Problem {
                    key: key.to_string(),
                    cause: Cause::DoesNotFit { policy: name.to_owned(), error },
                }),
            }
        }
        (kept, problems)
    }
}

impl Override {
    /// The bounds that it is not within.
    fn beyond(&self, bounds: &OverrideBounds) -> Option<String> {
        match self {
            Self::Floor(floor) if !bounds.floor.hold(*floor) => Some(bounds.floor.to_string()),
            Self::Ceiling(ceiling) if !bounds.ceiling.hold(*ceiling) => Some(bounds.ceiling.to_string()),
            Self::After(after) if !bounds.after.hold(*after) => Some(bounds.after.to_string()),
            _ => None,
        }
    }

    fn set(&self, spec: &mut PolicySpec) {
        match self {
            Self::Mode(mode) => spec.mode = Some(*mode),
            Self::Tiers(tiers) => spec.tiers = Some(tiers.clone()),
            Self::Floor(floor) => spec.dram.floor = Some(*floor),
            Self::Ceiling(ceiling) => spec.dram.ceiling = Some(*ceiling),
            Self::After(after) => spec.demote.after = Some(*after),
            Self::MemoryHigh(memory_high) => spec.memory_high = *memory_high,
        }
    }
}

fn fits(spec: &PolicySpec, inputs: Option<MemoryHighInputs>) -> Result<(), SpecError> {
    spec.to_policy(inputs).map(|_| ())
}

fn not_allowed(key: Key, policy: &str) -> Problem {
    let field = key.allowed_by().map(|field| field.to_string()).unwrap_or_default();
    Problem { key: key.to_string(), cause: Cause::NotAllowed { policy: policy.to_owned(), field } }
}

/// Whether a key is of our domain or one below it, however its letters are: nobody else's has a meaning there.
#[must_use]
pub fn is_ours(key: &str) -> bool {
    let ours = PREFIX.trim_end_matches('/');
    let domain = key.split_once('/').map(|(domain, _)| domain.to_ascii_lowercase());
    domain.is_some_and(|domain| {
        domain.strip_suffix(ours).is_some_and(|below| below.is_empty() || below.ends_with('.'))
    })
}

/// Few enough edits that the one was probably meant for the other.
fn distance(found: &str, known: &str) -> Option<usize> {
    Some(strsim::damerau_levenshtein(&found.to_lowercase(), known)).filter(|distance| *distance <= 3)
}

/// Why a key of our domain is none, with the one that was probably meant.
fn unknown(key: &str) -> Cause {
    let known = Key::ALL.map(Key::as_str).into_iter().chain([FLOOR_QUOTA]);
    let similar = known.filter_map(|known| Some((distance(key, known)?, known))).min();
    let (domain, name) = key.split_once('/').unwrap_or_default();
    match similar {
        Some((_, known)) => Cause::UnknownKey(Some(known.to_owned())),
        None if key.starts_with(PREFIX) => Cause::UnknownKey(None),
        None if distance(domain, CONTAINER_PREFIX.trim_end_matches('/')).is_some() => {
            Cause::UnknownKey(Some(format!("{CONTAINER_PREFIX}{name}")))
        }
        None => Cause::UnknownDomain,
    }
}

fn mode(value: &str) -> Result<ModeSpec, ParseError> {
    match value {
        "Observe" => Ok(ModeSpec::Observe),
        "Enforce" => Ok(ModeSpec::Enforce),
        found => Err(ParseError {
            found: found.to_owned(),
            what: "a mode",
            hint: (found.eq_ignore_ascii_case("observe") || found.eq_ignore_ascii_case("enforce"))
                .then_some("modes are capitalised"),
            accepted: "Observe or Enforce",
        }),
    }
}

fn memory_high(value: &str) -> Result<MemoryHighSpec, ParseError> {
    let of = |mode| MemoryHighSpec { mode: Some(mode), ..MemoryHighSpec::default() };
    if value == "none" {
        return Ok(of(MemoryHighMode::None));
    }
    if value.ends_with('%') {
        let Percentage(factor) = value.parse()?;
        return Ok(MemoryHighSpec { factor: Some(Factor(factor)), ..of(MemoryHighMode::Formula) });
    }
    let amount: Quantity = value.parse()?;
    Ok(MemoryHighSpec { value: Some(amount), ..of(MemoryHighMode::Fixed) })
}

#[cfg(test)]
mod tests;
