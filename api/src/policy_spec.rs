//! A policy as its writer left it: the spec of a `TieringPolicy`, and of each policy in an agent's file.
//!
//! A [`PolicySpec`] says only what its writer said; [`PolicySpec::to_policy`] adds the defaults and checks that the whole makes
//! sense. The rules that an API server checks (CEL) are the same checks, early.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tiering::{
    Bytes, DemotePolicy, EngineChoice, MemoryHighPolicy, Mode, Policy, PolicyError, Ratio, TierRef,
};

use crate::duration::WireDuration;
use crate::notation::{Notation, ParseError, wire_notation};
use crate::quantity::{Factor, Percentage, Quantity, Rate, WireShare};

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
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.demote.engine", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name != 'none'").message("the name none means no policy: choose another")
)]
#[cfg_attr(test, kube(cel))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(!deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.tiers) || self.tiers.all(t, self.tiers.exists_one(u, string(u) == string(t)))")
    .message("tiers names a tier twice"))]
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
    /// Allowed tiers by name (`dram`, `pmem`, `cxl`, `hbm`, `slow`) or rank (0 is the fastest). `[dram]` pins, `[slow]`
    /// is cold-only. Default: all, and `cpuset.mems` is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub tiers: Option<Vec<TierReference>>,
    /// How much of the anonymous memory may or must be in DRAM.
    #[schemars(extend("default" = {}))]
    #[serde(default)]
    pub dram: DramSpec,
    /// When and how fast cold memory sinks.
    #[schemars(extend("default" = {}))]
    #[serde(default)]
    pub demote: DemoteSpec,
    /// Whether and how fast hot memory is brought back.
    #[schemars(extend("default" = {}))]
    #[serde(default)]
    pub promote: PromoteSpec,
    /// What `memory.high` should be. It bounds the footprint on all tiers.
    #[schemars(extend("default" = {}))]
    #[serde(default)]
    pub memory_high: MemoryHighSpec,
    /// Share of time stalled above which demotion backs off.
    #[schemars(extend("default" = {}))]
    #[serde(default)]
    pub pressure: PressureSpec,
    /// What pods may override by annotation. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_overrides: Option<Vec<AllowedOverride>>,
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
    /// Least DRAM: demotion stops here. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0"))]
    pub floor: Option<WireShare>,
    /// Most DRAM: memory above sinks whatever its age. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<WireShare>,
    /// Share of scarce DRAM relative to others, 1 to 10000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
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
    /// What finds and moves pages. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Auto"))]
    pub engine: Option<EngineSpec>,
}

/// What finds and moves pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EngineSpec {
    /// The best that the kernel allows.
    Auto,
    /// Generations of the multi-generational LRU.
    LruGen,
    /// `memory.reclaim`.
    Reclaim,
    /// Page scan and `move_pages(2)`.
    Pages,
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
#[x_kube(validation = Rule::new("!(has(self.mode) && self.mode == 'Pressure') && !has(self.target) && !has(self.floor)")
    .message("mode Pressure, with target and floor, is not supported by this version: use None, Fixed or Formula"))]
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
    /// For Pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Percentage>,
    /// For Pressure.
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
    /// By memory pressure; not supported by this version.
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
    /// Of `io.pressure`, `some`. Default: 0.1%.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0.1%"))]
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
    /// `Pressure`.
    #[error(
        "memoryHigh.mode Pressure is not supported by this version: use None, Fixed or Formula; demotion itself already \
         backs off under pressure"
    )]
    PressureUnsupported,
}

impl SpecError {
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
            },
            Self::NoTiers => &["tiers"],
            Self::SelectorValues { .. } => &["selector"],
            Self::NoValue | Self::NoInputs => &["memoryHigh"],
            Self::FieldOfOtherMode { field: "value", .. } => &["memoryHigh", "value"],
            Self::FieldOfOtherMode { field: "factor", .. } => &["memoryHigh", "factor"],
            Self::FieldOfOtherMode { field: "target", .. } => &["memoryHigh", "target"],
            Self::FieldOfOtherMode { .. } => &["memoryHigh", "floor"],
            Self::PressureUnsupported => &["memoryHigh", "mode"],
        }
    }
}

impl MemoryHighSpec {
    /// KEP-2570's default factor.
    const DEFAULT_FACTOR: (u128, u128) = (9, 10);

