//! Alerts: on metrics that exist, each with a runbook, and each shown to fire and to stay silent.

use std::collections::{BTreeMap, BTreeSet};

use manifest_tests::{helm_template, parse, root, run};
use serde_json::Value;

use crate::metrics;

const HOST: &str = "charts/thermocline/files/alerts/host.yaml";
const CLUSTER: &str = "charts/thermocline/files/alerts/cluster.yaml";
const TESTS: &str = "tests/manifests/alerts";

/// Those of both files.
fn alerts() -> Vec<Value> {
    [HOST, CLUSTER].into_iter().flat_map(alerts_of).collect()
}

fn alerts_of(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let groups = parse(&text).unwrap().remove(0)["groups"].take();
    let groups = groups.as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn name(alert: &Value) -> String {
    alert["alert"].as_str().unwrap().to_owned()
}

#[test]
fn promtool_finds_nothing_to_complain_about() {
    run("promtool", ["check", "rules", "--lint=all", "--lint-fatal", HOST, CLUSTER]).unwrap();
}

#[test]
fn every_alert_is_about_metrics_and_labels_that_exist() {
    let served = metrics::served();
    for alert in alerts() {
        let unknown = metrics::unknown(alert["expr"].as_str().unwrap(), &served);
        assert!(unknown.is_empty(), "{}: {unknown:?}", name(&alert));
    }
}

#[test]
fn every_alert_says_how_bad_what_and_where_to_read_on() {
    for alert in alerts() {
        let name = name(&alert);
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}");
        for annotation in ["summary", "description"] {
            assert!(
                alert["annotations"][annotation].as_str().unwrap().ends_with('.'),
                "{name}: {annotation}"
            );
        }
        let page = format!("docs/runbooks/{name}.md");
        let url = format!("https://github.com/thermocline/thermocline/blob/main/{page}");
        assert_eq!(alert["annotations"]["runbook_url"], url);
        let text =
            std::fs::read_to_string(root().join(&page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        for heading in [&format!("# {name}"), "## Meaning", "## Impact", "## Diagnosis", "## Remedy"] {
            assert!(text.contains(&format!("{heading}\n")), "{page} lacks {heading}");
        }
        assert!(["```sh\n", "```promql\n"].iter().any(|block| text.contains(block)), "{page} has no command");
    }
}

/// A number before a plural is wrong where it is one: it stands last, or has a unit.
#[test]
fn no_alert_says_that_one_pods_are() {
    for alert in alerts() {
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap();
            for (_, after) in
                text.match_indices("{{ $value }}").map(|(at, number)| text.split_at(at + number.len()))
            {
                assert!(!after.starts_with(' '), "{}: {text}", name(&alert));
            }
        }
    }
}

/// On a host without Kubernetes there is no controller to be missing.
#[test]
fn an_alert_of_a_host_is_about_what_every_agent_serves() {
    for alert in alerts_of(HOST) {
        let query = alert["expr"].as_str().unwrap();
        for of_a_cluster in ["thermocline_controller_", "kube_", "api_server", "assigned_pods"] {
            assert!(!query.contains(of_a_cluster), "{}: {query}", name(&alert));
        }
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str().unwrap();
            assert!(!text.to_lowercase().contains("pod"), "{}: {text}", name(&alert));
        }
    }
}

#[test]
fn prometheus_takes_the_configurations_to_paste() {
    for file in ["host", "cluster"] {
        let text = std::fs::read_to_string(root().join(format!("deploy/prometheus/{file}.yaml"))).unwrap();
        let mut text = text.replace("../../charts", &root().join("charts").display().to_string());
        // Debian's promtool is built without Kubernetes: the rest of such a scrape is checked with another discovery.
        for line in
            text.clone().lines().filter(|line| line.trim_start().starts_with("kubernetes_sd_configs:"))
        {
            text = text.replace(line, "    static_configs: []");
        }
        let pasted = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(pasted.path(), text).unwrap();
        run("promtool", ["check".as_ref(), "config".as_ref(), pasted.path().as_os_str()]).unwrap();
    }
}

/// Alerts name the node by a label that only the scrape can give, and find agents by the name of their job.
#[test]
fn what_is_pasted_gives_the_labels_that_alerts_ask_for_and_a_host_no_alerts_of_a_cluster() {
    let pasted = |file: &str| {
        let text = std::fs::read_to_string(root().join(format!("deploy/prometheus/{file}.yaml"))).unwrap();
        parse(&text).unwrap().remove(0)
    };
    for file in ["host", "cluster"] {
        let config = pasted(file);
        let jobs = config["scrape_configs"].as_array().unwrap();
        let agents = jobs.iter().find(|job| job["job_name"] == "thermocline-agent").unwrap();
        assert_eq!(agents["honor_labels"], true, "{file}");
        let labels = agents["relabel_configs"].as_array().unwrap();
        assert!(labels.iter().any(|label| label["target_label"] == "node"), "{file}");
    }
    let rules = |file: &str| pasted(file)["rule_files"].as_array().unwrap().len();
    assert_eq!((rules("host"), rules("cluster")), (1, 2));
    assert!(pasted("host")["rule_files"][0].as_str().unwrap().ends_with("alerts/host.yaml"));
    let of_a_cluster: Vec<String> = alerts_of(CLUSTER).iter().map(name).collect();
    assert!(of_a_cluster.contains(&"ThermoclineNoLeader".to_owned()), "{of_a_cluster:?}");
}

