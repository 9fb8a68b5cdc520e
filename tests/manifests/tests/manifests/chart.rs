//! The chart as a whole: it renders for every file of values, and gives each pod no more rights than its mode says.

use clap::Parser as _;
use manifest_tests::{helm_template, parse, root, run};
use serde_json::{Value, json};

/// The one object of a kind and name.
pub(crate) fn object(documents: &[Value], kind: &str, name: &str) -> Value {
    let found: Vec<_> = documents
        .iter()
        .filter(|document| document["kind"] == kind && document["metadata"]["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found[0].clone()
}

/// The files of values that the chart is tested with, the defaults first, then those of `ci/`, then those of distributions.
pub(crate) fn values_files() -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(root().join("charts/thermocline/ci"))
        .unwrap()
        .map(|entry| format!("charts/thermocline/ci/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    files.sort();
    files.insert(0, "charts/thermocline/values.yaml".to_owned());
    files.extend(crate::distributions::values_files());
    assert!(files.len() > 12, "{files:?}");
    files
}

#[test]
fn helm_finds_nothing_to_complain_about() {
    for values in values_files() {
        run("helm", ["lint", "--strict", "--quiet", "charts/thermocline", "--values", &values]).unwrap();
    }
}

#[test]
fn every_object_says_whose_it_is() {
    for values in values_files() {
        for document in helm_template(&["--values", &values]).unwrap() {
            let labels = &document["metadata"]["labels"];
            // Helm does not render what lies in crds/.
            if document["kind"] == "CustomResourceDefinition" {
                continue;
            }
            for label in ["name", "instance", "version", "part-of", "managed-by"] {
                let label = format!("app.kubernetes.io/{label}");
                assert!(
                    labels[&label].is_string(),
                    "{label} of {} in {values}",
                    document["metadata"]["name"]
                );
            }
        }
    }
}

#[test]
fn every_container_is_started_with_what_its_program_takes() {
    let mut started = 0;
    for values in values_files() {
        for document in helm_template(&["--values", &values]).unwrap() {
            let pod = &document["spec"]["template"]["spec"];
            for kind in ["initContainers", "containers"] {
                for container in pod[kind].as_array().into_iter().flatten() {
                    let arguments =
                        container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
                    let line = std::iter::once("program").chain(arguments);
                    let refused = match document["kind"].as_str() {
                        Some("DaemonSet") => node_agent::args::Args::try_parse_from(line).err(),
                        _ => controller::args::Args::try_parse_from(line).err(),
                    };
                    assert!(refused.is_none(), "{} of {values}: {}", container["name"], refused.unwrap());
                    started += 1;
                }
            }
        }
    }
    assert!(started > values_files().len() * 2, "the chart has changed shape");
}

#[test]
fn the_notes_name_no_policy_that_the_release_does_not_make() {
    let check = |examples: bool| {
        let value = format!("policies.examples={examples}");
        let chart = ["install", "thermocline", "charts/thermocline", "--dry-run=client", "--set", &value];
        let text = run("helm", chart).unwrap();
        let (_, notes) = text.split_once("\nNOTES:\n").unwrap();
        assert_eq!(notes.contains("batch"), examples, "{notes}");
    };
    check(true);
    check(false);
}

/// Names of the host paths that the agent's containers mount, with a star for those that they may write.
fn mounts(pod: &Value) -> Vec<String> {
    let paths: std::collections::BTreeMap<&str, &str> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| Some((volume["name"].as_str()?, volume["hostPath"]["path"].as_str()?)))
        .collect();
    let containers =
        ["initContainers", "containers"].into_iter().filter_map(|kind| pod[kind].as_array()).flatten();
    containers
        .flat_map(|container| container["volumeMounts"].as_array().unwrap())
        .filter_map(|mount| {
            let path = paths.get(mount["name"].as_str().unwrap())?;
            Some(format!("{path}{}", if mount["readOnly"] == true { "" } else { "*" }))
        })
        .collect()
}

fn agent(arguments: &[&str]) -> Value {
    let documents = helm_template(arguments).unwrap();
    object(&documents, "DaemonSet", "thermocline-agent")["spec"]["template"]["spec"].clone()
}

#[test]
fn the_agent_in_mode_full_has_four_capabilities_and_its_own_profile() {
    let pod = agent(&[]);
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(
        security["capabilities"],
        json!({ "drop": ["ALL"], "add": ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "DAC_OVERRIDE"] })
    );
    assert_eq!(
        security["seccompProfile"],
        json!({ "type": "Localhost", "localhostProfile": "thermocline/agent.json" })
    );
    assert_eq!(pod["hostPID"], true);
    assert_eq!(
        mounts(&pod),
        [
            "/var/lib/kubelet/seccomp*",
            "/run/thermocline*",
            "/sys/fs/cgroup*",
            "/sys/kernel/mm*",
            "/sys/devices",
            "/sys/bus",
            "/sys/kernel/debug*",
            "/proc",
            "/proc/sys/kernel/numa_balancing*",
            "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps*",
        ]
    );
}

#[test]
fn the_agent_in_mode_reclaim_has_no_capability_and_sees_no_other_process() {
    let pod = agent(&["--set", "agent.mode=reclaim"]);
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    assert!(security.get("seccompProfile").is_none());
    assert!(security.get("appArmorProfile").is_none());
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(pod.get("hostPID").is_none());
    assert!(pod.get("initContainers").is_none());
    assert_eq!(
        mounts(&pod),
        ["/run/thermocline*", "/sys/fs/cgroup*", "/sys/kernel/mm*", "/sys/devices", "/sys/bus"]
    );
}

/// The pod that puts values of a node back by hand.
pub(crate) fn restorer() -> Value {
    let text = std::fs::read_to_string(root().join("deploy/restore/pod.yaml")).unwrap();
    parse(&text).unwrap().remove(0)
}

#[test]
fn the_pod_that_restores_is_the_agent_with_what_restoring_writes_and_no_more() {
    let pod = restorer()["spec"].take();
    let agent = agent(&[]);
    let (restorer, agents) = (&pod["containers"][0], &agent["containers"][0]);
    assert_eq!(restorer["image"], agents["image"]);
    assert_eq!(restorer["args"], json!(["restore"]));
    for variable in restorer["env"].as_array().unwrap() {
        assert!(agents["env"].as_array().unwrap().contains(variable), "{variable}");
    }
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(agent["volumes"].as_array().unwrap().contains(volume), "{volume}");
    }
    for mount in restorer["volumeMounts"].as_array().unwrap() {
        assert!(agents["volumeMounts"].as_array().unwrap().contains(mount), "{mount}");
    }
    let may =
        |container: &Value| container["securityContext"]["capabilities"]["add"].as_array().unwrap().clone();
    assert!(may(restorer).iter().all(|capability| may(agents).contains(capability)));
    assert_eq!(
        mounts(&pod),
        [
            "/run/thermocline*",
            "/sys/fs/cgroup*",
            "/sys/kernel/mm*",
            "/proc",
            "/proc/sys/kernel/numa_balancing*",
            "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps*"
        ]
    );
}

