//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::config::DEFAULT_STATE_FILE;
use api::WireDuration;
use telemetry::LogFormat;
use tiering::EngineChoice;

const AFTER_HELP: &str = "\
Examples:
  thermocline-agent probe                          what this kernel allows
  thermocline-agent observe '/system.slice/*'      what is cold; changes no cgroup
  thermocline-agent status                         what the running agent sees and does
  thermocline-agent explain CGROUP                 why it does that with one cgroup, and what to change
  thermocline-agent report                         what a day of it saved and would save, and a policy to paste
  thermocline-agent check agent.yaml               what a configuration would do
  thermocline-agent run --config agent.yaml        do it
  thermocline-agent restore                        put everything back

Exit codes: 0 success, 1 unexpected failure, 2 wrong arguments or invalid configuration, 3 not permitted,
4 no cgroup v2, 5 no memory controller, 6 no slower memory tier, 7 state file not writable,
8 another agent is running, 9 not everything could be put back";

/// Keeps cold anonymous memory of cgroups on slow memory and hot memory in DRAM.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "thermocline-agent",
    version,
    after_help = AFTER_HELP,
    max_term_width = 110,
    args_override_self = true
)]
pub struct Args {
    /// Where the host is.
    #[command(flatten)]
    pub host: HostArgs,
    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the kernel's file systems are mounted.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Host")]
pub struct HostArgs {
    /// Mount point of cgroup v2.
    #[arg(
        long,
        global = true,
        env = "THERMOCLINE_CGROUP_ROOT",
        default_value = "/sys/fs/cgroup",
        value_name = "DIR"
    )]
    pub cgroup_root: PathBuf,
    /// Mount point of sysfs.
    #[arg(long, global = true, env = "THERMOCLINE_SYSFS_ROOT", default_value = "/sys", value_name = "DIR")]
    pub sysfs_root: PathBuf,
    /// Mount point of procfs.
    #[arg(long, global = true, env = "THERMOCLINE_PROC_ROOT", default_value = "/proc", value_name = "DIR")]
    pub proc_root: PathBuf,
    /// Mount point of debugfs.
    #[arg(
        long,
        global = true,
        env = "THERMOCLINE_DEBUGFS_ROOT",
        default_value = "/sys/kernel/debug",
        value_name = "DIR"
    )]
    pub debugfs_root: PathBuf,
}

/// How to log. Logs go to standard error.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Form of log lines.
    #[arg(long, global = true, env = "THERMOCLINE_LOG_FORMAT", default_value = "auto", value_enum)]
    pub log_format: LogFormat,
    /// Least level: error, warn, info, debug, trace; also per module, as in `info,node_agent::engine=debug`.
    #[arg(long, global = true, env = "THERMOCLINE_LOG", default_value = "info", value_name = "FILTER")]
    pub log_level: String,
}

