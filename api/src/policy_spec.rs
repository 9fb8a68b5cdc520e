//! A policy as its writer left it: the spec of a `TieringPolicy`, and of each policy in an agent's file.
//!
//! A [`PolicySpec`] says only what its writer said; [`PolicySpec::to_policy`] adds the defaults and checks that the whole makes
//! sense. The rules that an API server checks (CEL) are the same checks, early.

mod to_policy;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tiering::{Share, TierRef};

use crate::duration::WireDuration;
use crate::notation::{Notation, ParseError, wire_notation};
use crate::quantity::{Factor, Percentage, Quantity, Rate, WireShare};

pub use to_policy::{MemoryHighInputs, SpecError};

/// Tiers that a policy can name.
pub const MOST_TIERS: usize = 8;

/// What a policy says. A field that is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "thermocline.io",
    version = "v1alpha1",
    kind = "TieringPolicy",
    plural = "tieringpolicies",
    shortname = "tpol",
    category = "thermocline",
    status = "TieringPolicyStatus",
    derive = "PartialEq",
    doc = "How the memory of pods is tiered: which tiers it may be on, what counts as cold, and what demotion may cost.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(name = "After", type_ = "string", json_path = ".spec.demote.after"),
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matchedPods"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(name = "Floor", type_ = "string", json_path = ".spec.dram.floor", priority = 1),
    printcolumn(name = "Ceiling", type_ = "string", json_path = ".spec.dram.ceiling", priority = 1),
    printcolumn(name = "Enforced", type_ = "boolean", json_path = ".spec.enforced", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name != 'none'").message("the name none means no policy: choose another")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields, transform = crate::notation::describe)]
#[x_kube(validation = Rule::new("!has(self.tiers) || self.tiers.all(t, self.tiers.exists_one(u, string(u) == string(t)))")
    .message("tiers names a tier twice"))]
#[x_kube(validation = Rule::new("!has(self.enforced) || !self.enforced || (has(self.selector) && has(self.selector.namespaces))")
    .message("enforced needs selector.namespaces: say whose pods can't leave the policy"))]
pub struct PolicySpec {
    /// Whether decisions are carried out. Default: Enforce.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Enforce"))]
    pub mode: Option<ModeSpec>,
    /// Among policies whose selectors match the same pod, the greatest wins; ties go by name. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1_000_000, max = 1_000_000), extend("default" = 0))]
    pub priority: Option<i32>,
    /// Pods that the policy applies to without being named. Without it, a policy applies only by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Whether the pods that the selector matches can't leave the policy: no annotation of theirs or of their namespace names
    /// another for them, or opts out. Critical and mirror pods that it matches have it, too. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub enforced: Option<bool>,
    /// Namespaces, by their labels, whose pods may have the policy. Pods of others that name it are only observed. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
    /// Allowed tiers by name (`dram`, `pmem`, `cxl`, `hbm`, `slow`) or rank (0 is the fastest). `[dram]` pins, `[slow]`
    /// is cold-only. Default: all, and `cpuset.mems` is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MOST_TIERS))]
    pub tiers: Option<Vec<TierReference>>,
    /// How much of the anonymous memory may or must be in DRAM.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub dram: DramSpec,
    /// When and how fast cold memory sinks.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub demote: DemoteSpec,
    /// Whether and how fast hot memory is brought back.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub promote: PromoteSpec,
    /// What `memory.high` should be. It bounds the footprint on all tiers.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_high: MemoryHighSpec,
    /// Whether clean page cache, and what the pod may swap, is reclaimed before usage meets `memory.high` or `memory.max`, so that nobody is
    /// throttled there. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub reclaim_ahead: Option<bool>,
    /// Share of time stalled above which demotion backs off.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub pressure: PressureSpec,
    /// What pods may override by annotation. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_overrides: Option<Vec<AllowedOverride>>,
    /// How far overrides may go. One that goes further does not apply. Default: as far as makes sense.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub override_bounds: OverrideBounds,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the controller says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TieringPolicyStatus {
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that have this policy, by whatever rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub matched_pods: Option<u32>,
    /// Conditions by type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Whether decisions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ModeSpec {
    /// Decide and report; write nothing.
    Observe,
    /// Decide and act.
    Enforce,
}

/// Which pods a policy applies to; what is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
pub struct Selector {
    /// Labels of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Labels of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<LabelSelector>,
}

/// Kubernetes' label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
pub struct LabelSelector {
    /// Each label must have this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 64))]
    pub match_labels: BTreeMap<String, String>,
    /// Each requirement must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("operators In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct LabelRequirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How it relates to the values.
    pub operator: LabelOperator,
    /// For `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label relates to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LabelOperator {
    /// Is one of them.
    In,
    /// Is none of them, or absent.
    NotIn,
    /// Is there.
    Exists,
    /// Is not there.
    DoesNotExist,
}