#[test]
fn no_pod_is_privileged_and_none_is_on_the_host_s_network() {
    for values in values_files() {
        for document in helm_template(&["--values", &values]).unwrap() {
            let pod = &document["spec"]["template"]["spec"];
            for key in ["hostNetwork", "hostIPC"] {
                assert!(pod.get(key).is_none(), "{key}");
            }
            for container in pod["containers"].as_array().into_iter().flatten() {
                let security = &container["securityContext"];
                assert!(security.get("privileged").is_none());
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["readOnlyRootFilesystem"], true);
            }
        }
    }
}

/// One number to remember. The agent of a cluster has a network of its own, so nothing of the host is in its way.
#[test]
fn the_agent_serves_at_the_same_port_on_a_host_and_in_a_cluster() {
    let documents = helm_template(&[]).unwrap();
    let agent = object(&documents, "DaemonSet", "thermocline-agent");
    let port = &agent["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"];
    assert_eq!(*port, node_agent::config::DEFAULT_LISTEN.port());
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>
#[test]
fn the_controller_s_pod_is_restricted() {
    let documents = helm_template(&[]).unwrap();
    let deployment = object(&documents, "Deployment", "thermocline-controller");
    let pod = &deployment["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(security["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert!(pod.get("volumes").is_none());
}

/// What each role may do, as `group/resource: verbs`.
pub(crate) fn rights(documents: &[Value], kind: &str, name: &str) -> Vec<String> {
    object(documents, kind, name)["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| {
            let words = |key: &str| {
                let words = rule[key].as_array().unwrap();
                words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(",")
            };
            format!("{}/{}: {}", words("apiGroups"), words("resources"), words("verbs"))
        })
        .collect()
}

#[test]
fn the_agent_may_read_assignments_and_write_their_status() {
    let documents = helm_template(&[]).unwrap();
    assert_eq!(
        rights(&documents, "ClusterRole", "thermocline-agent"),
        ["thermocline.io/nodetierings: list,watch", "thermocline.io/nodetierings/status: patch",]
    );
    let roles: Vec<_> = documents
        .iter()
        .filter(|document| {
            document["subjects"][0]["name"] == "thermocline-agent" && document["kind"] != "ClusterRoleBinding"
        })
        .collect();
    assert!(roles.is_empty(), "{roles:?}");
}

#[test]
fn the_controller_writes_no_pod_and_reads_no_secret() {
    let documents = helm_template(&[]).unwrap();
    assert_eq!(
        rights(&documents, "ClusterRole", "thermocline-controller"),
        [
            "/pods,namespaces,nodes: list,watch",
            "thermocline.io/tieringpolicies: list,watch",
            "thermocline.io/tieringpolicies/status: patch",
            "thermocline.io/nodetierings: list,watch,create,patch,delete",
            "rbac.authorization.k8s.io/clusterroles: get",
            "events.k8s.io/events: create",
        ]
    );
    assert_eq!(
        rights(&documents, "Role", "thermocline-controller"),
        ["coordination.k8s.io/leases: create", "coordination.k8s.io/leases: get,update"]
    );
}

#[test]
fn assignments_go_with_a_role_of_the_release_where_it_has_one() {
    let owner = |arguments: &[&str]| {
        let documents = helm_template(arguments).unwrap();
        let pod = &object(&documents, "Deployment", "thermocline-controller")["spec"]["template"]["spec"];
        let env = pod["containers"][0]["env"].as_array().unwrap();
        let owner = env.iter().find(|variable| variable["name"] == "THERMOCLINE_OWNER_ROLE");
        let owner = owner.map(|variable| variable["value"].as_str().unwrap().to_owned());
        if let Some(owner) = &owner {
            let role = object(&documents, "ClusterRole", owner);
            let rules = role["rules"].as_array().unwrap();
            assert!(
                rules.iter().any(|rule| rule["resourceNames"] == json!([owner])),
                "it may not look it up"
            );
        }
        owner
    };
    assert_eq!(owner(&[]).as_deref(), Some("thermocline-controller"));
    assert_eq!(owner(&["--set=rbac.create=false"]), None);
}

/// Helm installs what lies in `crds/` before anything else, and never deletes it.
#[test]
fn definitions_stay_when_the_release_goes() {
    let rendered = run("helm", ["template", "charts/thermocline"]).unwrap();
    assert!(!rendered.contains("kind: CustomResourceDefinition"), "a template has definitions");
    let documents = helm_template(&[]).unwrap();
    let kind = |document: &&Value| document["kind"] == "CustomResourceDefinition";
    assert_eq!(documents.iter().filter(kind).count(), 2);
    for definition in parse(&run("helm", ["template", "charts/thermocline-crds"]).unwrap()).unwrap() {
        assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
}

/// No hook and no look at a cluster: what `helm template` renders is all that Argo CD and Flux need.
#[test]
fn the_chart_renders_without_a_cluster_and_without_hooks() {
    for values in values_files() {
        for document in helm_template(&["--values", &values]).unwrap() {
            let annotations = &document["metadata"]["annotations"];
            assert!(annotations.get("helm.sh/hook").is_none(), "{}", document["metadata"]["name"]);
        }
    }
    for entry in walk(&root().join("charts/thermocline/templates")) {
        let text = std::fs::read_to_string(&entry).unwrap();
        for function in ["lookup ", "randAlpha", "genCA", "genSelfSigned", "now |", "uuidv4"] {
            assert!(!text.contains(function), "{} uses {function}", entry.display());
        }
    }
}

/// All files below a directory.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn policies_stay_when_the_release_goes_and_take_no_dram_from_others() {
    let documents = helm_template(&[]).unwrap();
    let names: Vec<_> = documents
        .iter()
        .filter(|document| document["kind"] == "TieringPolicy")
        .map(|policy| {
            let name = policy["metadata"]["name"].as_str().unwrap();
            assert_eq!(policy["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
            // Every pod may name them: none has a floor, lets pods ask for one, or weighs more than a policy that says nothing.
            let dram = &policy["spec"]["dram"];
            assert!(dram.get("floor").is_none(), "{name}");
            assert!(dram["weight"].as_u64().unwrap_or(100) <= 100, "{name}");
            let overrides = policy["spec"]["allowOverrides"].to_string();
            assert!(!overrides.contains("floor"), "{name}");
            name
        })
        .collect();
    assert_eq!(names, ["batch", "cold-only", "latency", "observe"]);
}

#[test]
fn helm_test_asks_what_the_controller_may_read() {
    let fixed = ["template", "thermocline", "charts/thermocline", "--show-only=templates/tests/once.yaml"];
    let pod = parse(&run("helm", fixed).unwrap()).unwrap().remove(0);
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert_eq!(pod["spec"]["serviceAccountName"], "thermocline-controller");
    let container = &pod["spec"]["containers"][0];
    let line = ["thermocline-controller", container["args"][0].as_str().unwrap()];
    assert!(controller::args::Args::try_parse_from(line).unwrap().once);
    assert_eq!(container["env"][0], json!({ "name": "THERMOCLINE_DEFAULT_POLICY", "value": "observe" }));
    crate::round_trip::check(&[pod], "helm test");
}

#[test]
fn selectors_find_their_pods_and_nothing_else() {
    let documents = helm_template(&["--set", "networkPolicy.enabled=true,monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true"]).unwrap();
    let labels = |kind: &str, name: &str| {
        object(&documents, kind, name)["spec"]["template"]["metadata"]["labels"].clone()
    };
    let pods = [labels("DaemonSet", "thermocline-agent"), labels("Deployment", "thermocline-controller")];
    let selects = |selector: &Value| -> Vec<usize> {
        let selector = selector.as_object().unwrap();
        (0..pods.len()).filter(|&i| selector.iter().all(|(key, value)| pods[i][key] == *value)).collect()
    };
    for (kind, name, selector, expected) in [
        ("DaemonSet", "thermocline-agent", "/spec/selector/matchLabels", 0),
        ("Deployment", "thermocline-controller", "/spec/selector/matchLabels", 1),
        ("Service", "thermocline-controller", "/spec/selector", 1),
        ("PodDisruptionBudget", "thermocline-controller", "/spec/selector/matchLabels", 1),
        ("NetworkPolicy", "thermocline-agent", "/spec/podSelector/matchLabels", 0),
        ("NetworkPolicy", "thermocline-controller", "/spec/podSelector/matchLabels", 1),
        ("PodMonitor", "thermocline-agent", "/spec/selector/matchLabels", 0),
    ] {
        let object = object(&documents, kind, name);
        assert_eq!(selects(object.pointer(selector).unwrap()), [expected], "{kind} {name}");
    }
    let service = object(&documents, "Service", "thermocline-controller");
    let monitor = object(&documents, "ServiceMonitor", "thermocline-controller");
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][key], *value);
    }
}
