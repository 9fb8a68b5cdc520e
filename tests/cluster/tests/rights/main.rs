//! The rights that the chart gives to the agents' and the controller's accounts, on a real API server: enough, none to spare, and
//! nothing else.

mod admission;
mod denied;
mod needed;
mod rules;

use anyhow::Result;
use cluster_tests::{Access, Cluster};

/// One of the two accounts.
struct Account {
    name: &'static str,
    access: Access,
}

/// Both, with their rights in force.
async fn accounts(cluster: &Cluster) -> Result<[Account; 2]> {
    Ok([
        Account { name: "thermocline-agent", access: cluster.agent("n1").await? },
        Account { name: "thermocline-controller", access: cluster.controller().await? },
    ])
}