/// DRAM share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.floor) || !has(self.ceiling) || !string(self.floor).endsWith('%') || !string(self.ceiling).endsWith('%') || \
     double(string(self.floor).replace('%', '')) <= double(string(self.ceiling).replace('%', ''))")
    .message("floor is above ceiling"))]
#[x_kube(validation = Rule::new(
    "!has(self.floor) || !has(self.ceiling) || string(self.floor).endsWith('%') || string(self.ceiling).endsWith('%') || \
     quantity(string(self.floor)).compareTo(quantity(string(self.ceiling))) <= 0")
    .message("floor is above ceiling"))]
pub struct DramSpec {
    /// Least DRAM: demotion stops here. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<WireShare>,
    /// Most DRAM: memory above sinks whatever its age. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<WireShare>,
    /// Share of scarce DRAM relative to others, 1 to 10000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 1, max = 10_000), extend("default" = 100))]
    pub weight: Option<u32>,
}

/// Demotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.after) || (duration(self.after) >= duration('2s') && duration(self.after) <= duration('168h'))")
    .message("after must be between 2s and 168h"))]
#[x_kube(validation = Rule::new("!has(self.afterMax) || ((!has(self.after) || duration(self.after) <= duration(self.afterMax)) && duration(self.afterMax) <= duration('168h'))")
    .message("afterMax must be between after and 168h"))]
#[x_kube(validation = Rule::new("!has(self.maxRate) || quantity(string(self.maxRate)).isGreaterThan(quantity('0'))").message("maxRate is zero: set mode: Observe to demote nothing"))]
pub struct DemoteSpec {
    /// Memory not accessed for this long is cold, 2s to 168h. Default: 2m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "2m"))]
    pub after: Option<WireDuration>,
    /// The age adapts upwards where memory comes back soon after it was demoted, but never above this.
    /// Default: 16 times `after`, at most 168h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_max: Option<WireDuration>,
    /// Bytes touched on slow nodes per minute, as a share of the working set, above which demotion holds.
    /// Default: 0.2%.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0.2%"))]
    pub slow_touch_rate: Option<Percentage>,
    /// Most bytes moved down per second. Default: 200Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "200Mi"))]
    pub max_rate: Option<Rate>,
}

/// Promotion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.maxRate) || (has(self.enabled) && !self.enabled) || quantity(string(self.maxRate)).isGreaterThan(quantity('0'))").message("maxRate is zero: set enabled: false to promote nothing"))]
pub struct PromoteSpec {
    /// Bring hot memory back. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub enabled: Option<bool>,
    /// Most bytes moved up per second, where the agent moves them. Default: 200Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "200Mi"))]
    pub max_rate: Option<Rate>,
}

/// `memory.high`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.value) == (has(self.mode) && self.mode == 'Fixed')").message("mode Fixed needs value, and no other mode takes it"))]
#[x_kube(validation = Rule::new("!has(self.value) || quantity(string(self.value)).isGreaterThan(quantity('0'))").message("value is zero: the cgroup could not hold a page"))]
#[x_kube(validation = Rule::new("!has(self.factor) || (has(self.mode) && self.mode == 'Formula')").message("only mode Formula takes factor"))]
#[x_kube(validation = Rule::new("(!has(self.target) && !has(self.floor)) || (has(self.mode) && self.mode == 'Pressure')")
    .message("only mode Pressure takes target and floor"))]
pub struct MemoryHighSpec {
    /// How it is found. Default: None.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "None"))]
    pub mode: Option<MemoryHighMode>,
    /// For Fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Quantity>,
    /// For Formula. Default: 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    /// For Pressure: share of the time that tasks may stall on memory. Default: 0.1%.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Percentage>,
    /// For Pressure: `memory.high` is never below this. Default: 100Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Quantity>,
}

/// How `memory.high` is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum MemoryHighMode {
    /// Left alone.
    #[default]
    None,
    /// `value`.
    Fixed,
    /// Between request and limit by `factor`, as KEP-2570 has it.
    Formula,
    /// As low as `target` allows: lowered bit by bit while tasks stall less, raised at once when they stall more. Page cache goes first,
    /// and what may be swapped; demotion uncharges nothing.
    Pressure,
}

/// Pressure guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
pub struct PressureSpec {
    /// Of `memory.pressure`, `some`. Default: 0.1%.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0.1%"))]
    pub memory: Option<Percentage>,
    /// Of `io.pressure`, `some`. Default: not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Percentage>,
}

