//! Pure decisions about where a cgroup's anonymous memory should be.
//!
//! What is read from a host in one round is a [`CgroupSample`]; what follows from it and the one before is a
//! [`Model`]; what to do about it is a [`Decision`], which carries its reason. Nothing here does I/O, reads a
//! clock or knows Kubernetes: the crate is `no_std`, and every function that needs the time takes `now`.
//!
//! One round of one node:
//!
//! 1. [`Track::observe`]: sample in, model out; the effective age adapts ([`effective_age`]).
//! 2. [`arbiter::arbitrate`]: which cgroup gives up how much DRAM where the fast nodes run short.
//! 3. [`Track::decide`]: how much to demote and to promote now, and why ([`decide`]).
//! 4. [`memory_high`] and [`retier`]: the limit and the allowed nodes, stepped.
//!
//! The place of the full control law is [`decide`]: it sees the model, the policy and the arbiter's grant, and
//! nothing else.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod age;
pub mod arbiter;
pub mod decide;
pub mod effective_age;
pub mod law;
pub mod memory_high;
mod model;
mod node;
mod policy;
mod reason;
pub mod retier;
mod sample;
mod stall;
mod tier;
mod token_bucket;
mod track;
mod units;

pub use age::AgeHistogram;
pub use decide::{Decision, DemoteReason, Limit, Target};
pub use effective_age::EffectiveAge;
pub use model::Model;
pub use node::{NodeId, NodeSet};
pub use policy::{
    DemotePolicy, DramPolicy, EngineChoice, MemoryHighPolicy, Mode, Policy, PolicyError, PressureGuard,
    PromotePolicy, Share,
};
pub use sample::{CgroupSample, Generation, NodeUse, StallTotals};
pub use tier::{
    DemotionSupport, Device, NodeFacts, Performance, Tier, TierError, TierMap, TierName, TierOverride,
    TierParseError, TierRef,
};
pub use token_bucket::TokenBucket;
pub use track::Track;
pub use units::{ByteRate, Bytes, Instant, Ratio};