/// Form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Manage the cgroups that a configuration names, until told to stop.
    #[command(
        long_about = "Manage the cgroups that a configuration names, or with --kubernetes the pods that the controller \
                      assigns to this node, until told to stop.\n\nThe file is read again when it changes and on SIGHUP; \
                      one that is not valid changes nothing. On SIGTERM and SIGINT all original values are put back.\n\n\
                      In a cluster, what was last assigned is kept beside the state file and carried out while the API \
                      server is away.",
        after_help = "Examples:\n  thermocline-agent run --config /etc/thermocline/agent.yaml\n  thermocline-agent run \
                      --kubernetes --node-name node-7"
    )]
    Run(RunArgs),
    /// Show what is cold; writes to no cgroup.
    #[command(
        long_about = "Show what is cold: memory by tier and age of each cgroup, and what a policy would free.\n\nNothing \
                      is written to any cgroup, and nothing is moved. Reading ages does clear the accessed bits of \
                      pages: other tools that rely on them see less for a while.\n\nWhere an agent runs already, it is asked: \
                      two would spoil each other's ages. Then its policies say what is cold.",
        after_help = "Examples:\n  thermocline-agent observe\n  thermocline-agent observe '/kubepods.slice/**' --once \
                      --output json\n  thermocline-agent observe '/system.slice/*' --after 10m --interval 30s"
    )]
    Observe(ObserveArgs),
    /// Show what the running agent sees, does and saves.
    #[command(
        long_about = "Show what the running agent sees, does and saves, live: keys are named below the picture. Without a \
                      terminal, or with --once, a table.\n\nThe agent is asked over its socket beside the state file; no \
                      page table is walked for it.",
        after_help = "Examples:\n  thermocline-agent status\n  thermocline-agent status --output json\n  kubectl exec -n \
                      thermocline-system POD -- /thermocline-agent status --once"
    )]
    Status(StatusArgs),
    /// Say in plain words what the running agent does with one cgroup or pod, why, and what to change.
    #[command(
        after_help = "Examples:\n  thermocline-agent explain /system.slice/postgresql.service\n  thermocline-agent explain \
                      NAMESPACE/POD"
    )]
    Explain(ExplainArgs),
    /// Say what a day's record tells of savings, and which policy follows from it.
    #[command(
        long_about = "Say what a day's record tells of savings, and which policy follows from it: memory by tier over time, cold \
                      bytes by age, what would be kept out of DRAM at several ages and floors, and a policy to paste.\n\nAn agent \
                      that runs keeps the record beside its state file, with a sample every five minutes; no agent has to run for the \
                      report.",
        after_help = "Examples:\n  thermocline-agent report\n  thermocline-agent report --price dram=4.20,slow=1.50\n  \
                      thermocline-agent report --output html > report.html\n  kubectl exec -n thermocline-system POD -- \
                      /thermocline-agent report --output markdown"
    )]
    Report(ReportArgs),
    /// Put back everything that an agent changed.
    #[command(
        long_about = "Put back everything that an agent changed and did not put back itself, because it was killed or \
                      the host went down with it. Does nothing where there is nothing to put back; refuses while an \
                      agent is running.",
        after_help = "Example:\n  thermocline-agent restore"
    )]
    Restore(RestoreArgs),
    /// Say what a configuration would do, or what is wrong with it.
    #[command(after_help = "Example:\n  thermocline-agent check /etc/thermocline/agent.yaml")]
    Check(CheckArgs),
    /// Say what this kernel and these mounts allow, and what is missing.
    #[command(after_help = "Examples:\n  thermocline-agent probe\n  thermocline-agent probe --output json")]
    Probe(ProbeArgs),
    /// Print what completes this command line in a shell.
    #[command(after_help = "Example:\n  thermocline-agent completions bash > \
                            /usr/share/bash-completion/completions/thermocline-agent")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(after_help = "Example:\n  thermocline-agent man > /usr/share/man/man8/thermocline-agent.8")]
    Man,
    /// Print the seccomp profile that the agent needs in a container, or install it on a node.
    #[command(
        long_about = "Print the seccomp profile that the agent needs in a container, or install it on a node.\n\nThe \
                      profiles that container runtimes have by default refuse move_pages(2).",
        after_help = "Example:\n  thermocline-agent seccomp --install /var/lib/kubelet/seccomp/thermocline/agent.json"
    )]
    Seccomp(SeccompArgs),
}

/// Where the configuration is unless the command line says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/thermocline/agent.yaml";

/// Arguments of `run`.
#[derive(Clone, Debug, ClapArgs)]
pub struct RunArgs {
    /// The configuration [default: /etc/thermocline/agent.yaml; with --kubernetes none is needed].
    #[arg(long, env = "THERMOCLINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Manage the pods that the controller assigns to this node. The configuration has settings of the node only.
    #[arg(long)]
    pub kubernetes: bool,
    /// With `--kubernetes`: which node, and how to reach its cluster.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Arguments of `run --kubernetes`.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Kubernetes")]
pub struct NodeArgs {
    /// This node's name, as its Node object has it.
    #[arg(long, env = "NODE_NAME", requires = "kubernetes", value_name = "NAME")]
    pub node_name: Option<String>,
    /// How to reach the API server, outside of a pod.
    #[arg(long, requires = "kubernetes", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Least time between two writes of the status.
    #[arg(long, requires = "kubernetes", default_value = "10s", value_name = "DURATION")]
    pub status_interval: WireDuration,
}

/// Arguments of `observe`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ObserveArgs {
    /// Cgroups, as a path below the cgroup mount with * for any name and ** for any depth.
    #[arg(default_value = "/**", value_name = "GLOB")]
    pub glob: String,
    /// Show one picture and end: after the second look, since ages need two.
    #[arg(long)]
    pub once: bool,
    /// Where the agent is that is asked if one runs.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Form of the picture.
    #[arg(long, default_value = "table", value_enum, value_name = "FORM")]
    pub output: OutputFormat,
    /// Time between two looks.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = interval)]
    pub interval: WireDuration,
    /// What counts as cold: memory not accessed for this long.
    #[arg(long, default_value = "2m", value_name = "DURATION")]
    pub after: WireDuration,
    /// What tells how old memory is. `pages` works on every kernel, but clears accessed bits process by process, which waits for
    /// their page tables and makes others wait.
    #[arg(long, default_value = "auto", value_enum, value_name = "ENGINE")]
    pub engine: AgeEngine,
}

/// What tells how old memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AgeEngine {
    /// `lru-gen` where the kernel has it.
    Auto,
    /// Generations of the multi-generational LRU.
    LruGen,
    /// Accessed bits of each process's pages.
    Pages,
}

impl From<AgeEngine> for EngineChoice {
    fn from(engine: AgeEngine) -> Self {
        match engine {
            AgeEngine::Auto => Self::Auto,
            AgeEngine::LruGen => Self::LruGen,
            AgeEngine::Pages => Self::Pages,
        }
    }
}

