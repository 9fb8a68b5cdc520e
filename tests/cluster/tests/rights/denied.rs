//! Whatever the chart does not give is refused.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use cluster_tests::Cluster;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use manifest_tests::NAMESPACE;

use crate::rules::{right, rights, rules_of};
use crate::{Account, accounts};

/// All verbs of requests, and those that only authorizers know.
const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "use",
];

/// What every account may do: ask about itself, and read policies (`rbac.policyReaders` of the chart). Of newer servers the third.
const EVERYBODYS: [&str; 6] = [
    "create selfsubjectaccessreviews.authorization.k8s.io",
    "create selfsubjectrulesreviews.authorization.k8s.io",
    "create selfsubjectreviews.authentication.k8s.io",
    "get tieringpolicies.thermocline.io",
    "list tieringpolicies.thermocline.io",
    "watch tieringpolicies.thermocline.io",
];

/// Calls that must be refused, as they would be made. `{}` stands for the namespace of the chart.
const REFUSED: [(&str, &[&str]); 2] = [
    (
        "thermocline-agent",
        &[
            "GET /api/v1/pods",
            "GET /api/v1/namespaces/default/pods/web",
            "GET /api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1",
            "POST /api/v1/namespaces/default/pods",
            "DELETE /api/v1/namespaces/default/pods/web",
            "POST /api/v1/namespaces/default/pods/web/exec?command=sh",
            "POST /api/v1/namespaces/default/pods/web/eviction",
            "GET /api/v1/secrets",
            "GET /api/v1/namespaces/{}/secrets/any",
            "GET /api/v1/namespaces/{}/configmaps/thermocline-agent",
            "POST /api/v1/namespaces/{}/serviceaccounts/thermocline-controller/token",
            "GET /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1",
            "PATCH /api/v1/nodes/n1/status",
            "GET /api/v1/nodes/n1/proxy/pods",
            "POST /apis/events.k8s.io/v1/namespaces/default/events",
            "POST /apis/thermocline.io/v1alpha1/nodetierings",
            "PATCH /apis/thermocline.io/v1alpha1/nodetierings/n1",
            "PUT /apis/thermocline.io/v1alpha1/nodetierings/n1",
            "PUT /apis/thermocline.io/v1alpha1/nodetierings/n1/status",
            "DELETE /apis/thermocline.io/v1alpha1/nodetierings/n1",
            "POST /apis/thermocline.io/v1alpha1/tieringpolicies",
            "DELETE /apis/thermocline.io/v1alpha1/tieringpolicies/observe",
            "PATCH /apis/thermocline.io/v1alpha1/tieringpolicies/observe",
            "PATCH /apis/thermocline.io/v1alpha1/tieringpolicies/observe/status",
            "GET /apis/coordination.k8s.io/v1/namespaces/{}/leases/thermocline-controller",
            "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        ],
    ),
    (
        "thermocline-controller",
        &[
            "POST /api/v1/namespaces/default/pods",
            "PATCH /api/v1/namespaces/default/pods/web",
            "PATCH /api/v1/namespaces/default/pods/web/status",
            "PUT /api/v1/namespaces/default/pods/web",
            "DELETE /api/v1/namespaces/default/pods/web",
            "POST /api/v1/namespaces/default/pods/web/exec?command=sh",
            "POST /api/v1/namespaces/default/pods/web/eviction",
            "GET /api/v1/namespaces/default/pods/web/log",
            "GET /api/v1/secrets",
            "GET /api/v1/namespaces/{}/secrets/any",
            "GET /api/v1/namespaces/{}/configmaps",
            "POST /api/v1/namespaces/{}/serviceaccounts/thermocline-agent/token",
            "PATCH /api/v1/namespaces/default",
            "PATCH /api/v1/nodes/n1/status",
            "DELETE /api/v1/nodes/n1",
            "GET /api/v1/nodes/n1/proxy/pods",
            "PATCH /apis/apps/v1/namespaces/{}/daemonsets/thermocline-agent",
            "PUT /apis/thermocline.io/v1alpha1/nodetierings/n1",
            "PATCH /apis/thermocline.io/v1alpha1/nodetierings/n1/status",
            "DELETE /apis/thermocline.io/v1alpha1/nodetierings",
            "POST /apis/thermocline.io/v1alpha1/tieringpolicies",
            "PATCH /apis/thermocline.io/v1alpha1/tieringpolicies/observe",
            "DELETE /apis/thermocline.io/v1alpha1/tieringpolicies/observe",
            "DELETE /apis/events.k8s.io/v1/namespaces/default/events/any",
            "GET /apis/coordination.k8s.io/v1/namespaces/{}/leases",
            "GET /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/thermocline-controller",
            "PUT /apis/coordination.k8s.io/v1/namespaces/{}/leases/another",
            "DELETE /apis/coordination.k8s.io/v1/namespaces/{}/leases/thermocline-controller",
            "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/cluster-admin",
            "PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/thermocline-controller",
        ],
    ),
];

/// Every resource and subresource that the server has, by its group.
async fn resources(client: &Client) -> Result<BTreeSet<(String, String)>> {
    let mut resources = BTreeSet::new();
    for version in client.list_core_api_versions().await?.versions {
        let found = client.list_core_api_resources(&version).await?;
        resources.extend(found.resources.into_iter().map(|resource| (String::new(), resource.name)));
    }
    for group in client.list_api_groups().await?.groups {
        for version in &group.versions {
            let found = client.list_api_group_resources(&version.group_version).await?;
            resources.extend(found.resources.into_iter().map(|resource| (group.name.clone(), resource.name)));
        }
    }
    // Without objects of their own, but with rights.
    for (group, resource) in [("", "users"), ("", "groups"), ("authentication.k8s.io", "userextras")] {
        resources.insert((group.to_owned(), resource.to_owned()));
    }
    Ok(resources)
}

/// Asks the server whether an account may. In the chart's namespace, where its rights are those of cluster and namespace together.
async fn may(
    client: &Client,
    verb: &str,
    group: &str,
    resource: &str,
    name: Option<&str>,
    namespace: &str,
) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                name: name.map(str::to_owned),
                namespace: Some(namespace.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("a review has an answer")?.allowed)
}

