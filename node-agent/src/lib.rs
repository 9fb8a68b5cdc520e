//! Thermocline's node agent: keeps each managed cgroup's hot memory in DRAM and lets its cold memory sink.
//!
//! Observe, decide, apply, publish: [`agent`] is the loop, `tiering` decides, `host` is the kernel, [`engine`] joins the
//! two where pages are found and moved. [`snapshot`] is the one picture from which metrics, `/debug/state` and the tables
//! are made.
#![forbid(unsafe_code)]

pub mod agent;
pub mod ahead;
pub mod args;
pub mod background;
pub mod check;
pub mod commands;
pub mod config;
pub mod drift;
pub mod engine;
pub mod exit;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod history;
pub mod host_settings;
pub mod http;
pub mod kdamond;
pub mod kubernetes;
pub mod learned;
pub mod limits;
pub mod live;
pub mod managed;
pub mod metrics;
pub mod node;
pub mod picture;
pub mod probe_output;
pub mod promoter;
pub mod record;
pub mod report;
pub mod restore;
pub mod savings;
pub mod seccomp;
pub mod shown;
pub mod snapshot;
pub mod socket;
pub mod state;
pub mod systemd;
pub mod table;
pub mod text;
pub mod tier_map;
pub mod tunables;
mod watching;
