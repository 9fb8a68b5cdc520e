//! What only makes sense together.

use std::collections::BTreeMap;

use globset::GlobSet;
use tiering::{NodeId, TierName, TierOverride, TierRef};

use super::error::{Problem, Warning};
use super::file::{ConfigFile, PolicyFile, TierFile};
use super::globs;
use super::locate::{Key, locate};
use super::unit;
use super::{
    Config, DEFAULT_INTERVAL, DEFAULT_LISTEN, DEFAULT_STATE_FILE, MAX_INTERVAL, MIN_INTERVAL, PolicyEntry,
};
use api::{MemoryHighInputs, MemoryHighMode, SpecError, WireDuration};

const SPEC: &str = "spec";

pub(super) fn validate(file: &ConfigFile, text: &str) -> Result<Config, Vec<Problem>> {
    let mut warnings = Warnings { text, found: Vec::new() };
    let (mut problems, settings) = match settings(file) {
        Ok(settings) => (Vec::new(), Some(settings)),
        Err(problems) => (problems, None),
    };
    let tiers = settings.as_ref().map_or(&[][..], |settings| &settings.tiers);
    let policies = file.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        warnings.add(&[], "there are no policies: `run` manages nothing with this file");
    }
    let mut names = BTreeMap::new();
    let mut entries = Vec::with_capacity(policies.len());
    for (i, policy) in policies.iter().enumerate() {
        if let Some(earlier) = names.insert(&policy.name, i + 1) {
            let message = format!(
                "policy {} and policy {earlier} have the same name `{}`; metrics and logs tell them apart by it: rename one",
                i + 1,
                policy.name
            );
            problems.push(Problem::new(in_policy(i, "name"), message));
        }
        match entry(i, policy, tiers, &mut warnings) {
            Ok(entry) => entries.push(entry),
            Err(more) => problems.extend(more),
        }
    }
    match settings.filter(|_| problems.is_empty()) {
        Some(settings) => Ok(Config { policies: entries, warnings: warnings.found, ..settings }),
        None => Err(problems),
    }
}

/// What a cluster's node is configured with: everything but policies.
pub(super) fn node_settings(file: &ConfigFile) -> Result<Config, Vec<Problem>> {
    if file.policies.is_some() {
        let message = "in a cluster, policies are TieringPolicy objects: make those of these and remove `policies`, or run \
                       without --kubernetes";
        return Err(vec![Problem::new(vec![Key::Field("policies")], message)]);
    }
    settings(file)
}

fn settings(file: &ConfigFile) -> Result<Config, Vec<Problem>> {
    match (state_file(file.state_file.as_deref()), interval(file.interval), tiers(file.tiers.as_deref())) {
        (Ok(state_file), Ok(interval), Ok(tiers)) => Ok(Config {
            listen: file.listen.as_ref().map_or(Some(DEFAULT_LISTEN), |listen| listen.0),
            state_file: state_file.into(),
            engine: file.engine.into(),
            promoter: file.promoter,
            observe_without_slow_tier: file.observe_without_slow_tier,
            kernel_demotion: file.kernel_demotion,
            interval,
            tiers,
            policies: Vec::new(),
            warnings: Vec::new(),
        }),
        (state_file, interval, tiers) => {
            Err([state_file.err(), interval.err(), tiers.err()].into_iter().flatten().collect())
        }
    }
}

struct Warnings<'a> {
    text: &'a str,
    found: Vec<Warning>,
}

impl Warnings<'_> {
    fn add(&mut self, path: &[Key], message: impl Into<String>) {
        let place = if path.is_empty() { None } else { locate(self.text, path) };
        self.found.push(Warning { place, message: message.into() });
    }
}

fn in_policy(index: usize, field: &'static str) -> Vec<Key> {
    vec![Key::Field("policies"), Key::Index(index), Key::Field(field)]
}

fn state_file(path: Option<&str>) -> Result<&str, Problem> {
    match path {
        None => Ok(DEFAULT_STATE_FILE),
        Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(path),
        Some(path) => Err(Problem::new(
            vec![Key::Field("stateFile")],
            format!(
                "stateFile `{path}` is not an absolute path of a file: write for example {DEFAULT_STATE_FILE}"
            ),
        )),
    }
}

fn interval(interval: Option<WireDuration>) -> Result<std::time::Duration, Problem> {
    match interval {
        None => Ok(DEFAULT_INTERVAL),
        Some(WireDuration(time)) if (MIN_INTERVAL..=MAX_INTERVAL).contains(&time) => Ok(time),
        Some(duration) => Err(Problem::new(
            vec![Key::Field("interval")],
            format!(
                "interval is {duration}; it must be between {} and {}",
                WireDuration(MIN_INTERVAL),
                WireDuration(MAX_INTERVAL)
            ),
        )),
    }
}

fn tiers(tiers: Option<&[TierFile]>) -> Result<Vec<TierOverride>, Problem> {
    let Some(tiers) = tiers else { return Ok(Vec::new()) };
    let at = |keys: &[Key]| [&[Key::Field("tiers")], keys].concat();
    if tiers.len() < 2 {
        let message =
            "tiers must name at least two tiers, fast to slow; leave it out to use what the kernel says";
        return Err(Problem::new(at(&[]), message));
    }
    let mut nodes = BTreeMap::new();
    let mut overrides = Vec::with_capacity(tiers.len());
    for (i, tier) in tiers.iter().enumerate() {
        let shown = tier.name.to_string();
        let TierRef::Name(name) = tier.name.0 else {
            let message =
                format!("a tier's rank is its place in the list: name it, for example slow, not {shown}");
            return Err(Problem::new(at(&[Key::Index(i), Key::Field("name")]), message));
        };
        if tier.nodes.is_empty() {
            let message = format!("tier {shown} has no nodes; write for example [{i}]");
            return Err(Problem::new(at(&[Key::Index(i), Key::Field("nodes")]), message));
        }
        for (j, node) in tier.nodes.iter().enumerate() {
            if let Some(other) = nodes.insert(*node, shown.clone()) {
                let message = format!("node {node} is in tier {other} already; a node is in one tier, once");
                return Err(Problem::new(at(&[Key::Index(i), Key::Field("nodes"), Key::Index(j)]), message));
            }
        }
        overrides.push(TierOverride { name, nodes: tier.nodes.iter().copied().map(NodeId).collect() });
    }
    Ok(overrides)
}

