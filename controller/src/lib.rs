//! Thermocline's cluster controller: decides which policy each pod has, and publishes that to each node's agent.
//!
//! [`watched`] is what is read from the API server, [`index`] decides, without a client or a clock; [`controller`] is the loop that
//! joins them with [`node_writes`], [`debounce`] and [`policy_status`], which say when to write, and [`write`], which does. [`lease`] is who may,
//! [`owner`] whom it belongs to.
#![forbid(unsafe_code)]

pub mod args;
pub mod controller;
pub mod debounce;
pub mod event_queue;
pub mod exit;
pub mod http;
pub mod index;
pub mod lease;
pub mod listed;
pub mod metrics;
pub mod node_labels;
pub mod node_tierings;
pub mod node_writes;
pub mod once;
pub mod owner;
pub mod policy_status;
pub mod run;
pub mod snapshot;
pub mod watch;
pub mod write;
