//! The agent with its default policy.

use super::{Contender, POD, Running};
use crate::scenarios::agent_config;

pub(super) const CONTENDER: Contender = Contender {
    name: "thermocline",
    settings: "the default policy, nothing else said",
    start: |guest, _| Ok(Running::Agent(guest.spawn_agent(&agent_config(POD, ""), &[])?)),
};