/// Where the running agent is.
#[derive(Clone, Debug, ClapArgs)]
pub struct AgentArgs {
    /// The running agent's state file; its socket is beside it.
    #[arg(long, env = "THERMOCLINE_STATE", default_value = DEFAULT_STATE_FILE, value_name = "FILE")]
    pub state: PathBuf,
}

/// Arguments of `status`.
#[derive(Clone, Debug, ClapArgs)]
pub struct StatusArgs {
    /// Where it is.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Show one picture and end.
    #[arg(long)]
    pub once: bool,
    /// Form of the picture.
    #[arg(long, default_value = "table", value_enum, value_name = "FORM")]
    pub output: OutputFormat,
}

/// Arguments of `explain`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ExplainArgs {
    /// A cgroup's path, a pod as NAMESPACE/NAME, or a part that only one name has.
    #[arg(value_name = "CGROUP|POD")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For terminals.
    Table,
    /// For programs: all numbers and all samples.
    Json,
    /// A line for each cgroup at each time.
    Csv,
    /// For issues and wikis.
    Markdown,
    /// One page with pictures that loads nothing.
    Html,
}

/// Arguments of `report`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ReportArgs {
    /// Where the record is: beside the state file.
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Form of the report.
    #[arg(long, default_value = "table", value_enum, value_name = "FORM")]
    pub output: ReportForm,
    /// What a GiB costs, for savings in money: in any currency, and for any time.
    #[arg(long, value_name = "dram=X,slow=Y")]
    pub price: Option<crate::report::Price>,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, ClapArgs)]
pub struct RestoreArgs {
    /// Where original values are kept.
    #[arg(long, env = "THERMOCLINE_STATE", default_value = DEFAULT_STATE_FILE, value_name = "FILE")]
    pub state: PathBuf,
}

/// Arguments of `check`.
#[derive(Clone, Debug, ClapArgs)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// As `run --kubernetes` reads it.
    #[arg(long)]
    pub kubernetes: bool,
}

/// Arguments of `probe`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ProbeArgs {
    /// Form of the answer.
    #[arg(long, default_value = "table", value_enum, value_name = "FORM")]
    pub output: OutputFormat,
}

/// Arguments of `seccomp`.
#[derive(Clone, Debug, ClapArgs)]
pub struct SeccompArgs {
    /// Write it here, where kubelet or another runtime looks for profiles.
    #[arg(long, value_name = "FILE")]
    pub install: Option<PathBuf>,
}

fn interval(text: &str) -> Result<WireDuration, String> {
    let interval: WireDuration = text.parse().map_err(|error: api::ParseError| error.to_string())?;
    if interval.0 < crate::config::MIN_INTERVAL {
        return Err(format!("{interval} is below {}", WireDuration(crate::config::MIN_INTERVAL)));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn host_and_log_flags_go_before_or_after_the_command() {
        let check = |line: &str| {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.host.cgroup_root, PathBuf::from("/c"));
            assert_eq!(args.log.log_format, LogFormat::Json);
        };
        check("thermocline-agent --cgroup-root /c --log-format json probe");
        check("thermocline-agent probe --cgroup-root /c --log-format json");
    }

    /// The chart's `agent.extraArgs` come after what the chart sets.
    #[test]
    fn the_last_of_a_flag_given_twice_counts() {
        for line in [
            "thermocline-agent run --kubernetes --kubernetes --log-level=info --log-level=debug",
            "thermocline-agent --log-level=info run --status-interval=1s --status-interval=2s --kubernetes --log-level=debug",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.log.log_level, "debug", "{line}");
        }
    }

    #[test]
    fn flags_of_a_cluster_go_with_kubernetes_only() {
        let check = |line: &str, is_right: bool| {
            assert_eq!(Args::try_parse_from(line.split(' ')).is_ok(), is_right, "{line}");
        };
        check("thermocline-agent run --kubernetes --node-name n1 --kubeconfig /k --status-interval 1s", true);
        check("thermocline-agent run --config /c", true);
        check("thermocline-agent run --kubeconfig /k", false);
        check("thermocline-agent run --node-name n1", false);
    }

    #[test]
    fn each_command_of_the_readme_is_understood_and_savings_reason_and_undo_are_among_them() {
        let readme = include_str!("../../README.md");
        let lines =
            readme.lines().map(|line| line.trim_start_matches("sudo ").split('#').next().unwrap_or_default());
        let lines: Vec<&str> = lines.filter(|line| line.starts_with("thermocline-agent ")).collect();
        for line in &lines {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
        for command in ["status", "explain", "restore"] {
            let is_there = |line: &&str| line.split_whitespace().nth(1) == Some(command);
            assert!(lines.iter().any(is_there), "{command}");
        }
        assert!(readme.contains("kubectl annotate pod POD thermocline.io/policy=none"));
    }

    #[test]
    fn a_wrong_duration_says_what_is_right() {
        let check = |line: &str, part: &str| {
            let shown = Args::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(shown.contains(part), "{shown}");
        };
        check("thermocline-agent observe --after 10", "it has no unit");
        check("thermocline-agent observe --interval 10ms", "10ms is below 100ms");
    }
}
