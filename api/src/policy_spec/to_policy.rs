//! From what a writer said to a policy: defaults, checks, and what is wrong where it makes none.

use thiserror::Error;
use tiering::{Bytes, DemotePolicy, MemoryHighPolicy, Mode, Policy, PolicyError, Ratio};

use super::{
    LabelOperator, LabelRequirement, MOST_TIERS, MemoryHighMode, MemoryHighSpec, ModeSpec, OverrideBounds,
    PolicySpec, Selector,
};
use crate::duration::WireDuration;
use crate::quantity::{Percentage, Rate};

/// What the `Formula` of `memoryHigh` computes with. A cluster knows them from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHighInputs {
    /// The memory request; 0 where there is none.
    pub request: Bytes,
    /// The memory limit, or what the node can allocate where there is none.
    pub limit: Bytes,
}

/// Why a spec does not make a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The values do not fit each other.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// No tier allowed.
    #[error("tiers is empty: leave it out to allow all, or name some, for example [dram, slow]")]
    NoTiers,
    /// More tiers than a schema lets through.
    #[error("tiers names {0} tiers, and at most {MOST_TIERS} may be: name those that the nodes have")]
    TooManyTiers(usize),
    /// An operator of a selector without the values it needs, or with values it does not take.
    #[error(
        "selector: {key} {operator:?}: operators In and NotIn need values, Exists and DoesNotExist take none"
    )]
    SelectorValues {
        /// The label.
        key: String,
        /// The operator.
        operator: LabelOperator,
    },
    /// Pods that can't leave it, and nobody says which.
    #[error("enforced needs selector.namespaces: say whose pods can't leave the policy")]
    EnforcedOnWhom,
    /// No override can be within these bounds.
    #[error("overrideBounds.{0}: min is above max, or one is an amount and the other a percentage")]
    Bounds(&'static str),
    /// `Fixed` without `value`.
    #[error("memoryHigh.mode Fixed needs memoryHigh.value, for example {{ mode: Fixed, value: 1Gi }}")]
    NoValue,
    /// `Formula` without request and limit.
    #[error("memoryHigh.mode Formula needs the memory request and limit to compute with")]
    NoInputs,
    /// A field of another mode.
    #[error(
        "memoryHigh.{field} has no meaning in mode {mode:?}: leave it out, or set memoryHigh.mode: {belongs}"
    )]
    FieldOfOtherMode {
        /// The field.
        field: &'static str,
        /// The mode that is set.
        mode: MemoryHighMode,
        /// The mode that has the field.
        belongs: &'static str,
    },
}

impl SpecError {
    /// The error behind its field, which is named once.
    #[must_use]
    pub fn with_path(&self) -> String {
        let (path, words) = (self.path().join("."), self.to_string());
        if words.starts_with(&path) { words } else { format!("{path}: {words}") }
    }

    /// The field to look at, as the keys that lead to it.
    #[must_use]
    pub fn path(&self) -> &'static [&'static str] {
        match self {
            Self::Policy(error) => match error {
                PolicyError::After(_) => &["demote", "after"],
                PolicyError::AfterMax { .. } => &["demote", "afterMax"],
                PolicyError::FloorAboveCeiling => &["dram", "floor"],
                PolicyError::Weight(_) => &["dram", "weight"],
                PolicyError::ZeroRate("demote.maxRate") => &["demote", "maxRate"],
                PolicyError::ZeroRate(_) => &["promote", "maxRate"],
                PolicyError::ZeroHigh => &["memoryHigh", "value"],
                PolicyError::RequestAboveLimit => &["memoryHigh"],
                PolicyError::TierTwice(_) => &["tiers"],
                PolicyError::ZeroTarget => &["memoryHigh", "target"],
            },
            Self::NoTiers | Self::TooManyTiers(_) => &["tiers"],
            Self::SelectorValues { .. } => &["selector"],
            Self::EnforcedOnWhom => &["enforced"],
            Self::Bounds(field) => match *field {
                "floor" => &["overrideBounds", "floor"],
                "ceiling" => &["overrideBounds", "ceiling"],
                _ => &["overrideBounds", "after"],
            },
            Self::NoValue | Self::NoInputs => &["memoryHigh"],
            Self::FieldOfOtherMode { field: "value", .. } => &["memoryHigh", "value"],
            Self::FieldOfOtherMode { field: "factor", .. } => &["memoryHigh", "factor"],
            Self::FieldOfOtherMode { field: "target", .. } => &["memoryHigh", "target"],
            Self::FieldOfOtherMode { .. } => &["memoryHigh", "floor"],
        }
    }
}

