//! What is written, and what becomes of it.

use std::time::{Duration, Instant};

use api::{ModeSpec, NodeTieringSpec, PodAssignment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::warnings::words;
use super::{Controller, Event, RENEW_LOOK, Written, Wrote, unix_now};
use crate::index::{Name, PodKey, Source, Unmanaged, Verdict};
use crate::node_tierings::{Content, Difference, KnownTiering};
use crate::node_writes::Due;
use crate::occurrence::{About, Occurrence, What};
use crate::policy_status::{Standing, status};
use crate::snapshot::WriteKind;
use crate::write::{Times, WriteError};

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
        let Some(owner) = &self.owner else { return self.nodes.finished(&due, false, Instant::now()) };
        let told = self.tierings.get(&node);
        // Where no agent reported, nobody reads it; an empty object is what an agent reports in.
        let has_agent = told.is_some_and(|told| told.has_agent);
        let assignment = self
            .index
            .assignment(&node, &told)
            .map(|spec| if has_agent { spec } else { NodeTieringSpec::default() });
        let owner = self.index.node_uid(&node).map(|uid| owner.reference(&node, uid));
        let Some((spec, owner)) = assignment.zip(owner) else {
            if let Some(uid) = told.map(|told| told.uid.to_string()) {
                self.remove_node(due, uid);
            } else {
                self.failing.remove(&node);
                self.nodes.unneeded(&due);
                self.nodes.forget(&node);
            }
            self.unconfirmed.remove(&node);
            return;
        };
        let content = Content::of(&spec, &owner.uid);
        let now = unix_now();
        let is_known =
            |told: &KnownTiering| told.content == Some(content) && !told.is_due_for_renewal(&node, now);
        if told.is_some_and(is_known) {
            self.tell_consequences(&node, &spec, Vec::new());
            self.log_node(&node, None);
            self.tallies.unneeded();
            self.nodes.unneeded(&due);
            return;
        }
        for cut in &spec.cut {
            tracing::warn!(
                node = &*node,
                namespace = cut.namespace,
                pods = cut.pods,
                "more pods than the namespace's share of what a node can be told; the last by name are left alone"
            );
        }
        let then = self.consequences(&node, &spec);
        self.tierings.writing(&node);
        let (writer, events) = (self.writer.clone(), self.events.clone());
        let times = Times { epoch: self.epoch, now: now.as_secs() };
        tokio::spawn(async move {
            let began = Instant::now();
            let result = writer.node_tiering(&node, &owner, &spec, times).await;
            let what = Written::Assignment { spec, content, renewed: times.now, then, result };
            let _ = events.send(Event::Wrote(Box::new(Wrote { due, what, took: began.elapsed() }))).await;
        });
    }

    /// Has nodes written that were told long ago.
    pub(super) fn renew(&mut self) {
        let now = Instant::now();
        if !self.may_write() || now < self.renew_at {
            return;
        }
        self.renew_at = now + RENEW_LOOK;
        let due: Vec<Name> = self.tierings.due_for_renewal(unix_now()).cloned().collect();
        for node in &due {
            self.nodes.changed(node, None, now);
        }
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
        let told = self.tierings.get(node);
        let occasion = told.map_or(0, |told| told.generation.unsigned_abs());
        let mut occurrences = Vec::new();
        for pod in &spec.pods {
            let difference = told.map_or(Difference::New, |told| told.difference(spec, pod));
            if difference == Difference::Same {
                continue;
            }
            // What everybody has, and what is only observed, is no news to anybody.
            if self.is_news(spec, pod) {
                occurrences.push(Occurrence { about: about(pod), what: self.assigned(spec, pod), occasion });
            }
        }
        let left = self.index.pods_on(node).filter_map(|key| {
            let uid = self.index.pod_uid(key).filter(|uid| told.is_some_and(|told| told.has(uid)))?;
            let finished = Verdict::Unmanaged(Unmanaged::Finished);
            let verdict = self
                .index
                .verdict(key)
                .filter(|verdict| verdict.policy().is_none() && **verdict != finished)?;
            let managed = spec.pods.iter().any(|pod| pod.uid == uid);
            let about =
                About::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
            (!managed).then(|| Occurrence { about, what: What::Unassigned(words(verdict)), occasion })
        });
        occurrences.extend(left);
        occurrences
    }

    fn is_news(&self, spec: &NodeTieringSpec, pod: &PodAssignment) -> bool {
        let enforces = |key: &String| {
            spec.policies.get(key).is_some_and(|policy| policy.spec.mode != Some(ModeSpec::Observe))
        };
        let key: PodKey = (pod.namespace.as_str().into(), pod.name.as_str().into());
        let by_default = matches!(self.index.verdict(&key), Some(Verdict::Policy(_, Source::ClusterDefault)));
        pod.policy.as_ref().is_some_and(|key| enforces(key) && !by_default)
            || pod.containers.iter().any(|container| container.policy.as_ref().is_some_and(enforces))
    }

    /// What is said of a pod in a spec.
    fn assigned(&self, spec: &NodeTieringSpec, pod: &PodAssignment) -> What {
        let key: PodKey = (pod.namespace.as_str().into(), pod.name.as_str().into());
        let of_pod = spec.policy(pod.policy.as_ref()).map(|policy| {
            let why = self.index.verdict(&key).map(ToString::to_string).unwrap_or_default();
            format!("policy {} ({why})", policy.name)
        });
        let of_containers =
            pod.containers.iter().map(|container| match spec.policy(container.policy.as_ref()) {
                Some(policy) => format!("container {}: policy {}", container.name, policy.name),
                None => format!("container {}: none", container.name),
            });
        What::Assigned(of_pod.into_iter().chain(of_containers).collect::<Vec<_>>().join("; "))
    }

    /// The node has this spec: tells what follows, and what followed from writes without an answer that still is so.
    fn tell_consequences(&mut self, node: &Name, spec: &NodeTieringSpec, then: Vec<Occurrence>) {
        let mut unconfirmed = self.unconfirmed.remove(node).unwrap_or_default();
        unconfirmed.retain(|occurrence| {
            let pod = spec.pods.iter().find(|pod| about(pod) == occurrence.about);
            let still_so = match pod {
                Some(pod) => self.assigned(spec, pod) == occurrence.what,
                None => matches!(occurrence.what, What::Unassigned(_)),
            };
            still_so && !then.iter().any(|newer| newer.about == occurrence.about)
        });
        for occurrence in unconfirmed.into_iter().chain(then) {
            // Of good news, what there is no room for is not told again.
            let _ = self.occurrences.tell(occurrence);
        }
    }

    pub(super) fn wrote(&mut self, Wrote { due, what, took }: Wrote) {
        let (kind, error) = match what {
            Written::Assignment { spec, content, renewed, then, result } => match result {
                Ok((uid, generation)) => {
                    let told = KnownTiering::written(&spec, content, &uid, generation, Some(renewed));
                    self.tierings.wrote(&due.node, told);
                    self.tell_consequences(&due.node, &spec, then);
                    if let Some(event) = due.event {
                        self.tallies.event_to_write(event.elapsed());
                    }
                    (WriteKind::NodeTiering, None)
                }
                Err(error) => {
                    self.tierings.not_written(&due.node);
                    if error.may_pass() {
                        self.tierings.doubt(&due.node);
                        let unconfirmed = self.unconfirmed.entry(Name::clone(&due.node)).or_default();
                        // However often it is tried, of a pod the newest is enough.
                        unconfirmed.retain(|older| !then.iter().any(|newer| newer.about == older.about));
                        unconfirmed.extend(then);
                    }
                    (WriteKind::NodeTiering, Some(error))
                }
            },
            Written::Removed { result } => {
                if result.is_ok() {
                    self.tierings.gone(&due.node);
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
            Some(error) if self.failing.insert(Name::clone(node), error.fault) != Some(error.fault) => {
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
        let without_floors = self.index.namespaces_without_floors_of(&name);
        let now_written = Time(Timestamp::now());
        let wanted =
            status(&standing, policy.generation, matched, &without_floors, &policy.status, &now_written);
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
        let without_floors = self.index.namespaces_without_floors_of(name);
        let time = Time(Timestamp::now());
        let wanted = status(&standing, policy.generation, 0, &without_floors, &policy.status, &time);
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
