//! `--once`: what would be assigned, without a write.

use std::fmt::{Debug, Write as _};

use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::args::{OutputFormat, PodName};
use crate::exit::{ExitCode, Failure};
use crate::index::{Explanation, Index};
use crate::watch::PAGE_SIZE;
use crate::watch::objects::{Guarded, Kind, Namespace, Node, NodeTiering, Object, Pod, Policy};

/// An empty index with a whole cluster as it is.
pub async fn read(client: &Client, mut index: Index) -> Result<Index, Failure> {
    list::<Policy>(client, Kind::Policy, &mut index).await?;
    list::<Namespace>(client, Kind::Namespace, &mut index).await?;
    list::<Node>(client, Kind::Node, &mut index).await?;
    list::<Pod>(client, Kind::Pod, &mut index).await?;
    list::<NodeTiering>(client, Kind::NodeTiering, &mut index).await?;
    index.take_changes();
    Ok(index)
}

async fn list<K>(client: &Client, kind: Kind, index: &mut Index) -> Result<(), Failure>
where
    K: Resource<DynamicType = ()> + Into<Object> + Clone + Debug + DeserializeOwned,
{
    let all: Api<Guarded<K>> = Api::all(client.clone());
    let mut page = ListParams::default().limit(PAGE_SIZE);
    loop {
        let list = all.list(&page).await.map_err(|error| Failure::of_list(kind.plural(), &error))?;
        for Guarded(object) in list.items {
            match object.map(Into::into) {
                Ok(Object::Pod(pod)) => index.apply_pod(&pod),
                Ok(Object::Namespace(namespace)) => index.apply_namespace(&namespace),
                Ok(Object::Policy(policy)) => index.apply_policy(&policy),
                Ok(Object::Node(node)) => index.apply_node(&node),
                Ok(Object::NodeTiering(object)) => {
                    index.apply_dram(object.metadata.name.as_deref().unwrap_or_default(), object.dram());
                }
                Err(error) => {
                    let name = error.metadata.name.as_deref().unwrap_or_default();
                    tracing::error!(
                        kind = kind.plural(),
                        name,
                        error = error.message,
                        "an object can't be read"
                    );
                }
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// What each pod would get, in the form that was asked for.
pub fn show(index: &Index, output: OutputFormat) -> Result<String, Failure> {
    let explained: Vec<Explanation> =
        index.keys().filter_map(|(namespace, name)| index.explain(&namespace, &name)).collect();
    match output {
        OutputFormat::Table => Ok(table(index, &explained)),
        OutputFormat::Json => serde_json::to_string_pretty(&explained)
            .map(|text| text + "\n")
            .map_err(|error| Failure::new(ExitCode::Unexpected, error.to_string())),
    }
}

/// Which policy a pod gets and why.
pub fn explain(index: &Index, PodName { namespace, name }: &PodName) -> Result<String, Failure> {
    let Some(explanation) = index.explain(namespace, name) else {
        let message = format!(
            "there is no pod {namespace}/{name}: `kubectl get pods -n {namespace}` lists those that there are"
        );
        return Err(Failure::new(ExitCode::Usage, message));
    };
    serde_json::to_string_pretty(&explanation)
        .map(|text| text + "\n")
        .map_err(|error| Failure::new(ExitCode::Unexpected, error.to_string()))
}

fn table(index: &Index, explained: &[Explanation]) -> String {
    let name = |policy: &Option<api::ResolvedPolicy>| {
        policy.as_ref().map_or("-".to_owned(), |policy| policy.name.clone())
    };
    let mut rows = vec![["NODE", "POD", "POLICY", "REASON"].map(str::to_owned)];
    let mut notes = String::new();
    let mut sorted: Vec<&Explanation> = explained.iter().collect();
    sorted.sort_by_key(|found| (&found.node, &found.namespace, &found.pod));
    for found in sorted {
        let node = found.node.clone().unwrap_or_else(|| "-".to_owned());
        let pod = format!("{}/{}", found.namespace, found.pod);
        rows.push([node.clone(), pod.clone(), name(&found.policy), found.reason.clone()]);
        for container in &found.containers {
            let container_name = format!("{pod}/{}", container.name);
            rows.push([node.clone(), container_name, name(&container.policy), container.reason.clone()]);
        }
        for problem in &found.problems {
            let _ = writeln!(notes, "! pod {pod}: {problem}");
        }
    }
    if let Some(cause) = index.problem_of_default() {
        let _ = writeln!(notes, "! the default policy does not apply: {cause}");
    }
    for namespace in index.invalid_namespaces() {
        for problem in index.namespace_problems(namespace) {
            let _ = writeln!(notes, "! namespace {namespace}: {problem}");
        }
    }
    for node in index.overcommitted() {
        if let Some(api::Overcommitted { floors, dram }) = index.overcommitted_by(node) {
            let _ = writeln!(notes, "! node {node}: floors sum to {floors}, and its DRAM is {dram}");
        }
    }
    for (policy, _, accepted, _) in index.policies() {
        if let Err(error) = accepted {
            let _ = writeln!(notes, "! policy {policy} is not assigned: {error}");
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [node, pod, policy, reason] in &rows {
        let [a, b, c] = widths;
        let _ = writeln!(text, "{node:a$}  {pod:b$}  {policy:c$}  {reason}");
    }
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}