/// A field that pods may override by annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AllowedOverride {
    /// `mode`.
    Mode,
    /// `tiers`.
    Tiers,
    /// `dram.floor`.
    Floor,
    /// `dram.ceiling`.
    Ceiling,
    /// `demote.after`.
    After,
    /// `memoryHigh`.
    MemoryHigh,
}

/// Bounds of overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
pub struct OverrideBounds {
    /// Of `dram.floor`.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub floor: ShareBounds,
    /// Of `dram.ceiling`.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub ceiling: ShareBounds,
    /// Of `demote.after`.
    #[schemars(extend("default" = {}))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub after: AgeBounds,
}

/// Bounds of an amount or a percentage. An override is compared with a bound of its own kind: where the bound is an amount, a
/// percentage is out of bounds, and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "!has(self.min) || !has(self.max) || string(self.min).endsWith('%') == string(self.max).endsWith('%')")
    .message("min and max are both amounts, or both percentages"))]
#[x_kube(validation = Rule::new(
    "!has(self.min) || !has(self.max) || !string(self.min).endsWith('%') || !string(self.max).endsWith('%') || \
     double(string(self.min).replace('%', '')) <= double(string(self.max).replace('%', ''))")
    .message("min is above max"))]
#[x_kube(validation = Rule::new(
    "!has(self.min) || !has(self.max) || string(self.min).endsWith('%') || string(self.max).endsWith('%') || \
     quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0")
    .message("min is above max"))]
pub struct ShareBounds {
    /// The least. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<WireShare>,
    /// The most. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<WireShare>,
}

/// Bounds of an age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || duration(self.min) <= duration(self.max)")
    .message("min is above max"))]
pub struct AgeBounds {
    /// The least. Default: 2s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<WireDuration>,
    /// The most. Default: 168h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<WireDuration>,
}

impl ShareBounds {
    /// Whether a value is within them.
    #[must_use]
    pub fn hold(&self, value: WireShare) -> bool {
        let compare = |bound: WireShare| match (value.0, bound.0) {
            (Share::Bytes(value), Share::Bytes(bound)) => Some(value.cmp(&bound)),
            (Share::OfFootprint(value), Share::OfFootprint(bound)) => Some(value.cmp(&bound)),
            _ => None,
        };
        self.min.is_none_or(|min| compare(min).is_some_and(Ordering::is_ge))
            && self.max.is_none_or(|max| compare(max).is_some_and(Ordering::is_le))
    }

    /// Whether any value can be within them.
    fn make_sense(&self) -> bool {
        self.min.zip(self.max).is_none_or(|(min, max)| Self { min: None, max: Some(max) }.hold(min))
    }
}

impl AgeBounds {
    /// Whether a value is within them.
    #[must_use]
    pub fn hold(&self, value: WireDuration) -> bool {
        self.min.is_none_or(|min| value.0 >= min.0) && self.max.is_none_or(|max| value.0 <= max.0)
    }
}

/// Bounds for people: `at least 10%, at most 50%`.
fn bounds(
    min: Option<&impl fmt::Display>,
    max: Option<&impl fmt::Display>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    match (min, max) {
        (Some(min), Some(max)) => write!(f, "at least {min}, at most {max}"),
        (Some(min), None) => write!(f, "at least {min}"),
        (None, Some(max)) => write!(f, "at most {max}"),
        (None, None) => f.write_str("anything"),
    }
}

impl fmt::Display for ShareBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bounds(self.min.as_ref(), self.max.as_ref(), f)
    }
}

impl fmt::Display for AgeBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bounds(self.min.as_ref(), self.max.as_ref(), f)
    }
}

impl fmt::Display for AllowedOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mode => "mode",
            Self::Tiers => "tiers",
            Self::Floor => "floor",
            Self::Ceiling => "ceiling",
            Self::After => "after",
            Self::MemoryHigh => "memoryHigh",
        })
    }
}

/// A tier by name or by rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierReference(pub TierRef);

wire_notation! {
    TierReference: {
        "x-kubernetes-int-or-string": true,
        "pattern": "^(dram|pmem|cxl|hbm|slow|[0-9]{1,3})$",
        "maxLength": 4,
    }
}

impl Notation for TierReference {
    const WHAT: &'static str = "a tier";
    const ACCEPTED: &'static str =
        "a name (dram, pmem, cxl, hbm, slow) or a rank (0 is the fastest), for example dram";
}

impl FromStr for TierReference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self).map_err(|_| {
            let hint = text.chars().any(char::is_uppercase).then_some("names are in lower case");
            Self::refuse(text, hint)
        })
    }
}

impl fmt::Display for TierReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