impl MemoryHighSpec {
    /// KEP-2570's default factor.
    const DEFAULT_FACTOR: (u128, u128) = (9, 10);
    /// TMO's target (ASPLOS 2022), and Senpai's least limit.
    const DEFAULT_TARGET: (u128, u128) = (1, 1000);
    const DEFAULT_FLOOR: Bytes = Bytes::mib(100);

    fn to_policy(self, inputs: Option<MemoryHighInputs>) -> Result<MemoryHighPolicy, SpecError> {
        let mode = self.mode.unwrap_or_default();
        let misplaced = [
            ("value", self.value.is_some() && mode != MemoryHighMode::Fixed, "Fixed"),
            ("factor", self.factor.is_some() && mode != MemoryHighMode::Formula, "Formula"),
            ("target", self.target.is_some() && mode != MemoryHighMode::Pressure, "Pressure"),
            ("floor", self.floor.is_some() && mode != MemoryHighMode::Pressure, "Pressure"),
        ];
        if let Some((field, _, belongs)) = misplaced.into_iter().find(|(_, misplaced, _)| *misplaced) {
            return Err(SpecError::FieldOfOtherMode { field, mode, belongs });
        }
        Ok(match mode {
            MemoryHighMode::None => MemoryHighPolicy::None,
            MemoryHighMode::Pressure => {
                let (part, whole) = Self::DEFAULT_TARGET;
                MemoryHighPolicy::Pressure {
                    target: self.target.map_or(Ratio::of_parts(part, whole), |target| target.0),
                    floor: self.floor.map_or(Self::DEFAULT_FLOOR, |floor| floor.0),
                }
            }
            MemoryHighMode::Fixed => MemoryHighPolicy::Fixed(self.value.ok_or(SpecError::NoValue)?.0),
            MemoryHighMode::Formula => {
                let MemoryHighInputs { request, limit } = inputs.ok_or(SpecError::NoInputs)?;
                let (part, whole) = Self::DEFAULT_FACTOR;
                let factor = self.factor.map_or(Ratio::of_parts(part, whole), |factor| factor.0);
                MemoryHighPolicy::Formula { factor, request, limit }
            }
        })
    }
}

impl PolicySpec {
    /// The policy, with defaults where nothing is said, if it makes sense.
    ///
    /// `selector`, `enforced`, `priority`, `allowedNamespaces`, `allowOverrides` and `overrideBounds` say where a policy applies and are not
    /// part of it.
    pub fn to_policy(&self, inputs: Option<MemoryHighInputs>) -> Result<Policy, SpecError> {
        let mut policy = Policy::default();
        if let Some(mode) = self.mode {
            policy.mode = match mode {
                ModeSpec::Observe => Mode::Observe,
                ModeSpec::Enforce => Mode::Enforce,
            };
        }
        match self.tiers.as_deref() {
            Some([]) => return Err(SpecError::NoTiers),
            Some(tiers) if tiers.len() > MOST_TIERS => return Err(SpecError::TooManyTiers(tiers.len())),
            tiers => policy.tiers = tiers.unwrap_or_default().iter().map(|tier| tier.0).collect(),
        }
        policy.dram.ceiling = self.dram.ceiling.map(|ceiling| ceiling.0);
        policy.dram.floor = self.dram.floor.map(|floor| floor.0);
        set(&mut policy.dram.weight, self.dram.weight);
        if let Some(WireDuration(after)) = self.demote.after {
            policy.demote.after = after;
            policy.demote.after_max =
                after.saturating_mul(DemotePolicy::AFTER_MAX_FACTOR).min(DemotePolicy::AFTER_LIMIT);
        }
        set(&mut policy.demote.after_max, self.demote.after_max.map(|after_max| after_max.0));
        set(&mut policy.demote.slow_touch_rate, self.demote.slow_touch_rate.map(|rate| rate.0));
        set(&mut policy.demote.max_rate, self.demote.max_rate.map(|rate| rate.0));
        set(&mut policy.promote.enabled, self.promote.enabled);
        set(&mut policy.promote.max_rate, self.promote.max_rate.map(|rate| rate.0));
        policy.memory_high = self.memory_high.to_policy(inputs)?;
        set(&mut policy.reclaim_ahead, self.reclaim_ahead);
        set(&mut policy.pressure.memory, self.pressure.memory.map(|memory| memory.0));
        policy.pressure.io = self.pressure.io.map(|io| io.0);
        Ok(policy.validated()?)
    }

