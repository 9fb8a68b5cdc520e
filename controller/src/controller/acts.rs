//! What is written, and what becomes of it.

use std::time::{Duration, Instant};

use api::NodeTieringSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::{Controller, Event, Written, Wrote};
use crate::index::{Name, PodKey, Verdict};
use crate::node_writes::Due;
use crate::occurrence::{About, Occurrence, What};
use crate::policy_status::{Standing, status};
use crate::snapshot::WriteKind;
use crate::told::{Content, Difference, Suspension, Told};
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

    fn write_node(&mut self, due: Due) {
        let node = Name::clone(&due.node);
        let told = self.told.get(&node);
        let Some((spec, owner)) = self.index.assignment(&node).zip(self.index.node_uid(&node)) else {
            if let Some(uid) = told.map(|told| told.uid.to_string()) {
                self.remove_node(due, uid);
            } else {
                self.nodes.unneeded(&due);
                self.nodes.forget(&node);
            }
            return;
        };
        let content = Content::of(&spec, owner);
        if told.is_some_and(|told| told.content == Some(content)) {
            self.tallies.unneeded();
            self.nodes.unneeded(&due);
            return;
        }
        let then = self.consequences(&node, &spec);
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
    fn consequences(&self, node: &Name, spec: &NodeTieringSpec) -> Vec<Occurrence> {
        let told = self.told.get(node);
        let occasion = told.map_or(0, |told| told.generation.unsigned_abs());
        let mut occurrences = Vec::new();
        for pod in &spec.pods {
            let difference = told.map_or(Difference::New, |told| told.difference(pod));
            if difference == Difference::Same {
                continue;
            }
            let key: PodKey = (pod.namespace.as_str().into(), pod.name.as_str().into());
            let of_pod = pod.policy.as_ref().map(|policy| {
                let why = self.index.verdict(&key).map(ToString::to_string).unwrap_or_default();
                format!("policy {} ({why})", policy.name)
            });
            let of_containers = pod.containers.iter().map(|container| match &container.policy {
                Some(policy) => format!("container {}: policy {}", container.name, policy.name),
                None => format!("container {}: none", container.name),
            });
            let words: Vec<String> = of_pod.into_iter().chain(of_containers).collect();
            let about =
                About::Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() };
            occurrences.push(Occurrence { about, what: What::Assigned(words.join("; ")), occasion });
        }
        let left = self.index.pods_on(node).filter_map(|key| {
            let uid = self.index.pod_uid(key).filter(|uid| told.is_some_and(|told| told.has(uid)))?;
            let Some(Verdict::Unmanaged(why)) = self.index.verdict(key) else { return None };
            let managed = spec.pods.iter().any(|pod| pod.uid == uid);
            let about =
                About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
            (!managed).then(|| Occurrence {
                about,
                what: What::Unassigned(format!("no policy: {why}")),
                occasion,
            })
        });
        occurrences.extend(left);
        occurrences
    }

    pub(super) fn wrote(&mut self, Wrote { due, what, took }: Wrote) {
        let (kind, error) = match what {
            Written::Told { spec, content, then, result } => match result {
                Ok((uid, generation)) => {
                    self.told.wrote(&due.node, Told::written(&spec, content, &uid, generation));
                    for occurrence in then {
                        self.occurrences.tell(occurrence);
                    }
                    if let Some(event) = due.event {
                        self.tallies.event_to_write(event.elapsed());
                    }
                    (WriteKind::NodeTiering, None)
                }
                Err(error) => {
                    if error.may_pass() {
                        self.told.doubt(&due.node);
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

    fn write_status(&mut self, name: Name) {
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
    fn standing(&self, name: &Name) -> Option<(Standing, u32)> {
        if let Some(error) = &self.policies.get(name)?.unreadable {
            return Some((Standing::Unreadable(error.clone()), 0));
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
        let uid = policy.uid.clone();
        let (occasion, error) = (
            policy.generation.unsigned_abs(),
            match standing {
                Standing::Accepted => None,
                Standing::Rejected(error) => Some(error.to_string()),
                Standing::Unreadable(error) => Some(error),
            },
        );
        self.statuses.changed(name, urgent, now);
        if let (true, Some(error)) = (urgent, error) {
            let about = About::Policy { name: name.to_string(), uid };
            self.occurrences.tell(Occurrence { about, what: What::Rejected(error), occasion });
        }
    }

    pub(super) fn tell_of_invalid(&self, key: &PodKey) {
        let Some(uid) = self.index.pod_uid(key) else { return };
        let about = About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
        for problem in self.index.problems(key) {
            let what = What::InvalidAnnotation(problem.to_string());
            self.occurrences.tell(Occurrence { about: about.clone(), what, occasion: 0 });
        }
    }

    pub(super) fn tell_of_namespace(&self, name: &Name) {
        for problem in self.index.namespace_problems(name) {
            let what = What::InvalidAnnotation(problem.to_string());
            self.occurrences.tell(Occurrence {
                about: About::Namespace(name.to_string()),
                what,
                occasion: 0,
            });
        }
    }

    pub(super) fn tell_of_suspension(&self, suspension: &Suspension) {
        let Suspension { namespace, name, uid, message, since } = suspension.clone();
        if self.leading {
            let about = About::Pod { namespace, name, uid };
            let occasion = since.0.as_second().unsigned_abs();
            self.occurrences.tell(Occurrence { about, what: What::Suspended(message), occasion });
        }
    }
}
