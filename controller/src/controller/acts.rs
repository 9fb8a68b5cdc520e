//! What is written, and what becomes of it.

use std::time::{Duration, Instant};

use api::{NodeTieringSpec, PodAssignment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::untold::words;
use super::{Controller, Event, Written, Wrote};
use crate::index::{Name, PodKey};
use crate::node_writes::Due;
use crate::occurrence::{About, Occurrence, What};
use crate::policy_status::{Standing, status};
use crate::snapshot::WriteKind;
use crate::told::{Content, Difference, Told};
use crate::write::WriteError;

impl Controller {
    /// Begins every write that is due, while the lease is held.
    pub(super) fn write_what_is_due(&mut self) {
        while self.may_write()
            && let Some(due) = self.nodes.take_due(Instant::now())
        {
            self.write_node(due);
        }
        if self.may_write() {
            for policy in self.statuses.take_due(Instant::now()) {
                self.write_status(policy);
            }
        }
    }

    pub(super) fn write_node(&mut self, due: Due) {
        let node = Name::clone(&due.node);
        let told = self.told.get(&node);
        let Some((spec, owner)) = self.index.assignment(&node).zip(self.index.node_uid(&node)) else {
            if let Some(uid) = told.map(|told| told.uid.to_string()) {
                self.remove_node(due, uid);
            } else {
                self.failing.remove(&node);
                self.nodes.unneeded(&due);
                self.nodes.forget(&node);
            }
            self.owed.remove(&node);
            return;
        };
        let content = Content::of(&spec, owner);
        if told.is_some_and(|told| told.content == Some(content)) {
            self.tell_consequences(&node, &spec, Vec::new());
            self.log_node(&node, None);
            self.tallies.unneeded();
            self.nodes.unneeded(&due);
            return;
        }
        let left_out = self.index.left_out(&node);
        if left_out > 0 {
            tracing::warn!(
                node = &*node,
                left_out,
                "a node has more pods with a policy than it can be told of; the last by namespace and name are left alone"
            );
        }
        let then = self.consequences(&node, &spec);
        self.told.writing(&node);
        let (writer, events, owner) = (self.writer.clone(), self.events.clone(), owner.to_owned());
        tokio::spawn(async move {
            let began = Instant::now();
            let result = writer.node_tiering(&node, &owner, &spec).await;
            let what = Written::Told { spec, content, then, result };
            let _ = events.send(Event::Wrote(Box::new(Wrote { due, what, took: began.elapsed() }))).await;
        });
    }

    fn remove_node(&self, due: Due, uid: String) {
        let (writer, events) = (self.writer.clone(), self.events.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let result = writer.remove_node_tiering(&due.node, &uid).await;
            let what = Written::Removed { result };
            let _ = events.send(Event::Wrote(Box::new(Wrote { due, what, took: began.elapsed() }))).await;
        });
    }

    /// What is to be told of pods once the spec is written.
    pub(super) fn consequences(&self, node: &Name, spec: &NodeTieringSpec) -> Vec<Occurrence> {
        let told = self.told.get(node);
        let occasion = told.map_or(0, |told| told.generation.unsigned_abs());
        let mut occurrences = Vec::new();
        for pod in &spec.pods {
            let difference = told.map_or(Difference::New, |told| told.difference(pod));
            if difference == Difference::Same {
                continue;
            }
            occurrences.push(Occurrence { about: about(pod), what: self.assigned(pod), occasion });
        }
        let left = self.index.pods_on(node).filter_map(|key| {
            let uid = self.index.pod_uid(key).filter(|uid| told.is_some_and(|told| told.has(uid)))?;
            let verdict = self.index.verdict(key).filter(|verdict| verdict.policy().is_none())?;
            let managed = spec.pods.iter().any(|pod| pod.uid == uid);
            let about =
                About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
            (!managed).then(|| Occurrence { about, what: What::Unassigned(words(verdict)), occasion })
        });
        occurrences.extend(left);
        occurrences
    }

    /// What is said of a pod in a spec.
    fn assigned(&self, pod: &PodAssignment) -> What {
        let key: PodKey = (pod.namespace.as_str().into(), pod.name.as_str().into());
        let of_pod = pod.policy.as_ref().map(|policy| {
            let why = self.index.verdict(&key).map(ToString::to_string).unwrap_or_default();
            format!("policy {} ({why})", policy.name)
        });
        let of_containers = pod.containers.iter().map(|container| match &container.policy {
            Some(policy) => format!("container {}: policy {}", container.name, policy.name),
            None => format!("container {}: none", container.name),
        });
        What::Assigned(of_pod.into_iter().chain(of_containers).collect::<Vec<_>>().join("; "))
    }

    /// The node has this spec: tells what follows, and what followed from writes without an answer that still is so.
    fn tell_consequences(&mut self, node: &Name, spec: &NodeTieringSpec, then: Vec<Occurrence>) {
        let mut owed = self.owed.remove(node).unwrap_or_default();
        owed.retain(|occurrence| {
            let pod = spec.pods.iter().find(|pod| about(pod) == occurrence.about);
            let still_so = match pod {
                Some(pod) => self.assigned(pod) == occurrence.what,
                None => matches!(occurrence.what, What::Unassigned(_)),
            };
            still_so && !then.iter().any(|newer| newer.about == occurrence.about)
        });
        for occurrence in owed.into_iter().chain(then) {
            // Of good news, what there is no room for is not told again.
            let _ = self.occurrences.tell(occurrence);
        }
    }

    pub(super) fn wrote(&mut self, Wrote { due, what, took }: Wrote) {
        let (kind, error) = match what {
            Written::Told { spec, content, then, result } => match result {
                Ok((uid, generation)) => {
                    self.told.wrote(&due.node, Told::written(&spec, content, &uid, generation));
                    self.tell_consequences(&due.node, &spec, then);
                    if let Some(event) = due.event {
                        self.tallies.event_to_write(event.elapsed());
                    }
                    (WriteKind::NodeTiering, None)
                }
                Err(error) => {
                    self.told.not_written(&due.node);
                    if error.may_pass() {
                        self.told.doubt(&due.node);
                        let owed = self.owed.entry(Name::clone(&due.node)).or_default();
                        // However often it is tried, of a pod the newest is enough.
                        owed.retain(|older| !then.iter().any(|newer| newer.about == older.about));
                        owed.extend(then);
                    }
                    (WriteKind::NodeTiering, Some(error))
                }
            },
            Written::Removed { result } => {
                if result.is_ok() {
                    self.told.gone(&due.node);
                }
                (WriteKind::Removal, result.err())
            }
        };
        self.tallies.wrote(kind, error.as_ref(), took);
        self.log_node(&due.node, error.as_ref());
        self.nodes.finished(&due, error.is_none(), Instant::now());
        if kind == WriteKind::Removal && error.is_none() {
            self.nodes.forget(&due.node);
        }
    }

    /// Says once that a node's writes fail, and once that they work again.
    fn log_node(&mut self, node: &Name, error: Option<&WriteError>) {
        match error {
            Some(error) if self.failing.insert(Name::clone(node), error.kind) != Some(error.kind) => {
                tracing::warn!(node = &**node, %error, "a NodeTiering was not written; it is tried again");
            }
            None if self.failing.remove(node).is_some() => {
                tracing::info!(node = &**node, "the NodeTiering is written again");
            }
            Some(_) | None => {}
        }
    }

    pub(super) fn write_status(&mut self, name: Name) {
        let now = Instant::now();
        let Some(policy) = self.policies.get(&name) else { return self.statuses.finished(&name, true, now) };
        let Some((standing, matched)) = self.standing(&name) else {
            return self.statuses.finished(&name, true, now);
        };
        let wanted = status(&standing, policy.generation, matched, &policy.status, Time(Timestamp::now()));
        if wanted == policy.status {
            return self.statuses.finished(&name, true, now);
        }
        let (writer, events) = (self.writer.clone(), self.events.clone());
        tokio::spawn(async move {
            let result = writer.policy_status(&name, &wanted).await.map(|()| wanted);
            let _ = events.send(Event::WroteStatus(name, result)).await;
        });
    }

    /// What is to be said of a policy, and how many pods have it.
    pub(super) fn standing(&self, name: &Name) -> Option<(Standing, u32)> {
        if let Some(error) = &self.policies.get(name)?.unreadable {
            let matched = self.index.policy(name).map_or(0, |(_, _, matched)| matched);
            return Some((Standing::Unreadable(error.clone()), matched));
        }
        let (_, accepted, matched) = self.index.policy(name)?;
        let standing = match accepted {
            Ok(()) => Standing::Accepted,
            Err(error) => Standing::Rejected(error.clone()),
        };
        Some((standing, matched))
    }

    pub(super) fn wrote_status(&mut self, name: &Name, result: Result<api::TieringPolicyStatus, WriteError>) {
        self.tallies.wrote(WriteKind::PolicyStatus, result.as_ref().err(), Duration::ZERO);
        self.statuses.finished(name, result.is_ok(), Instant::now());
        match result {
            Ok(status) => self.policies.wrote(name, status),
            Err(error) => {
                tracing::warn!(policy = &**name, %error, "the status of a policy was not written; it is tried again");
            }
        }
    }

    /// What is said of a policy may have changed.
    pub(super) fn policy_changed(&mut self, name: &Name, now: Instant) {
        let Some(policy) = self.policies.get(name) else { return };
        let Some((standing, _)) = self.standing(name) else { return };
        let wanted = status(&standing, policy.generation, 0, &policy.status, Time(Timestamp::now()));
        let urgent = wanted.conditions != policy.status.conditions;
        self.statuses.changed(name, urgent, now);
        if urgent {
            self.tell_of_policy(name);
        }
    }
}

fn about(pod: &PodAssignment) -> About {
    About::Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}