    /// Whether a cluster may assign it: the selector has a meaning and the values make a policy, whatever a pod's memory is.
    pub fn check(&self) -> Result<(), SpecError> {
        let selectors = self.selector.iter().flat_map(|selector| [&selector.namespaces, &selector.pods]);
        let selectors = selectors.flatten().chain(&self.allowed_namespaces);
        for requirement in selectors.flat_map(|labels| &labels.match_expressions) {
            let needs_values = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
            if needs_values == requirement.values.is_empty() {
                let LabelRequirement { key, operator, .. } = requirement.clone();
                return Err(SpecError::SelectorValues { key, operator });
            }
        }
        let names_namespaces = |selector: &Selector| selector.namespaces.is_some();
        if self.enforced == Some(true) && !self.selector.as_ref().is_some_and(names_namespaces) {
            return Err(SpecError::EnforcedOnWhom);
        }
        let OverrideBounds { floor, ceiling, after } = self.override_bounds;
        let bounds = [
            ("floor", floor.make_sense()),
            ("ceiling", ceiling.make_sense()),
            ("after", after.min.zip(after.max).is_none_or(|(min, max)| min.0 <= max.0)),
        ];
        if let Some((field, _)) = bounds.into_iter().find(|(_, make_sense)| !make_sense) {
            return Err(SpecError::Bounds(field));
        }
        let any = MemoryHighInputs { request: Bytes(0), limit: Bytes(u64::MAX) };
        self.to_policy(Some(any)).map(|_| ())
    }

    /// With every default said, so that two specs that mean the same are the same.
    ///
    /// `afterMax` and what `memoryHigh` takes follow from other fields, no floor and no limit of I/O stalls are no values: they stay as
    /// they are.
    #[must_use]
    pub fn complete(mut self) -> Self {
        let Policy { dram, demote, promote, pressure, .. } = Policy::default();
        self.mode.get_or_insert(ModeSpec::Enforce);
        self.priority.get_or_insert(0);
        self.enforced.get_or_insert(false);
        self.dram.weight.get_or_insert(dram.weight);
        self.demote.after.get_or_insert(WireDuration(demote.after));
        self.demote.slow_touch_rate.get_or_insert(Percentage(demote.slow_touch_rate));
        self.demote.max_rate.get_or_insert(Rate(demote.max_rate));
        self.promote.enabled.get_or_insert(promote.enabled);
        self.promote.max_rate.get_or_insert(Rate(promote.max_rate));
        self.memory_high.mode.get_or_insert_default();
        self.reclaim_ahead.get_or_insert(false);
        self.pressure.memory.get_or_insert(Percentage(pressure.memory));
        self
    }
}

impl PolicySpec {
    /// Without what is the default of this version of the API: means the same to every reader of it, and is as short as can be.
    #[must_use]
    pub fn minimal(mut self) -> Self {
        fn unless<T: PartialEq>(said: &mut Option<T>, default: Option<&T>) {
            if said.as_ref() == default {
                *said = None;
            }
        }
        let all = Self::default().complete();
        unless(&mut self.mode, all.mode.as_ref());
        unless(&mut self.priority, all.priority.as_ref());
        unless(&mut self.enforced, all.enforced.as_ref());
        unless(&mut self.dram.floor, all.dram.floor.as_ref());
        unless(&mut self.dram.weight, all.dram.weight.as_ref());
        unless(&mut self.demote.after, all.demote.after.as_ref());
        unless(&mut self.demote.slow_touch_rate, all.demote.slow_touch_rate.as_ref());
        unless(&mut self.demote.max_rate, all.demote.max_rate.as_ref());
        unless(&mut self.promote.enabled, all.promote.enabled.as_ref());
        unless(&mut self.promote.max_rate, all.promote.max_rate.as_ref());
        unless(&mut self.memory_high.mode, all.memory_high.mode.as_ref());
        unless(&mut self.reclaim_ahead, all.reclaim_ahead.as_ref());
        unless(&mut self.pressure.memory, all.pressure.memory.as_ref());
        unless(&mut self.pressure.io, all.pressure.io.as_ref());
        self
    }

    /// Fields without which an agent is not to carry out the rest, of those that it says: each that came after the first agents of
    /// this version of the API, where a pod would be treated harsher without it.
    #[must_use]
    pub fn must_understand(&self) -> Vec<String> {
        let MemoryHighSpec { target, floor, .. } = self.memory_high;
        let said = [("memoryHigh.target", target.is_some()), ("memoryHigh.floor", floor.is_some())];
        said.into_iter().filter(|(_, said)| *said).map(|(path, _)| path.to_owned()).collect()
    }
}

impl TryFrom<&PolicySpec> for Policy {
    type Error = SpecError;

    /// For a spec whose `memoryHigh` needs no request and limit.
    fn try_from(spec: &PolicySpec) -> Result<Self, SpecError> {
        spec.to_policy(None)
    }
}

fn set<T>(field: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *field = said;
    }
}
