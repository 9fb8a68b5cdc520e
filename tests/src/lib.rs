//! End-to-end proof: what runs inside the test guests, and the words that the guests and `cargo xtask` share.
//!
//! - [`scenario`]: the table of scenarios and what each runs on. To add one: a file in `scenarios/`, a line in the table.
//! - [`bench`]: what guests do for benchmarks.
//! - [`machine`]: what kinds of machine guests are, each a file.
//! - [`guest`]: what a scenario works with: cgroups, the agent, workloads, the kernel's files.
//! - [`workload`]: the load generator with its exact ledger.
//! - [`node`]: what a guest that is a Kubernetes node finds, and where.
//! - [`report`]: the lines on the console that the host reads.
#![forbid(unsafe_code)]

pub mod bench;
pub mod guest;
pub mod machine;
pub mod modinfo;
pub mod node;
pub mod report;
pub mod scenario;
mod scenarios;
pub mod workload;