fn entry(
    index: usize,
    file: &PolicyFile,
    tiers: &[TierOverride],
    warnings: &mut Warnings<'_>,
) -> Result<PolicyEntry, Vec<Problem>> {
    let in_spec = |fields: &[&'static str]| {
        let mut path = in_policy(index, SPEC);
        path.extend(fields.iter().copied().map(Key::Field));
        path
    };
    let mut problems: Vec<Problem> = name(index, &file.name).err().into_iter().collect();
    if file.cgroups.is_empty() {
        let message =
            format!("policy `{}` is for no cgroup: name some, for example [\"/system.slice/*\"]", file.name);
        problems.push(Problem::new(in_policy(index, "cgroups"), message));
    }
    let mut compiled =
        |field, list: &[String]| globs(index, field, list).map_err(|problem| problems.push(problem)).ok();
    let included = compiled("cgroups", &file.cgroups);
    let excluded = compiled("exclude", &file.exclude);
    if let Some(i) = file.cgroups.iter().position(|glob| glob == "/**") {
        let path = [in_policy(index, "cgroups"), vec![Key::Index(i)]].concat();
        warnings.add(&path, "/** is every cgroup of the host, system services included");
    }
    if file.spec.selector.is_some() {
        let message = "selector chooses pods and is for clusters; in this file a policy's `cgroups` say what it is for: \
                       remove it";
        problems.push(Problem::new(in_spec(&["selector"]), message));
    }
    if file.spec.priority.is_some() {
        warnings.add(
            &in_spec(&["priority"]),
            "priority is for clusters; in this file the first policy that matches wins",
        );
    }
    if file.spec.allow_overrides.is_some() {
        warnings.add(&in_spec(&["allowOverrides"]), "allowOverrides is for clusters and does nothing here");
    }
    let inputs = file.inputs.as_ref().map(|inputs| MemoryHighInputs {
        request: inputs.request.map_or(tiering::Bytes::ZERO, |request| request.0),
        limit: inputs.limit.0,
    });
    if inputs.is_some() && file.spec.memory_high.mode != Some(MemoryHighMode::Formula) {
        warnings.add(&in_policy(index, "inputs"), "inputs are only read by memoryHigh.mode Formula");
    }
    let policy = file.spec.to_policy(inputs).map_err(|error| {
        let message = match &error {
            SpecError::NoInputs => {
                "memoryHigh.mode Formula computes with the policy's `inputs`: add for example \
                 inputs: { request: 256Mi, limit: 1Gi } beside `spec`"
                    .to_owned()
            }
            error => error.to_string(),
        };
        problems.push(Problem::new(in_spec(error.path()), message));
    });
    if let Ok(policy) = &policy {
        for (fields, words) in unit::forgotten(policy) {
            warnings.add(&in_spec(fields), words);
        }
    }
    let named = policy.as_ref().map(|policy| policy.tiers.as_slice()).unwrap_or_default();
    for (i, tier) in named.iter().enumerate().filter(|_| !tiers.is_empty()) {
        let there = match tier {
            // Any lower tier may be called slow.
            TierRef::Name(TierName::Slow) => true,
            TierRef::Name(name) => tiers.iter().any(|tier| tier.name == *name),
            TierRef::Rank(rank) => usize::from(*rank) < tiers.len(),
        };
        if !there {
            let path = [in_spec(&["tiers"]), vec![Key::Index(i)]].concat();
            let known: Vec<_> = tiers.iter().map(|tier| tier.name.to_string()).collect();
            let message =
                format!("there is no tier {tier}; the `tiers` of this file are {}", known.join(", "));
            problems.push(Problem::new(path, message));
        }
    }
    match (policy, included, excluded) {
        (Ok(policy), Some(included), Some(excluded)) if problems.is_empty() => Ok(PolicyEntry {
            name: file.name.clone(),
            policy: policy.into(),
            cgroups: file.cgroups.clone(),
            exclude: file.exclude.clone(),
            included,
            excluded,
        }),
        _ => Err(problems),
    }
}

/// As Kubernetes names objects, so that a policy can move to a cluster as it is.
fn name(index: usize, name: &str) -> Result<(), Problem> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (1..=253).contains(&name.len())
        && name.chars().all(inner)
        && name.starts_with(outer)
        && name.ends_with(outer)
    {
        return Ok(());
    }
    let message = format!(
        "`{name}` is not a policy's name: write lower-case letters, digits, - and ., with a letter or digit at both \
         ends, for example batch"
    );
    Err(Problem::new(in_policy(index, "name"), message))
}

fn globs(index: usize, field: &'static str, globs: &[String]) -> Result<GlobSet, Problem> {
    globs::compile(globs).map_err(|error| {
        let mut path = in_policy(index, field);
        path.extend(error.index.map(Key::Index));
        Problem::new(path, error.message)
    })
}
