//! The controller as a process of its own, on a real API server: what it assigns, writes and says, and what it survives.

mod altered;
mod burst;
mod cluster;
mod content;
mod current;
mod events_and_status;
mod faults;
mod labels;
mod leader;
mod malformed;
mod once;
mod precedence;
mod replica;
mod skew;
mod tenants;
mod uninstall;
