// expect-test writes its hashes itself.
#![allow(clippy::needless_raw_string_hashes)]

use expect_test::{Expect, expect};

use super::*;

fn reported(yaml: &str, cgroups: Option<&[&str]>, expected: &Expect) {
    let file = Path::new("agent.yaml");
    let config = Config::parse(yaml, file).unwrap();
    let cgroups = cgroups.map(|paths| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>());
    expected.assert_eq(&report(&config, file, cgroups.as_deref(), &[]));
}

#[test]
fn a_policy_is_told_in_plain_words() {
    reported(
        "tiers: [{ name: dram, nodes: [0] }, { name: cxl, nodes: [1, 2] }]
policies:
  - name: batch
    cgroups: [/batch/**]
    exclude: [/batch/init]
    inputs: { request: 256Mi, limit: 1Gi }
    spec:
      tiers: [dram, 1]
      dram: { floor: 256Mi, ceiling: 60% }
      demote: { after: 90s }
      promote: { enabled: false }
      memoryHigh: { mode: Formula }
",
        Some(&["/batch", "/batch/a", "/batch/init"]),
        &expect![[r#"
            agent.yaml is valid: 1 policy.

              looks every  1s while something is to be done
              serves       metrics and health at http://127.0.0.1:9440
              remembers    what to put back in /run/thermocline/state
              the kernel   may demote while the agent does, for milliseconds at a time
              tiers        dram (node 0), then cxl (node 1, 2)

            Policy batch acts (Enforce).
              for          /batch/** but not /batch/init (1 cgroup now)
              tiers        only dram and 1, by cpuset.mems
              DRAM         at least 256 MiB, at most 60 % of its anonymous memory; weight 100 where it is short
              demotes      anonymous memory not accessed for 1m30s, at most 200 MiB/s
                           (up to 24m for memory that keeps coming back)
              holds        while more than 0.2 % of its working set a minute is touched on slow memory
              promotes     nothing
              memory.high  947 MiB on all tiers together (90 % of the way from request 256 MiB to limit 1 GiB), never below what is in use
              backs off    while its tasks stall more than 0.1 % of the time on memory
        "#]],
    );
}

#[test]
fn what_probably_is_not_meant_is_told_at_the_end() {
    reported(
        "listen: off
policies:
  - { name: all, cgroups: [/**], spec: { mode: Observe } }
  - { name: hidden, cgroups: [/a/*] }
  - { name: nothing, cgroups: [/b/*] }
",
        Some(&["/a", "/a/b"]),
        &expect![[r#"
            agent.yaml is valid: 3 policies.

              looks every  1s while something is to be done
              serves       nothing: no metrics, no health
              remembers    what to put back in /run/thermocline/state
              the kernel   may demote while the agent does, for milliseconds at a time
              tiers        as the kernel says

            Policy all only looks (Observe): what follows is decided and reported, not done.
              for          /** (2 cgroups now)
              tiers        all; cpuset.mems is left alone
              DRAM         no floor, no ceiling; weight 100 where it is short
              demotes      anonymous memory not accessed for 2m, at most 200 MiB/s
                           (up to 32m for memory that keeps coming back)
              holds        while more than 0.2 % of its working set a minute is touched on slow memory
              promotes     what is touched on slow memory, at most 200 MiB/s where the agent moves it
              memory.high  left alone
              backs off    while its tasks stall more than 0.1 % of the time on memory

            Policy hidden acts (Enforce).
              for          /a/* (0 cgroups now)
              tiers        all; cpuset.mems is left alone
              DRAM         no floor, no ceiling; weight 100 where it is short
              demotes      anonymous memory not accessed for 2m, at most 200 MiB/s
                           (up to 32m for memory that keeps coming back)
              holds        while more than 0.2 % of its working set a minute is touched on slow memory
              promotes     what is touched on slow memory, at most 200 MiB/s where the agent moves it
              memory.high  left alone
              backs off    while its tasks stall more than 0.1 % of the time on memory

            Policy nothing acts (Enforce).
              for          /b/* (0 cgroups now)
              tiers        all; cpuset.mems is left alone
              DRAM         no floor, no ceiling; weight 100 where it is short
              demotes      anonymous memory not accessed for 2m, at most 200 MiB/s
                           (up to 32m for memory that keeps coming back)
              holds        while more than 0.2 % of its working set a minute is touched on slow memory
              promotes     what is touched on slow memory, at most 200 MiB/s where the agent moves it
              memory.high  left alone
              backs off    while its tasks stall more than 0.1 % of the time on memory

            warning: line 3: /** is every cgroup of the host, system services included
            warning: policy hidden: all its cgroups go to policies above it
            warning: policy nothing: no cgroup of this host matches now
        "#]],
    );
}

fn nowhere() -> Roots {
    let nowhere = || PathBuf::from("/nonexistent");
    Roots::new(nowhere(), nowhere(), nowhere())
}

#[test]
fn what_is_set_for_the_whole_host_is_told_and_that_it_is_put_back() {
    let file = Path::new("agent.yaml");
    let config =
        Config::parse("policies: [{ name: a, cgroups: [/a], spec: { demote: { after: 60s } } }]", file);
    let sets = ["kernel.numa_balancing 2 (now 1), put back at the end".to_owned()];
    let told = report(&config.unwrap(), file, None, &sets);
    let line = "  sets         for the whole host: kernel.numa_balancing 2 (now 1), put back at the end\n";
    assert!(told.contains(line), "{told}");
}

#[test]
fn what_only_looks_sets_nothing_for_the_host() {
    let file = Path::new("agent.yaml");
    let config =
        Config::parse("policies: [{ name: a, cgroups: [/a], spec: { mode: Observe } }]", file).unwrap();
    assert_eq!(host_settings::told(nowhere(), file, &config, false), ["nothing: no policy acts"]);
}

#[test]
fn an_amount_without_a_unit_is_told_with_its_line() {
    let file = Path::new("agent.yaml");
    let text =
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec:\n      dram: { floor: 25, ceiling: 60 }\n";
    let told = report(&Config::parse(text, file).unwrap(), file, None, &[]);
    let line = "warning: line 5: dram.floor is 25 B, less than a page: did you mean 25% or 25Mi?\n";
    assert!(told.contains(line) && told.contains("60% or 60Mi"), "{told}");
}

#[test]
fn cgroups_are_found_at_any_depth_and_only_where_there_are_cgroups() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("a/b")).unwrap();
    assert_eq!(cgroups(root.path()), None);
    fs::write(root.path().join("cgroup.controllers"), "memory\n").unwrap();
    assert_eq!(cgroups(root.path()).unwrap(), ["/a", "/a/b"]);
}

#[test]
fn the_examples_are_accepted() {
    let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"));
    for name in ["agent.yaml", "demo.yaml"] {
        let args = CheckArgs { file: examples.join(name), kubernetes: false };
        check(&args, Path::new("/nonexistent"), nowhere()).unwrap();
    }
}

#[test]
fn a_nodes_settings_are_told_without_policies() {
    let text = "interval: 2s\ntiers:\n  - { name: dram, nodes: [0] }\n  - { name: slow, nodes: [1] }\n";
    let path = Path::new("agent.yaml");
    let report = node_report(&Config::parse_node_settings(text, path).unwrap(), path, &[]);
    for part in ["valid for a node of a cluster", "2s while", "dram (node 0), then slow (node 1)"] {
        assert!(report.contains(part), "{report}");
    }
    assert!(!report.contains("policies:") && !report.contains("warning"), "{report}");
}

#[test]
fn a_dash_of_systemd_that_double_quotes_took_away_is_told() {
    let warned = |glob: &str| {
        let text = format!("policies: [{{ name: web, cgroups: [{glob}] }}]\n");
        let config = Config::parse(&text, Path::new("agent.yaml")).unwrap();
        let cgroups = [r"/app\x2dweb.slice/a".to_owned()];
        report(&config, Path::new("agent.yaml"), Some(&cgroups), &[])
            .contains(r"In double quotes \x2d is a dash")
    };
    assert!(warned(r#""/app\x2dweb.slice/*""#));
    assert!(!warned(r"'/app\x2dweb.slice/*'"));
    assert!(!warned("/elsewhere.slice/*"));
}
