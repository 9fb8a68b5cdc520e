//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::index::Index;

const AFTER_HELP: &str = "\
Examples:
  thermocline-controller --once                          what each pod would get; writes nothing
  thermocline-controller --once --default-policy batch   the same with a policy for all others
  thermocline-controller --explain shop/web-0            which policy that pod gets and why, as JSON; writes nothing
  thermocline-controller --kubeconfig ~/.kube/config     run outside of the cluster

Exit codes: 0 success, 1 unexpected failure, 2 wrong arguments, 3 a right is missing, 4 no cluster to talk to, 5 the definitions of
Thermocline's objects are not installed";

/// Assigns tiering policies to pods, and publishes them to each node's agent.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "thermocline-controller",
    version,
    after_help = AFTER_HELP,
    max_term_width = 110,
    args_override_self = true
)]
pub struct Args {
    /// Print what would be assigned, and end; writes nothing and needs no lease.
    #[arg(long)]
    pub once: bool,
    /// Print which policy a pod gets and why, what does not apply, and what its node is assigned of it, as JSON, and end.
    #[arg(long, value_name = "NAMESPACE/POD", value_parser = pod, conflicts_with = "once")]
    pub explain: Option<PodName>,
    /// Form of what `--once` prints.
    #[arg(long, default_value = "table", value_enum, value_name = "FORM")]
    pub output: OutputFormat,
    /// The `TieringPolicy` of pods that nothing else says anything of.
    #[arg(long, env = "THERMOCLINE_DEFAULT_POLICY", value_name = "NAME")]
    pub default_policy: Option<String>,
    /// What the floors in DRAM of a namespace's pods may sum to, where its annotation thermocline.io/dram-floor-quota says nothing.
    /// Default: no limit.
    #[arg(long, env = "THERMOCLINE_FLOOR_QUOTA", value_name = "AMOUNT")]
    pub floor_quota: Option<api::Quantity>,
    /// Where to serve /metrics, /healthz, /readyz and /debug.
    #[arg(long, default_value = "0.0.0.0:9465", value_name = "ADDRESS")]
    pub http_address: SocketAddr,
    /// The namespace of the lease: its holder writes.
    #[arg(long, env = "POD_NAMESPACE", default_value = "thermocline-system", value_name = "NAMESPACE")]
    pub lease_namespace: String,
    /// The `ClusterRole` that `NodeTiering`s are to go with: Kubernetes removes them when it is gone. Default: each goes with its node.
    #[arg(long, env = "THERMOCLINE_OWNER_ROLE", value_name = "NAME")]
    pub owner_role: Option<String>,
    /// Label each node by the fastest memory slower than DRAM that its agent found, as in `thermocline.io/slow-tier=cxl`. Takes the right to
    /// patch nodes.
    #[arg(long, env = "THERMOCLINE_SLOW_TIER_LABEL")]
    pub slow_tier_label: bool,
    /// The name of this replica, which no other has. Default: the host's name and the process id.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// How to reach the cluster. Default: the service account of the pod, or the usual kubeconfig.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Form of log lines.
    #[arg(long, env = "THERMOCLINE_LOG_FORMAT", default_value = "auto", value_enum, help_heading = "Logs")]
    pub log_format: telemetry::LogFormat,
    /// Least level: error, warn, info, debug, trace; also per module, as in `info,controller::lease=debug`.
    #[arg(
        long,
        env = "THERMOCLINE_LOG",
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub log_level: String,
}

impl Args {
    /// An empty index of the cluster.
    #[must_use]
    pub fn index(&self) -> Index {
        let quota = self.floor_quota.map(|quota| quota.0);
        Index::new(self.default_policy.as_deref()).with_floor_quota(quota)
    }
}

/// A pod by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

fn pod(text: &str) -> Result<PodName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(PodName { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("write NAMESPACE/POD, for example shop/web-0".to_owned()),
    }
}

/// Form of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    /// The chart's `controller.extraArgs` come after what the chart sets.
    #[test]
    fn the_last_of_a_flag_given_twice_counts() {
        let line = "thermocline-controller --log-level=info --default-policy=observe --log-level=debug --once --once --default-policy=x";
        let args = Args::try_parse_from(line.split(' ')).unwrap();
        assert!(Args::try_parse_from(["thermocline-controller", "--explain", "web"]).is_err());
        let explain =
            Args::try_parse_from(["thermocline-controller", "--explain", "shop/web"]).unwrap().explain;
        assert_eq!(explain, Some(PodName { namespace: "shop".to_owned(), name: "web".to_owned() }));
        assert_eq!((args.log_level.as_str(), args.default_policy.as_deref()), ("debug", Some("x")));
    }
}
