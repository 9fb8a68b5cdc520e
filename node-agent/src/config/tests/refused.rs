//! What a file that is refused says, word for word.

// expect-test writes its hashes itself.
#![allow(clippy::needless_raw_string_hashes)]

use std::path::Path;

use expect_test::{Expect, expect};

use super::{parse, with_spec};
use crate::config::Config;

fn refused(text: &str, expected: &Expect) {
    expected.assert_eq(&parse(text).unwrap_err().to_string());
}

#[test]
fn an_unreadable_file_says_what_to_do() {
    let error = Config::load(Path::new("/nonexistent/agent.yaml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/nonexistent/agent.yaml: cannot read the configuration: No such file or directory (os error 2); create it, or \
         name another file"
    );
}

#[test]
fn a_misspelt_field_is_pointed_at() {
    refused(
        &with_spec("dram: { ceilng: 60% }"),
        &expect![[r#"
        agent.yaml:5:15: there is no field `ceilng` here; did you mean `ceiling`?
          |
        5 |       dram: { ceilng: 60% }
          |               ^"#]],
    );
    refused(
        "policy: []\n",
        &expect![[r#"
        agent.yaml:1:1: there is no field `policy` here; did you mean `policies`?
          |
        1 | policy: []
          | ^"#]],
    );
    refused(
        "colour: red\n",
        &expect![[r#"
        agent.yaml:1:1: there is no field `colour` here; there are listen, stateFile, engine, promoter, observeWithoutSlowTier, kernelDemotion, interval, tiers, policies
          |
        1 | colour: red
          | ^"#]],
    );
}

#[test]
fn a_value_that_does_not_parse_is_pointed_at() {
    refused(
        &with_spec("dram: { floor: 256MB }"),
        &expect![[r#"
            agent.yaml:5:22: `256MB` is not an amount of memory or a percentage (leave out the B): write an amount, for example 256Mi or 1.5Gi, or a share of the cgroup's anonymous memory, for example 60%
              |
            5 |       dram: { floor: 256MB }
              |                      ^"#]],
    );
    refused(
        &with_spec("demote: { after: 120 }"),
        &expect![[r#"
        agent.yaml:5:24: `120` is not a duration (it has no unit): write numbers with h, m, s, ms, us or ns, for example 90s, 2m or 1h30m
          |
        5 |       demote: { after: 120 }
          |                        ^"#]],
    );
    refused(
        &with_spec("demote: { slowTouchRate: 0.2 }"),
        &expect![[r#"
        agent.yaml:5:32: `0.2` is not a percentage (it has no % sign): write 0% to 100% with at most four decimals, for example 60% or 0.2%
          |
        5 |       demote: { slowTouchRate: 0.2 }
          |                                ^"#]],
    );
    refused(
        "engine: Damon\npolicies: []\n",
        &expect![[r#"
        agent.yaml:1:9: `Damon` is not known; write one of Auto, LruGen, Reclaim, Pages
          |
        1 | engine: Damon
          |         ^"#]],
    );
    refused(
        &with_spec("mode: enforce"),
        &expect![[r#"
        agent.yaml:5:13: `enforce` is not known; did you mean Enforce?
          |
        5 |       mode: enforce
          |             ^"#]],
    );
    refused(
        &with_spec("tiers: [Dram]"),
        &expect![[r#"
        agent.yaml:5:15: `Dram` is not a tier (names are in lower case): write a name (dram, pmem, cxl, hbm, slow) or a rank (0 is the fastest), for example dram
          |
        5 |       tiers: [Dram]
          |               ^"#]],
    );
    refused(
        &with_spec("dram: { floor: [1] }"),
        &expect![[r#"
            agent.yaml:5:15: a list is not an amount of memory or a percentage: write an amount, for example 256Mi or 1.5Gi, or a share of the cgroup's anonymous memory, for example 60%
              |
            5 |       dram: { floor: [1] }
              |               ^"#]],
    );
    refused(
        "listen: localhost\n",
        &expect![[r#"
        agent.yaml:1:9: `localhost` is not an address to listen on: write an IP address and a port, for example 127.0.0.1:9440 or "[::]:9440", or off
          |
        1 | listen: localhost
          |         ^"#]],
    );
    refused(
        "interval: 1s\ninterval: 2s\n",
        &expect![[r#"
        agent.yaml:2:1: `interval` is there twice; remove one
          |
        2 | interval: 2s
          | ^"#]],
    );
    refused(
        "policies:\n  - cgroups: [/a]\n",
        &expect![[r#"
        agent.yaml:2:5: the field `name` is missing
          |
        2 |   - cgroups: [/a]
          |     ^"#]],
    );
    refused(
        "policies: {\n",
        &expect![[r#"
            agent.yaml:1:11: `{` is not closed: write `}` behind the last of what it holds
              |
            1 | policies: {
              |           ^"#]],
    );
}

#[test]
fn values_that_do_not_fit_each_other_are_pointed_at() {
    refused(
        &with_spec("dram: { ceiling: 1Gi, floor: 2Gi }"),
        &expect![[r#"
        agent.yaml:5:36: dram.floor is above dram.ceiling: no amount of DRAM satisfies both
          |
        5 |       dram: { ceiling: 1Gi, floor: 2Gi }
          |                                    ^"#]],
    );
    refused(
        &with_spec("demote:\n        afterMax: 1m"),
        &expect![[r#"
        agent.yaml:6:19: demote.afterMax is 60s; it must be between demote.after (120s) and 168h
          |
        6 |         afterMax: 1m
          |                   ^"#]],
    );
    refused(
        &with_spec("memoryHigh: { mode: Formula }"),
        &expect![[r#"
        agent.yaml:5:19: memoryHigh.mode Formula computes with the policy's `inputs`: add for example inputs: { request: 256Mi, limit: 1Gi } beside `spec`
          |
        5 |       memoryHigh: { mode: Formula }
          |                   ^"#]],
    );
    refused(
        &with_spec("memoryHigh: { mode: Pressure, target: 0% }"),
        &expect![[r#"
        agent.yaml:5:45: memoryHigh.target is zero: every cgroup stalls now and then
          |
        5 |       memoryHigh: { mode: Pressure, target: 0% }
          |                                             ^"#]],
    );
    refused(
        &with_spec("memoryHigh: { mode: None, value: 1Gi }"),
        &expect![[r#"
        agent.yaml:5:40: memoryHigh.value has no meaning in mode None: leave it out, or set memoryHigh.mode: Fixed
          |
        5 |       memoryHigh: { mode: None, value: 1Gi }
          |                                        ^"#]],
    );
    refused(
        &with_spec("selector: { pods: { matchLabels: { a: b } } }"),
        &expect![[r#"
        agent.yaml:5:17: selector chooses pods and is for clusters; in this file a policy's `cgroups` say what it is for: remove it
          |
        5 |       selector: { pods: { matchLabels: { a: b } } }
          |                 ^"#]],
    );
    refused(
        "interval: 10ms\n",
        &expect![[r#"
        agent.yaml:1:11: interval is 10ms; it must be between 100ms and 10s
          |
        1 | interval: 10ms
          |           ^"#]],
    );
    refused(
        "stateFile: state\n",
        &expect![[r#"
        agent.yaml:1:12: stateFile `state` is not an absolute path of a file: write for example /run/thermocline/state
          |
        1 | stateFile: state
          |            ^"#]],
    );
}

#[test]
fn tiers_that_cannot_be_are_pointed_at() {
    refused(
        "tiers: [{ name: dram, nodes: [0] }]\n",
        &expect![[r#"
        agent.yaml:1:8: tiers must name at least two tiers, fast to slow; leave it out to use what the kernel says
          |
        1 | tiers: [{ name: dram, nodes: [0] }]
          |        ^"#]],
    );
    refused(
        "tiers:\n  - { name: dram, nodes: [0] }\n  - { name: slow, nodes: [1, 0] }\n",
        &expect![[r#"
        agent.yaml:3:30: node 0 is in tier dram already; a node is in one tier, once
          |
        3 |   - { name: slow, nodes: [1, 0] }
          |                              ^"#]],
    );
    refused(
        "tiers:\n  - { name: dram, nodes: [0] }\n  - { name: 1, nodes: [1] }\n",
        &expect![[r#"
        agent.yaml:3:13: a tier's rank is its place in the list: name it, for example slow, not 1
          |
        3 |   - { name: 1, nodes: [1] }
          |             ^"#]],
    );
    refused(
        "tiers:\n  - { name: dram, nodes: [0] }\n  - { name: slow, nodes: [] }\n",
        &expect![[r#"
        agent.yaml:3:26: tier slow has no nodes; write for example [1]
          |
        3 |   - { name: slow, nodes: [] }
          |                          ^"#]],
    );
    refused(
        "tiers: [{ name: dram, nodes: [0] }, { name: slow, nodes: [1] }]\npolicies:\n  - name: p\n    cgroups: [/a]\n    \
         spec: { tiers: [dram, cxl] }\n",
        &expect![[r#"
            agent.yaml:5:27: there is no tier cxl; the `tiers` of this file are dram, slow
              |
            5 |     spec: { tiers: [dram, cxl] }
              |                           ^"#]],
    );
}

#[test]
fn cgroups_that_cannot_be_are_pointed_at() {
    let with_glob =
        |glob: &str| format!("policies:\n  - name: p\n    cgroups:\n      - /a\n      - {glob}\n");
    refused(
        &with_glob("\"\""),
        &expect![[r#"
        agent.yaml:5:9: a cgroup's glob is empty: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
          |
        5 |       - ""
          |         ^"#]],
    );
    refused(
        &with_glob("/"),
        &expect![[r#"
        agent.yaml:5:9: `/` is the root cgroup, which has no limits and is not managed: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
          |
        5 |       - /
          |         ^"#]],
    );
    refused(
        &with_glob("system.slice/*"),
        &expect![[r#"
        agent.yaml:5:9: `system.slice/*` does not begin with /: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
          |
        5 |       - system.slice/*
          |         ^"#]],
    );
    refused(
        &with_glob("/sys/fs/cgroup/a"),
        &expect![[r#"
        agent.yaml:5:9: `/sys/fs/cgroup/a` begins with the cgroup mount, which is left out: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
          |
        5 |       - /sys/fs/cgroup/a
          |         ^"#]],
    );
    refused(
        &with_glob("/a/../b"),
        &expect![[r#"
        agent.yaml:5:9: `/a/../b` is not how the kernel writes a cgroup's path: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
          |
        5 |       - /a/../b
          |         ^"#]],
    );
    refused(
        &with_glob("/a/{b"),
        &expect![[r#"
        agent.yaml:5:9: `/a/{b` is not a glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
          |
        5 |       - /a/{b
          |         ^"#]],
    );
    refused(
        "policies:\n  - name: p\n    cgroups: []\n",
        &expect![[r#"
        agent.yaml:3:14: policy `p` is for no cgroup: name some, for example ["/system.slice/*"]
          |
        3 |     cgroups: []
          |              ^"#]],
    );
    refused(
        "policies:\n  - name: Batch\n    cgroups: [/a]\n",
        &expect![[r#"
        agent.yaml:2:11: `Batch` is not a policy's name: write lower-case letters, digits, - and ., with a letter or digit at both ends, for example batch
          |
        2 |   - name: Batch
          |           ^"#]],
    );
    refused(
        "policies:\n  - { name: p, cgroups: [/a] }\n  - { name: p, cgroups: [/b] }\n",
        &expect![[r#"
        agent.yaml:3:13: policy 2 and policy 1 have the same name `p`; metrics and logs tell them apart by it: rename one
          |
        3 |   - { name: p, cgroups: [/b] }
          |             ^"#]],
    );
}

#[test]
fn faults_of_yaml_say_what_to_write() {
    refused(
        "tiers:\n  - { name: dram, nodes: 0-1 }\n  - { name: cxl, nodes: [2, 3] }\npolicies: []\n",
        &expect![[r#"
            agent.yaml:2:26: `0-1` is not a list: write the numbers one by one, [0, 1]
              |
            2 |   - { name: dram, nodes: 0-1 }
              |                          ^"#]],
    );
    refused(
        "tiers:\n  - { name: dram, nodes: [0-1] }\n  - { name: cxl, nodes: [2] }\n",
        &expect![[r#"
        agent.yaml:2:27: `0-1` is not one number: write the numbers one by one, [0, 1]
          |
        2 |   - { name: dram, nodes: [0-1] }
          |                           ^"#]],
    );
    refused(
        "---\npolicies:\n  - { name: a, cgroups: [\"/a\"], spec: {} }\n---\npolicies:\n  - { name: b, cgroups: [\"/b\"], spec: {} }\n",
        &expect![[r#"
            agent.yaml:4:1: a line `---` begins another document, and the agent reads one: remove the line, and write all policies below one `policies:`
              |
            4 | ---
              | ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: /a/*\n",
        &expect![[r#"
        agent.yaml:3:14: `/a/*` is not a list: write it in brackets, [/a/*]
          |
        3 |     cgroups: /a/*
          |              ^"#]],
    );
    refused(
        "policies:\n  name: a\n  cgroups: [/a]\n",
        &expect![[r#"
        agent.yaml:2:3: a list belongs here, not fields: begin each element with `- `, on a line of its own
          |
        2 |   name: a
          |   ^"#]],
    );
    refused(
        "policies:\n\t- name: a\n",
        &expect![[r#"
        agent.yaml:2:1: the line is indented with a tab, which YAML does not take: use spaces
          |
        2 |  - name: a
          | ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [*/a]\n",
        &expect![[r#"
        agent.yaml:3:15: to YAML a * at the beginning is a reference: write the value in quotes; a glob begins with /, for example "/*/a"
          |
        3 |     cgroups: [*/a]
          |               ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups:\n",
        &expect![[r#"
        agent.yaml:3:12: a list belongs here, and there is nothing: write its elements in brackets, [A, B], or remove the field
          |
        3 |     cgroups:
          |            ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec: Enforce\n",
        &expect![[r#"
        agent.yaml:4:11: `Enforce` stands where fields belong: write them below, each as `name: value`
          |
        4 |     spec: Enforce
          |           ^"#]],
    );
    refused(
        "engine: pages\nobserveWithoutSlowTier: 1\n",
        &expect![[r#"
        agent.yaml:1:9: `pages` is not known; did you mean Pages?
          |
        1 | engine: pages
          |         ^
        agent.yaml:2:25: `1` is neither true nor false
          |
        2 | observeWithoutSlowTier: 1
          |                         ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    inputs:\n      request: 1Gi\n",
        &expect![[r#"
        agent.yaml:5:7: the field `limit` is missing
          |
        5 |       request: 1Gi
          |       ^"#]],
    );
}

#[test]
fn what_is_not_closed_is_pointed_at_where_it_begins_with_what_to_write() {
    refused(
        "policies:\n  - name: a\n    cgroups: [/a\n    spec: {}\n",
        &expect![[r#"
        agent.yaml:3:14: `[` is not closed: write `]` behind the last of what it holds, here [/a]
          |
        3 |     cgroups: [/a
          |              ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a, \"/b]\", # two\n    spec: {}\n  - name: b\n    cgroups: [/c]\n",
        &expect![[r#"
            agent.yaml:3:14: `[` is not closed: write `]` behind the last of what it holds, here [/a, "/b]"]
              |
            3 |     cgroups: [/a, "/b]", # two
              |              ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [\n      /a\n    spec: {}\n",
        &expect![[r#"
        agent.yaml:3:14: `[` is not closed: write `]` behind the last of what it holds
          |
        3 |     cgroups: [
          |              ^"#]],
    );
    refused(
        "policies:\n  - { name: a, cgroups: [/a, spec: { mode: Observe } }\n",
        &expect![[r#"
            agent.yaml:2:25: `[` is not closed: write `]` behind the last of what it holds
              |
            2 |   - { name: a, cgroups: [/a, spec: { mode: Observe } }
              |                         ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec: { mode: Observe\n",
        &expect![[r#"
        agent.yaml:4:11: `{` is not closed: write `}` behind the last of what it holds, here { mode: Observe}
          |
        4 |     spec: { mode: Observe
          |           ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [\"/a]\n    spec: { mode: Observe }\n",
        &expect![[r#"
        agent.yaml:3:15: the quote is not closed: write " at the end of the text, here "/a]"
          |
        3 |     cgroups: ["/a]
          |               ^"#]],
    );
    refused(
        "policies:\n  - name: 'a\n    cgroups: [/a]\n",
        &expect![[r#"
        agent.yaml:2:11: the quote is not closed: write ' at the end of the text, here 'a'
          |
        2 |   - name: 'a
          |           ^"#]],
    );
    // A bracket within a value is no list.
    refused(
        "policies:\n  - name: a\n    cgroups: [\"/a[\"]\n     spec: {}\n",
        &expect![[r#"
            agent.yaml:4:6: this can't be read: indent fields and dashes like those beside them, write each field as `name: value`, and put a text with signs such as @ % & ! ` in quotes
              |
            4 |      spec: {}
              |      ^"#]],
    );
}

/// Whatever is wrong, no word of it is the parser's own.
#[test]
fn no_fault_of_yaml_is_told_in_the_words_of_its_parser() {
    const OF_THE_PARSER: [&str; 12] = [
        "scalar",
        "mapping",
        "sequence",
        "flow",
        "block",
        "token",
        "parsing",
        "scanning",
        "anchor",
        "directive",
        "simple key",
        "indicator",
    ];
    for text in [
        "policies: ]\n",
        "policies: [a]]\n",
        "policies:\n  - name: a\n  cgroups: [/a]\n",
        "policies:\n- name: a\n   spec: {}\n",
        "policies:\n  - name: a\n    cgroups: [/a] /b\n",
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec: { mode Observe }\n",
        "policies:\n  - name: @a\n",
        "policies:\n  - name: `a`\n",
        "policies:\n  - name: %a\n",
        "policies:\n  - name: &a\n",
        "policies:\n  - name: !a b\n",
        "policies:\n  -name: a\n    cgroups: [/a]\n",
        "policies:\n  - name a\n    cgroups: [/a]\n",
        "policies\n  - name: a\n",
        "listen\n",
        "- listen\n",
        "%YAML 1.1\nlisten: off\n",
        "policies:\n  - name: \"\\q\"\n    cgroups: [/a]\n",
        "policies:\n  - name: |\n    a\n  cgroups: [/a]\n",
        "? a\n: b\n",
        "{ listen: off\n",
        "listen: off }\n",
        "listen: off\n interval: 1s\n",
        "policies: *a\n",
        "policies:\n  - name: a\n    cgroups:\n      - /a\n    - /b\n",
    ] {
        let Err(error) = parse(text) else { panic!("{text} is taken") };
        for fault in error.faults {
            let message = fault.message.to_lowercase();
            for word in OF_THE_PARSER {
                assert!(!message.contains(word), "{text}\n{message}");
            }
        }
    }
}

#[test]
fn what_stands_in_the_wrong_place_is_sent_to_the_right_one() {
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    mode: Observe\n    demote: { after: 5m }\n",
        &expect![[r#"
            agent.yaml:4:5: `mode` is a field of the policy's `spec`: write `spec:`, and below it `mode`
              |
            4 |     mode: Observe
              |     ^
            agent.yaml:5:5: `demote` is a field of the policy's `spec`: write `spec:`, and below it `demote`
              |
            5 |     demote: { after: 5m }
              |     ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec:\n      demote: false\n",
        &expect![[r#"
        agent.yaml:5:15: `false` stands where fields belong: write them below, each as `name: value`
          |
        5 |       demote: false
          |               ^"#]],
    );
    refused(
        "policies:\n  - name: a\n    cgroups: [/a]\n    spec:\n      mode: Observe\n        demote: { after: 5m }\n",
        &expect![[r#"
            agent.yaml:5:13: `Observe` goes on in the next line, which is indented deeper: indent that line like this one
              |
            5 |       mode: Observe
              |             ^"#]],
    );
    refused(
        "policies:\n  - name: a\n     cgroups: [/a]\n",
        &expect![[r#"
            agent.yaml:3:13: a field can't begin here: indent the line like those beside it, or, where `: ` is a part of a text, put the text in quotes
              |
            3 |      cgroups: [/a]
              |             ^"#]],
    );
    refused(
        "apiVersion: thermocline.dev/v1alpha1\nkind: TieringPolicy\nmetadata:\n  name: a\nspec:\n  mode: Enforce\n",
        &expect![[r#"
            agent.yaml:1:1: this is an object of a cluster, not the agent's file. There a policy is an entry of a list: write `policies:`, below it `- name: NAME` with `cgroups: ["/a.slice/*"]` and the object's `spec` (without `selector`); or apply the object with kubectl and run the agent with --kubernetes
              |
            1 | apiVersion: thermocline.dev/v1alpha1
              | ^"#]],
    );
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    refused(
        "listen: localhost\ninterval: 1h\ncolour: red\npolicies:\n  - name: a\n    cgroups: /a\n    spec:\n      mode: enforce\n      demote: { after: 120 }\n  - nam: b\n    cgroups: [/b]\n  - name: C\n    cgroups: [b]\n    spec:\n      memoryHigh: { mode: Formula }\n  - name: d\n    cgroups: [/d]\n    spec:\n      dram:\n        floor: 1GB\n",
        &expect![[r#"
            agent.yaml:1:9: `localhost` is not an address to listen on: write an IP address and a port, for example 127.0.0.1:9440 or "[::]:9440", or off
              |
            1 | listen: localhost
              |         ^
            agent.yaml:2:11: interval is 1h; it must be between 100ms and 10s
              |
            2 | interval: 1h
              |           ^
            agent.yaml:3:1: there is no field `colour` here; there are listen, stateFile, engine, promoter, observeWithoutSlowTier, kernelDemotion, interval, tiers, policies
              |
            3 | colour: red
              | ^
            agent.yaml:6:14: `/a` is not a list: write it in brackets, [/a]
              |
            6 |     cgroups: /a
              |              ^
            agent.yaml:8:13: `enforce` is not known; did you mean Enforce?
              |
            8 |       mode: enforce
              |             ^
            agent.yaml:9:24: `120` is not a duration (it has no unit): write numbers with h, m, s, ms, us or ns, for example 90s, 2m or 1h30m
              |
            9 |       demote: { after: 120 }
              |                        ^
            agent.yaml:10:5: there is no field `nam` here; did you mean `name`?
               |
            10 |   - nam: b
               |     ^
            agent.yaml:12:11: `C` is not a policy's name: write lower-case letters, digits, - and ., with a letter or digit at both ends, for example batch
               |
            12 |   - name: C
               |           ^
            agent.yaml:13:15: `b` does not begin with /: write a path below the cgroup mount with * for any name and ** for any depth, for example /system.slice/*
               |
            13 |     cgroups: [b]
               |               ^
            agent.yaml:15:19: memoryHigh.mode Formula computes with the policy's `inputs`: add for example inputs: { request: 256Mi, limit: 1Gi } beside `spec`
               |
            15 |       memoryHigh: { mode: Formula }
               |                   ^
            agent.yaml:20:16: `1GB` is not an amount of memory or a percentage (leave out the B): write an amount, for example 256Mi or 1.5Gi, or a share of the cgroup's anonymous memory, for example 60%
               |
            20 |         floor: 1GB
               |                ^"#]],
    );
}

#[test]
fn a_carriage_return_alone_ends_a_line() {
    for newline in ["\n", "\r\n", "\r"] {
        let error = parse(&["interval: 1s", "listen: 5", "# end"].join(newline)).unwrap_err();
        assert_eq!(error.faults[0].place.map(|place| place.line), Some(2), "{newline:?}: {error}");
    }
}
