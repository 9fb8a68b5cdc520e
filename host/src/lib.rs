//! All kernel I/O of Thermocline: what a host's cgroups, nodes and pages say, and the few writes that change them.
//!
//! Nothing here decides. One function reads or writes one kernel file and is named after it. A file that this kernel
//! does not have reads as `None`; a cgroup or process that ended meanwhile is [`Error::Gone`], which callers treat as
//! an answer and not as a failure; a line that does not parse is an error that carries its file and line number.
//!
//! Root directories (cgroup mount, `/proc`, `/sys`) are parameters, so that the same code runs on a host, under a
//! container's `/host` mounts, and on a directory tree made by a test.
#![deny(unsafe_code)]

pub mod cgroup;
pub mod damon;
pub mod dax;
pub mod demotion;
pub mod error;
mod file;
#[cfg(test)]
mod fixture;
pub mod lru_gen;
pub mod malloc;
pub mod node;
pub mod numa_balancing;
pub mod numa_topology;
pub mod pages;
pub mod parse;
pub mod probe;
pub mod proc;
pub mod reclaim;
pub mod roots;
pub mod swap;
pub mod tiers;
pub mod watch;
pub mod zoneinfo;

#[cfg(feature = "generator")]
#[allow(unsafe_code)]
pub mod generator;
#[allow(unsafe_code)]
pub(crate) mod sys;

pub use error::{Error, Result};