    fn to_policy(self, inputs: Option<MemoryHighInputs>) -> Result<MemoryHighPolicy, SpecError> {
        let mode = self.mode.unwrap_or_default();
        if mode == MemoryHighMode::Pressure {
            return Err(SpecError::PressureUnsupported);
        }
        let misplaced = [
            ("value", self.value.is_some() && mode != MemoryHighMode::Fixed, "Fixed"),
            ("factor", self.factor.is_some() && mode != MemoryHighMode::Formula, "Formula"),
            ("target", self.target.is_some(), "Pressure (not supported by this version)"),
            ("floor", self.floor.is_some(), "Pressure (not supported by this version)"),
        ];
        if let Some((field, _, belongs)) = misplaced.into_iter().find(|(_, misplaced, _)| *misplaced) {
            return Err(SpecError::FieldOfOtherMode { field, mode, belongs });
        }
        Ok(match mode {
            MemoryHighMode::None | MemoryHighMode::Pressure => MemoryHighPolicy::None,
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
    /// `selector`, `priority` and `allowOverrides` say where a policy applies and are not part of it.
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
            tiers => policy.tiers = tiers.unwrap_or_default().iter().map(|tier| tier.0).collect(),
        }
        policy.dram.ceiling = self.dram.ceiling.map(|ceiling| ceiling.0);
        set(&mut policy.dram.floor, self.dram.floor.map(|floor| floor.0));
        set(&mut policy.dram.weight, self.dram.weight);
        if let Some(WireDuration(after)) = self.demote.after {
            policy.demote.after = after;
            policy.demote.after_max =
                after.saturating_mul(DemotePolicy::AFTER_MAX_FACTOR).min(DemotePolicy::AFTER_LIMIT);
        }
        set(&mut policy.demote.after_max, self.demote.after_max.map(|after_max| after_max.0));
        set(&mut policy.demote.slow_touch_rate, self.demote.slow_touch_rate.map(|rate| rate.0));
        set(&mut policy.demote.max_rate, self.demote.max_rate.map(|rate| rate.0));
        if let Some(engine) = self.demote.engine {
            policy.demote.engine = match engine {
                EngineSpec::Auto => EngineChoice::Auto,
                EngineSpec::LruGen => EngineChoice::LruGen,
                EngineSpec::Reclaim => EngineChoice::Reclaim,
                EngineSpec::Pages => EngineChoice::Pages,
            };
        }
        set(&mut policy.promote.enabled, self.promote.enabled);
        set(&mut policy.promote.max_rate, self.promote.max_rate.map(|rate| rate.0));
        policy.memory_high = self.memory_high.to_policy(inputs)?;
        set(&mut policy.pressure.memory, self.pressure.memory.map(|memory| memory.0));
        set(&mut policy.pressure.io, self.pressure.io.map(|io| io.0));
        Ok(policy.validated()?)
    }
}

impl PolicySpec {
    /// Whether a cluster may assign it: the selector has a meaning and the values make a policy, whatever a pod's memory is.
    pub fn check(&self) -> Result<(), SpecError> {
        let selectors = self.selector.iter().flat_map(|selector| [&selector.namespaces, &selector.pods]);
        for requirement in selectors.flatten().flat_map(|labels| &labels.match_expressions) {
            let needs_values = matches!(requirement.operator, LabelOperator::In | LabelOperator::NotIn);
            if needs_values == requirement.values.is_empty() {
                let LabelRequirement { key, operator, .. } = requirement.clone();
                return Err(SpecError::SelectorValues { key, operator });
            }
        }
        let any = MemoryHighInputs { request: Bytes(0), limit: Bytes(u64::MAX) };
        self.to_policy(Some(any)).map(|_| ())
    }

    /// With every default said, so that two specs that mean the same are the same.
    ///
    /// `afterMax` and what `memoryHigh` takes follow from other fields and stay as they are.
    #[must_use]
    pub fn complete(mut self) -> Self {
        let Policy { dram, demote, promote, pressure, .. } = Policy::default();
        self.mode.get_or_insert(ModeSpec::Enforce);
        self.priority.get_or_insert(0);
        self.dram.floor.get_or_insert(WireShare(dram.floor));
        self.dram.weight.get_or_insert(dram.weight);
        self.demote.after.get_or_insert(WireDuration(demote.after));
        self.demote.slow_touch_rate.get_or_insert(Percentage(demote.slow_touch_rate));
        self.demote.max_rate.get_or_insert(Rate(demote.max_rate));
        self.demote.engine.get_or_insert(EngineSpec::Auto);
        self.promote.enabled.get_or_insert(promote.enabled);
        self.promote.max_rate.get_or_insert(Rate(promote.max_rate));
        self.memory_high.mode.get_or_insert_default();
        self.pressure.memory.get_or_insert(Percentage(pressure.memory));
        self.pressure.io.get_or_insert(Percentage(pressure.io));
        self
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

#[cfg(test)]
mod tests;
