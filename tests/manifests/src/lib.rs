//! What users install, as helm and kustomize render it: the same by both, as Kubernetes' types have it, and with metrics that
//! exist. No server is needed, only helm, kubectl and promtool, which `cargo xtask kube` makes.
#![forbid(unsafe_code)]

mod render;
mod tool;

pub use render::{NAMESPACE, RELEASE, helm_template, helm_template_text, kustomize, parse};
pub use tool::{root, run, tool};

#[cfg(test)]
mod admission;
#[cfg(test)]
mod alerts;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod dashboard;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod kustomize;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod values;
