//! What users install, rendered with helm and kustomize as `cargo xtask kube` makes them.
#![forbid(unsafe_code)]

mod render;
mod tool;

pub use render::{NAMESPACE, RELEASE, helm_template, helm_template_text, kustomize, parse};
pub use tool::{root, run, tool};