#[tokio::test]
async fn of_every_verb_on_every_resource_only_what_the_chart_gives_is_allowed() -> Result<()> {
    let cluster = Cluster::start().await?;
    let resources = resources(&cluster.administrator().await?).await?;
    ensure!(resources.len() > 80, "{resources:?}");
    for Account { name, access } in accounts(&cluster).await? {
        let client = access.client().await?;
        let asked: Vec<(&str, &(String, String))> =
            VERBS.iter().flat_map(|verb| resources.iter().map(move |resource| (*verb, resource))).collect();
        let client = &client;
        let allowed: BTreeMap<String, bool> = stream::iter(&asked)
            .map(|(verb, (group, resource))| async move {
                let is_allowed = may(client, verb, group, resource, None, NAMESPACE).await?;
                anyhow::Ok((right(verb, group, resource), is_allowed))
            })
            .buffer_unordered(8)
            .try_collect()
            .await?;
        let allowed: BTreeSet<String> =
            allowed.into_iter().filter(|(_, is_allowed)| *is_allowed).map(|(right, _)| right).collect();

        let rules = rules_of(&cluster.chart, name)?;
        let (on_objects, general): (Vec<_>, Vec<_>) = rules
            .into_iter()
            .partition(|rule| rule.resource_names.as_ref().is_some_and(|names| !names.is_empty()));
        let mut given = rights(&general)?;
        let served = |right: &&&str| {
            let asked = right.split_once(' ').map(|(_, resource)| resource);
            resources.iter().any(|(group, resource)| asked == Some(&format!("{resource}.{group}")))
        };
        given.extend(EVERYBODYS.iter().filter(served).map(|right| (*right).to_owned()));
        println!(
            "{name}: of {} calls ({} verbs on {} resources) allowed are {}, denied {}: {allowed:#?}",
            asked.len(),
            VERBS.len(),
            resources.len(),
            allowed.len(),
            asked.len() - allowed.len(),
        );
        assert_eq!(allowed, given, "{name}");

        // Rights on objects by name hold for those, and those of namespaces in the chart's alone.
        for rule in on_objects {
            let (groups, names) =
                (rule.api_groups.unwrap_or_default(), rule.resource_names.unwrap_or_default());
            for (verb, resource) in
                rule.verbs.iter().flat_map(|verb| rule.resources.iter().flatten().map(move |r| (verb, r)))
            {
                let (group, own) = (&groups[0], names[0].as_str());
                // What is in no namespace is the same in all.
                let elsewhere = resource == "clusterroles";
                for (object, namespace, expected) in
                    [(own, NAMESPACE, true), ("another", NAMESPACE, false), (own, "default", elsewhere)]
                {
                    let is = may(client, verb, group, resource, Some(object), namespace).await?;
                    assert_eq!(is, expected, "{name}: {verb} {resource} {object} in {namespace}");
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_would_harm_is_refused_when_it_is_tried() -> Result<()> {
    let cluster = Cluster::start().await?;
    for Account { name, access } in accounts(&cluster).await? {
        let client = access.client().await?;
        let calls = REFUSED.iter().find(|(of, _)| *of == name).context("a list for each account")?.1;
        println!("refused to {name}:");
        for call in calls {
            let (method, path) = call.split_once(' ').context("a method and a path")?;
            let path = path.replace("{}", NAMESPACE);
            let mut request = http::Request::builder().method(method).uri(&path);
            if method == "PATCH" {
                request = request.header("Content-Type", "application/merge-patch+json");
            } else if method != "GET" {
                request = request.header("Content-Type", "application/json");
            }
            match client.request_text(request.body(b"{}".to_vec())?).await {
                Err(kube::Error::Api(status)) if status.code == 403 => println!("  {method} {path}"),
                other => bail!("{name}: {method} {path} is not refused as forbidden: {other:?}"),
            }
        }
        ensure!(calls.len() > 20);
    }
    Ok(())
}
