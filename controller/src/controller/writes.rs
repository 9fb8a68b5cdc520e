//! What is written, and what becomes of it.

use std::time::{Duration, Instant};

use api::{ModeSpec, NodeTieringSpec, PodAssignment};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::warnings::describe;
use super::{Controller, Event, NodeWrite, Outcome, RENEW_LOOK, unix_now};
use crate::event_queue::{KubeEvent, Reason, Regarding};
use crate::index::{Name, PodKey, Source, Unmanaged, Verdict};
use crate::node_tierings::{Content, Difference, StoredTiering};
use crate::node_writes::Due;
use crate::policy_status::{Acceptance, status};
use crate::snapshot::WriteKind;
use crate::write::{Times, WriteError};

/// So many nodes are looked at before events have their turn again: whoever begins to lead looks at all.
pub(super) const NODES_IN_A_TURN: usize = 64;

impl Controller {
    /// Begins writes that are due, while the lease is held. What is left is due in the next turn.
    pub(super) fn write_what_is_due(&mut self) {
        for _ in 0..NODES_IN_A_TURN {
            let due = self.may_write().then(|| self.nodes.take_due(Instant::now())).flatten();
            let Some(due) = due else { break };
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
        self.index.resolve_node(&node);
        let Some(owner) = &self.owner else { return self.nodes.finished(&due, false, Instant::now()) };
        let stored = self.tierings.get(&node);
        // Where no agent reported, nobody reads it; an empty object is what an agent reports in.
        let has_agent = stored.is_some_and(|stored| stored.has_agent);
        let assignment = self
            .index
            .assignment(&node, &stored)
            .map(|spec| if has_agent { spec } else { NodeTieringSpec::default() });
        let owner = self.index.node_uid(&node).map(|uid| owner.reference(&node, uid));
        let Some((spec, owner)) = assignment.zip(owner) else {
            if let Some(uid) = stored.map(|stored| stored.uid.to_string()) {
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
        let is_known = |stored: &StoredTiering| {
            stored.content == Some(content) && !stored.is_due_for_renewal(&node, now)
        };
        if stored.is_some_and(is_known) {
            self.post_assignment_events(&node, &spec, Vec::new());
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
                "more pods than the namespace's share of what a node's object can hold; the last by name are left alone"
            );
        }
        let kube_events = self.assignment_events(&node, &spec);
        self.tierings.write_began(&node);
        let (writer, events) = (self.writer.clone(), self.events.clone());
        let times = Times { epoch: self.epoch, now: now.as_secs() };
        tokio::spawn(async move {
            let began = Instant::now();
            let result = writer.node_tiering(&node, &owner, &spec, times).await;
            let outcome =
                Outcome::Assigned { spec, content, renewed: times.now, events: kube_events, result };
            let _ = events
                .send(Event::NodeWritten(Box::new(NodeWrite { due, outcome, took: began.elapsed() })))
                .await;
        });
    }

    /// Has nodes written that were written long ago.
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
            let outcome = Outcome::Removed { result };
            let _ = events
                .send(Event::NodeWritten(Box::new(NodeWrite { due, outcome, took: began.elapsed() })))
                .await;
        });
    }

    /// Events of pods, to be posted once the spec is written.
    pub(super) fn assignment_events(&self, node: &Name, spec: &NodeTieringSpec) -> Vec<KubeEvent> {
        let stored = self.tierings.get(node);
        let occasion = stored.map_or(0, |stored| stored.generation.unsigned_abs());
        let mut events = Vec::new();
        for pod in &spec.pods {
            let difference = stored.map_or(Difference::New, |stored| stored.difference(spec, pod));
            if difference == Difference::Same {
                continue;
            }
            // What everybody has, and what is only observed, is no news to anybody.
            if self.is_news(spec, pod) {
                events.push(KubeEvent {
                    regarding: regarding(pod),
                    reason: self.assigned(spec, pod),
                    occasion,
                });
            }
        }
        let left = self.index.pods_on(node).filter_map(|key| {
            let uid = self.index.pod_uid(key).filter(|uid| stored.is_some_and(|stored| stored.has(uid)))?;
            let finished = Verdict::Unmanaged(Unmanaged::Finished);
            let verdict = self
                .index
                .verdict(key)
                .filter(|verdict| verdict.policy().is_none() && **verdict != finished)?;
            let managed = spec.pods.iter().any(|pod| pod.uid == uid);
            let regarding =
                Regarding::Pod { namespace: key.0.to_string(), name: key.1.to_string(), uid: uid.to_owned() };
            (!managed).then(|| KubeEvent {
                regarding,
                reason: Reason::Unassigned(describe(verdict)),
                occasion,
            })
        });
        events.extend(left);
        events
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
    fn assigned(&self, spec: &NodeTieringSpec, pod: &PodAssignment) -> Reason {
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
        Reason::Assigned(of_pod.into_iter().chain(of_containers).collect::<Vec<_>>().join("; "))
    }

    /// The node has this spec: posts its events, and those of writes without an answer that still are so.
    fn post_assignment_events(&mut self, node: &Name, spec: &NodeTieringSpec, events: Vec<KubeEvent>) {
        let mut unconfirmed = self.unconfirmed.remove(node).unwrap_or_default();
        unconfirmed.retain(|event| {
            let pod = spec.pods.iter().find(|pod| regarding(pod) == event.regarding);
            let still_so = match pod {
                Some(pod) => self.assigned(spec, pod) == event.reason,
                None => matches!(event.reason, Reason::Unassigned(_)),
            };
            still_so && !events.iter().any(|newer| newer.regarding == event.regarding)
        });
        for event in unconfirmed.into_iter().chain(events) {
            // Good news that there is no room for is lost.
            let _ = self.event_queue.push(event);
        }
    }

    pub(super) fn node_written(&mut self, NodeWrite { due, outcome, took }: NodeWrite) {
        let (kind, error) = match outcome {
            Outcome::Assigned { spec, content, renewed, events, result } => match result {
                Ok((uid, generation)) => {
                    let stored = StoredTiering::of(&spec, content, &uid, generation, Some(renewed));
                    self.tierings.written(&due.node, stored);
                    self.post_assignment_events(&due.node, &spec, events);
                    if let Some(event) = due.event {
                        self.tallies.event_to_write(event.elapsed());
                    }
                    (WriteKind::NodeTiering, None)
                }
                Err(error) => {
                    self.tierings.write_failed(&due.node);
                    if error.may_pass() {
                        self.tierings.forget_content(&due.node);
                        let unconfirmed = self.unconfirmed.entry(Name::clone(&due.node)).or_default();
                        // However often it is tried, of a pod the newest is enough.
                        unconfirmed
                            .retain(|older| !events.iter().any(|newer| newer.regarding == older.regarding));
                        unconfirmed.extend(events);
                    }
                    (WriteKind::NodeTiering, Some(error))
                }
            },
            Outcome::Removed { result } => {
                if result.is_ok() {
                    self.tierings.deleted(&due.node);
                }
                (WriteKind::Removal, result.err())
            }
        };
        self.tallies.write_ended(kind, error.as_ref(), took);
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
        let Some((acceptance, matched)) = self.acceptance(&name) else {
            return self.statuses.finished(&name, true, now);
        };
        let without_floors = self.index.namespaces_without_floors_of(&name);
        let now_written = Time(Timestamp::now());
        let wanted =
            status(&acceptance, policy.generation, matched, &without_floors, &policy.status, &now_written);
        if wanted == policy.status {
            return self.statuses.finished(&name, true, now);
        }
        let (writer, events) = (self.writer.clone(), self.events.clone());
        tokio::spawn(async move {
            let result = writer.policy_status(&name, &wanted).await.map(|()| wanted);
            let _ = events.send(Event::StatusWritten(name, result)).await;
        });
    }

    /// What is to be said of a policy, and how many pods have it.
    pub(super) fn acceptance(&self, name: &Name) -> Option<(Acceptance, u32)> {
        if let Some(error) = &self.policies.get(name)?.unreadable {
            let matched = self.index.policy(name).map_or(0, |(_, _, matched)| matched);
            return Some((Acceptance::Unreadable(error.clone()), matched));
        }
        let (_, accepted, matched) = self.index.policy(name)?;
        let acceptance = match accepted {
            Ok(()) => Acceptance::Accepted,
            Err(error) => Acceptance::Rejected(error.clone()),
        };
        Some((acceptance, matched))
    }

    pub(super) fn status_written(
        &mut self,
        name: &Name,
        result: Result<api::TieringPolicyStatus, WriteError>,
    ) {
        self.tallies.write_ended(WriteKind::PolicyStatus, result.as_ref().err(), Duration::ZERO);
        self.statuses.finished(name, result.is_ok(), Instant::now());
        match result {
            Ok(status) => self.policies.status_written(name, status),
            Err(error) => {
                tracing::warn!(policy = &**name, %error, "the status of a policy was not written; it is tried again");
            }
        }
    }

    /// What is said of a policy may have changed.
    pub(super) fn policy_changed(&mut self, name: &Name, now: Instant) {
        let Some(policy) = self.policies.get(name) else { return };
        let Some((acceptance, _)) = self.acceptance(name) else { return };
        let without_floors = self.index.namespaces_without_floors_of(name);
        let time = Time(Timestamp::now());
        let wanted = status(&acceptance, policy.generation, 0, &without_floors, &policy.status, &time);
        let urgent = wanted.conditions != policy.status.conditions;
        self.statuses.changed(name, urgent, now);
        if urgent {
            self.warn_of_policy(name);
        }
    }
}

fn regarding(pod: &PodAssignment) -> Regarding {
    Regarding::Pod { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}
