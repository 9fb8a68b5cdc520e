//! A host in virtual time that runs the real decision of [`tiering`] and judges it.
//!
//! # Problem
//! Whether a law is right shows on hosts that no test has: terabytes, sockets, page cache, memory that can't be moved, days.
//!
//! # Approach
//! [`host`] models the kernel and the pods in counted groups of pages; [`laws`] act on it, ours by the code that the agent
//! runs, unchanged, and the peers' beside it; [`judge`] compares what happened with what a world asks, and with an oracle that sees
//! every access. Worlds are files ([`world`]).
//!
//! # Properties
//! - `pages_are_conserved`: what is used of the nodes is what the pods have.
//! - `a_seed_says_all`: a world, a law and a seed have one outcome.
#![forbid(unsafe_code)]
// Counts become shares and back all the time; what is lost is below a page.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

pub mod host;
pub mod judge;
pub mod laws;
pub mod moments;
pub mod picture;
pub mod report;
mod run;
pub mod world;

pub use run::{Run, run};