/// Fenced blocks of a page, with what they are of.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut parts = page.split("\n```");
    parts.next();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').unwrap();
        blocks.push((language.to_owned(), text.to_owned()));
    }
    blocks
}

#[test]
fn runbooks_say_what_is_a_query_and_what_is_a_command() {
    let served = metrics::served();
    let mut queries = Vec::new();
    for alert in alerts() {
        let page = format!("docs/runbooks/{}.md", name(&alert));
        for (language, text) in blocks(&std::fs::read_to_string(root().join(&page)).unwrap()) {
            for line in text.lines() {
                match language.as_str() {
                    "promql" => {
                        let unknown = metrics::unknown(line, &served);
                        assert!(unknown.is_empty(), "{page}: {line}: {unknown:?}");
                        queries.push(line.to_owned());
                    }
                    "sh" => {
                        let command = line.split_whitespace().next().unwrap_or_default();
                        let known = ["kubectl", "curl", "cat", "numactl", "sed", "thermocline-agent"];
                        assert!(known.contains(&command), "{page}: {line}");
                    }
                    other => panic!("{page} has a block of {other:?}"),
                }
            }
        }
    }
    assert!(queries.len() > 4, "{queries:?}");
    crate::dashboard::prometheus_takes(&queries);
}

/// What a line of a runbook looks for in the log of a program.
fn looked_for(line: &str) -> Vec<String> {
    let Some((logs, pattern)) = line.split_once(" | grep ") else { return Vec::new() };
    if !logs.contains(" logs ") {
        return Vec::new();
    }
    let pattern = pattern.strip_prefix("-E ").unwrap_or(pattern);
    let quote = pattern.chars().next().filter(|first| matches!(first, '\'' | '"'));
    let pattern = match quote {
        Some(quote) => pattern[1..].split(quote).next(),
        None => pattern.split_whitespace().next(),
    };
    pattern.unwrap_or_default().split('|').map(str::to_owned).collect()
}

/// Every call in the sources of a program that logs a line.
fn logged(directory: &std::path::Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            logged(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            into.extend(text.split("tracing::").skip(1).map(|call| {
                let end = call.find(");\n").unwrap_or(call.len());
                call[..end].to_owned()
            }));
        }
    }
}

#[test]
fn runbooks_look_for_what_is_logged() {
    let programs = ["node-agent/src", "controller/src"].map(|program| {
        let mut found = Vec::new();
        logged(&root().join(program), &mut found);
        found
    });
    let mut seen = 0;
    for alert in alerts() {
        let page = format!("docs/runbooks/{}.md", name(&alert));
        for line in std::fs::read_to_string(root().join(&page)).unwrap().lines() {
            let program = &programs[usize::from(line.contains("component=controller"))];
            for words in looked_for(line) {
                assert!(program.iter().any(|call| call.contains(&words)), "{page}: nothing logs {words:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "the runbooks have changed shape");
}

#[test]
fn every_alert_is_on_the_page_for_operators() {
    let page = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    for alert in alerts() {
        let [name, severity] = [name(&alert), alert["labels"]["severity"].as_str().unwrap().to_owned()];
        let description = alert["annotations"]["description"].as_str().unwrap();
        let row = format!("| [{name}](runbooks/{name}.md) | {severity} | {description} |");
        assert!(page.lines().any(|line| line == row), "docs/operating.md lacks {row}");
    }
}

#[test]
fn every_runbook_is_of_an_alert() {
    let alerts: BTreeSet<_> = alerts().iter().map(|alert| format!("{}.md", name(alert))).collect();
    let pages: BTreeSet<_> = std::fs::read_dir(root().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(alerts, pages);
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_when_not() {
    let mut shown: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for entry in std::fs::read_dir(root().join(TESTS)).unwrap() {
        let path = entry.unwrap().path();
        run("promtool", ["test".as_ref(), "rules".as_ref(), path.as_os_str()]).unwrap();
        let file = parse(&std::fs::read_to_string(&path).unwrap()).unwrap().remove(0);
        for test in file["tests"].as_array().unwrap() {
            for alert in test["alert_rule_test"].as_array().unwrap() {
                let fires = alert["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
                shown.entry(alert["alertname"].as_str().unwrap().to_owned()).or_default().insert(fires);
            }
        }
    }
    for alert in alerts() {
        let shown = shown.remove(&name(&alert)).unwrap_or_default();
        assert_eq!(shown, BTreeSet::from([false, true]), "{} is not tested both ways", name(&alert));
    }
    assert!(shown.is_empty(), "tests of no alert: {shown:?}");
}

#[test]
fn an_alert_about_the_daemonset_has_its_name_whatever_the_release_is_called() {
    let names = ["--set", "monitoring.prometheusRule.enabled=true,fullnameOverride=memory-tiering"];
    let documents = helm_template(&names).unwrap();
    let rules = documents.iter().find(|document| document["kind"] == "PrometheusRule").unwrap().to_string();
    let daemonset = documents.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
    let name = daemonset["metadata"]["name"].as_str().unwrap();
    assert!(rules.contains(&format!("number_unavailable{{daemonset=~\\\"{name}(-.+)?\\\"}}")), "{rules}");
}
