//! Pure decisions about where the anonymous memory of a host's cgroups should be.
//!
//! What is read of a host in one round are samples; what follows from them and from those before is one [`law::Plan`], which carries its
//! reasons. Nothing here does I/O, reads a clock or knows Kubernetes: the crate is `no_std`, and every function that needs the time takes
//! `now`.
//!
//! [`law`] is the place to begin. Beside it: how a limit and the allowed nodes are stepped ([`memory_high`], [`retier`]), and what nodes
//! are to each other ([`TierMap`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod age;
mod cpu_budget;
pub mod law;
pub mod memory_high;
mod node;
mod policy;
mod reason;
pub mod retier;
mod sample;
mod stall;
mod tier;
mod token_bucket;
mod units;

pub use age::AgeHistogram;
pub use cpu_budget::CpuBudget;
pub use node::{NodeId, NodeSet};
pub use policy::{
    DemotePolicy, DramPolicy, EngineChoice, MemoryHighPolicy, Mode, Policy, PolicyError, PressureGuard,
    PromotePolicy, Share,
};
pub use reason::{DemoteReason, Limit};
pub use sample::{Generation, StallTotals};
pub use tier::{
    DemotionSupport, Device, NodeFacts, Performance, Tier, TierError, TierMap, TierName, TierOverride,
    TierParseError, TierRef,
};
pub use token_bucket::TokenBucket;
pub use units::{ByteRate, Bytes, Instant, Ratio};
