mod refused;

use std::path::Path;

use tiering::{Bytes, MemoryHighPolicy, Mode, Policy};

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("agent.yaml"))
}

/// A file whose only policy has this spec.
fn with_spec(spec: &str) -> String {
    format!("policies:\n  - name: p\n    cgroups: [/a/*]\n    spec:\n      {spec}\n")
}

fn example() -> Config {
    Config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/agent.yaml"))).unwrap()
}

#[test]
fn the_example_says_the_defaults() {
    let example = example();
    assert_eq!(example.warnings, []);
    assert_eq!(example.listen, Some(DEFAULT_LISTEN));
    assert_eq!(example.state_file, Path::new(DEFAULT_STATE_FILE));
    assert_eq!(example.kernel_demotion, KernelDemotion::default());
    assert_eq!(example.promoter, PromoterChoice::default());
    assert_eq!(example.interval, DEFAULT_INTERVAL);
    assert_eq!(example.tiers, []);
    let default = example.policies.iter().find(|entry| entry.name == "default").unwrap();
    assert_eq!(default.policy, Policy { mode: Mode::Observe, ..Policy::default() }.into());
}

#[test]
fn the_example_observes_until_somebody_decides_otherwise() {
    for entry in example().policies {
        assert_eq!(entry.policy.mode, Mode::Observe, "{}", entry.name);
    }
}

#[test]
fn the_first_policy_that_matches_wins() {
    let example = example();
    let check = |path: &str, policy: Option<&str>| {
        assert_eq!(example.policy_for(path).map(|entry| entry.name.as_str()), policy, "{path}");
    };
    check("/machine.slice/db-1.scope", Some("latency"));
    check("/machine.slice/web.scope", Some("default"));
    check("/machine.slice/web.scope/init", None);
    check("/machine.slice", None);
    check("/batch.slice", None);
    check("/batch.slice/a", Some("batch"));
    check("/batch.slice/a/b", Some("batch"));
    check("/batch.slice/a/init", None);
    check("/", None);
    let high = example.policy_for("/batch.slice/a").unwrap().policy.memory_high;
    assert!(
        matches!(high, MemoryHighPolicy::Formula { request, .. } if request == Bytes::mib(256)),
        "{high:?}"
    );
}

#[test]
fn what_systemd_escapes_matches_as_it_is_written() {
    let config = parse("policies: [{ name: p, cgroups: ['/a\\x2db.slice/*'] }]").unwrap();
    assert!(config.policy_for("/a\\x2db.slice/c").is_some());
    assert!(config.policy_for("/a-b.slice/c").is_none());
}

#[test]
fn nothing_has_to_be_said() {
    for text in ["", "# nothing\n", "policies: []\n", "interval: 1s\n"] {
        let config = parse(text).unwrap();
        assert_eq!(config.listen, Some(DEFAULT_LISTEN));
        assert_eq!(config.warnings.len(), 1, "{text}");
        assert_eq!(config.warnings[0].message, "there are no policies: `run` manages nothing with this file");
    }
}

#[test]
fn listening_can_be_switched_off() {
    for off in ["off", "\"off\"", "false"] {
        assert_eq!(parse(&format!("listen: {off}\n")).unwrap().listen, None, "{off}");
    }
    assert_eq!(parse("listen: \"[::]:80\"").unwrap().listen.unwrap().to_string(), "[::]:80");
}

#[test]
fn tiers_are_taken_in_their_order() {
    let config = parse("tiers: [{ name: dram, nodes: [0, 1] }, { name: slow, nodes: [2] }]").unwrap();
    assert_eq!(config.tiers.len(), 2);
    assert_eq!(config.tiers[0].nodes.len(), 2);
}

#[test]
fn what_has_no_meaning_outside_a_cluster_warns_with_its_line() {
    let config = parse(&with_spec("{ priority: 3, allowOverrides: [mode] }")).unwrap();
    let shown: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "line 5: priority is for clusters; in this file the first policy that matches wins",
            "line 5: allowOverrides is for clusters and does nothing here"
        ]
    );
}

#[test]
fn a_clusters_node_has_settings_and_no_policies() {
    let settings = |text| Config::parse_node_settings(text, Path::new("agent.yaml"));
    for text in ["", "# nothing\n", "listen: off\nkernelDemotion: Always\n"] {
        let config = settings(text).unwrap();
        assert!(config.policies.is_empty() && config.warnings.is_empty(), "{text}");
    }
    let refused =
        settings("interval: 1s\npolicies:\n  - name: a\n    cgroups: [/a]\n").unwrap_err().to_string();
    assert!(
        refused.starts_with("agent.yaml:3:3: in a cluster, policies are TieringPolicy objects"),
        "{refused}"
    );
    assert!(settings("interval: 1h\n").is_err());
    assert_eq!(Config::load_node_settings(None).unwrap().interval, DEFAULT_INTERVAL);
}

#[test]
fn a_node_names_its_engine() {
    let text = "engine: Pages\npolicies: [{ name: p, cgroups: [/a] }]";
    assert_eq!(parse(text).unwrap().engine, EngineChoice::Pages);
    assert_eq!(parse("policies: []").unwrap().engine, EngineChoice::Auto);
    assert!(parse("observeWithoutSlowTier: true").unwrap().observe_without_slow_tier);
}
