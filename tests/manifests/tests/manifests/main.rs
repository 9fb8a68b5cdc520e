//! What users install, as helm and kustomize render it: the same by both, as Kubernetes' types have it, and with metrics that
//! exist. No server is needed, only helm, kubectl and promtool, which `cargo xtask kube` makes.

#![cfg(test)]

mod admission;
mod alerts;
mod chart;
mod dashboard;
mod distributions;
mod generated;
mod kustomize;
mod metrics;
mod monitoring;
mod nodes;
mod pools;
mod rights;
mod round_trip;
mod values;
