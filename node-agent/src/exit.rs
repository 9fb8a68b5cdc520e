//! How a command ends: a number for scripts, words and a remedy for people.

use std::fmt;
use std::process;

use crate::config::ConfigError;
use crate::state::StateError;

/// What the process returns. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Success = 0,
    /// Something nobody foresaw.
    Unexpected = 1,
    /// Wrong arguments, or a configuration that is not valid.
    Usage = 2,
    /// The user may not do this.
    NotPermitted = 3,
    /// No cgroup v2 hierarchy at the cgroup root.
    NoCgroup2 = 4,
    /// The cgroup hierarchy has no memory controller.
    NoMemoryController = 5,
    /// No memory node is slower than another.
    NoLowerTier = 6,
    /// Original values cannot be kept.
    StateNotWritable = 7,
    /// Another agent manages this host.
    AlreadyRunning = 8,
    /// Some original values could not be put back.
    RestoreIncomplete = 9,
}

impl ExitCode {
    /// All of them, for documentation.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::Unexpected,
        Self::Usage,
        Self::NotPermitted,
        Self::NoCgroup2,
        Self::NoMemoryController,
        Self::NoLowerTier,
        Self::StateNotWritable,
        Self::AlreadyRunning,
        Self::RestoreIncomplete,
    ];

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unexpected => "unexpected failure",
            Self::Usage => "wrong arguments or invalid configuration",
            Self::NotPermitted => "not permitted",
            Self::NoCgroup2 => "no cgroup v2 hierarchy",
            Self::NoMemoryController => "no memory controller",
            Self::NoLowerTier => "no slower memory tier",
            Self::StateNotWritable => "the state file cannot be written or understood",
            Self::AlreadyRunning => "another agent is running",
            Self::RestoreIncomplete => "not everything could be put back",
        }
    }

    /// What to do about it; empty where the message says all.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Success | Self::Usage => "",
            Self::Unexpected => "run again with --log-level debug and report what it says",
            Self::NotPermitted => {
                "run as root; in a container, as root with CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and \
                 CAP_DAC_OVERRIDE, and with the host's /sys/fs/cgroup, /sys and debugfs mounted"
            }
            Self::NoCgroup2 => {
                "mount it (mount -t cgroup2 none /sys/fs/cgroup), boot with systemd.unified_cgroup_hierarchy=1, or say \
                 where it is with --cgroup-root"
            }
            Self::NoMemoryController => {
                "boot without cgroup_disable=memory, and see that `memory` is in cgroup.controllers of the root and in \
                 cgroup.subtree_control above the managed cgroups"
            }
            Self::NoLowerTier => {
                "nothing can be demoted here; `thermocline-agent observe` still shows what is cold, `thermocline-agent \
                 probe` what the kernel says of its memory nodes, and `tiers` in the configuration names slower nodes \
                 where the kernel does not know them"
            }
            Self::StateNotWritable => {
                "nothing was changed, because nothing could be put back; see to the file that is named above, or name \
                 another with `stateFile`"
            }
            Self::AlreadyRunning => "stop it first (systemctl stop thermocline-agent)",
            Self::RestoreIncomplete => {
                "the state file is kept: see to what is named above and run `thermocline-agent restore` again"
            }
        }
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// A command that did not do what it should: what happened, and by its code what to do.
#[derive(Debug)]
pub struct Failure {
    /// How to end.
    pub code: ExitCode,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match self.code.remedy() {
            "" => Ok(()),
            remedy => write!(f, "\n  to do: {remedy}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(ExitCode::Usage, error.to_string())
    }
}

/// A state file that can't be written ends the agent: without it nothing could be put back.
impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let code = match error {
            StateError::Held { .. } => ExitCode::AlreadyRunning,
            StateError::Io { .. } | StateError::Unreadable { .. } => ExitCode::StateNotWritable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(ExitCode::Unexpected, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_consecutive_and_every_failure_says_what_to_do() {
        for (i, code) in ExitCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), i);
            assert_eq!(
                code.remedy().is_empty(),
                matches!(code, ExitCode::Success | ExitCode::Usage),
                "{code:?}"
            );
        }
    }

    #[test]
    fn the_documentation_has_every_code() {
        let page = include_str!("../../docs/configuration.md");
        for code in ExitCode::ALL {
            let row = format!("\n| {} | {} |", code.number(), code.meaning());
            assert!(page.contains(&row), "docs/configuration.md lacks {row:?}");
        }
    }

    #[test]
    fn a_failure_shows_what_happened_and_what_to_do() {
        let failure = Failure::new(ExitCode::AlreadyRunning, "/run/thermocline/state is locked by pid 42");
        assert_eq!(
            failure.to_string(),
            "/run/thermocline/state is locked by pid 42\n  to do: stop it first (systemctl stop thermocline-agent)"
        );
    }
}
