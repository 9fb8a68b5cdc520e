//! How a command ends: a number for scripts, words and a remedy for people.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::process;

use host::cgroup::Absence;

use crate::config::ConfigError;
use crate::http::ServeError;
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
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// Why a command did not do what it should. Each has one exit code, and one remedy that is right for it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody foresaw it.
    Unforeseen,
    /// The message says all: wrong arguments, a configuration, an address to listen on that is not to be had.
    Told(ExitCode),
    /// The user is not root, or a container lacks a capability.
    NotPermitted,
    /// No cgroup v2.
    NoCgroup2,
    /// The cgroup hierarchy has no memory controller.
    NoMemoryController(Absence),
    /// No memory node is slower than another.
    NoLowerTier,
    /// Original values cannot be kept.
    StateNotWritable,
    /// Another agent holds the state file.
    AlreadyRunning,
    /// Some original values could not be put back.
    RestoreIncomplete,
}

impl Cause {
    /// How to end.
    #[must_use]
    pub const fn code(&self) -> ExitCode {
        match self {
            Self::Unforeseen => ExitCode::Unexpected,
            Self::Told(code) => *code,
            Self::NotPermitted => ExitCode::NotPermitted,
            Self::NoCgroup2 => ExitCode::NoCgroup2,
            Self::NoMemoryController(_) => ExitCode::NoMemoryController,
            Self::NoLowerTier => ExitCode::NoLowerTier,
            Self::StateNotWritable => ExitCode::StateNotWritable,
            Self::AlreadyRunning => ExitCode::AlreadyRunning,
            Self::RestoreIncomplete => ExitCode::RestoreIncomplete,
        }
    }

    /// What to do about it; empty where the message says all.
    #[must_use]
    pub fn remedy(&self) -> Cow<'static, str> {
        match self {
            Self::Told(_) => "".into(),
            Self::Unforeseen => "run again with --log-level debug and report what it says".into(),
            Self::NotPermitted => {
                "run as root; in a container, as root with CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and \
                 CAP_DAC_OVERRIDE, and with the host's /sys/fs/cgroup, /sys and debugfs mounted"
                    .into()
            }
            Self::NoCgroup2 => {
                "mount it (mount -t cgroup2 none /sys/fs/cgroup), boot with systemd.unified_cgroup_hierarchy=1, or say \
                 where it is with --cgroup-root"
                    .into()
            }
            Self::NoMemoryController(absence) => absence.remedy("memory").into(),
            Self::NoLowerTier => {
                "this is not about a host without slow memory, which `run` waits for; `thermocline-agent probe` says what the kernel tells of \
                 its memory nodes, and `tiers` in the configuration must name what has CPUs"
                    .into()
            }
            Self::StateNotWritable => {
                "nothing was changed, because nothing could be put back; make its directory writable, or name another file with \
                 `stateFile`"
                    .into()
            }
            Self::AlreadyRunning => "stop it first (systemctl stop thermocline-agent)".into(),
            Self::RestoreIncomplete => {
                "the state file is kept: see to what is named above and run `thermocline-agent restore` again".into()
            }
        }
    }
}

impl From<ExitCode> for Cause {
    fn from(code: ExitCode) -> Self {
        match code {
            ExitCode::Unexpected => Self::Unforeseen,
            ExitCode::NotPermitted => Self::NotPermitted,
            ExitCode::NoCgroup2 => Self::NoCgroup2,
            ExitCode::NoMemoryController => Self::NoMemoryController(Absence::NotPassedOn),
            ExitCode::NoLowerTier => Self::NoLowerTier,
            ExitCode::StateNotWritable => Self::StateNotWritable,
            ExitCode::AlreadyRunning => Self::AlreadyRunning,
            ExitCode::RestoreIncomplete => Self::RestoreIncomplete,
            ExitCode::Success | ExitCode::Usage => Self::Told(code),
        }
    }
}

/// A command that did not do what it should: what happened, and by its cause what to do.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(cause: impl Into<Cause>, message: impl Into<String>) -> Self {
        Self { cause: cause.into(), message: message.into() }
    }

    /// How to end.
    #[must_use]
    pub const fn code(&self) -> ExitCode {
        self.cause.code()
    }
}

/// What came of writing to standard output. A reader who has seen enough (`| head`) is no failure.
pub fn printed(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // A disk that is full, as a rule.
            let message = format!("cannot write to standard output: {error}");
            Err(Failure::new(Cause::Told(ExitCode::Unexpected), message))
        }
        _ => Ok(()),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &*self.cause.remedy() {
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
        let cause = match error {
            StateError::Held { .. } => Cause::AlreadyRunning,
            StateError::Io { .. } => Cause::StateNotWritable,
            // Another state file would leave what this one holds unrestored.
            StateError::Unreadable { .. } => Cause::Told(ExitCode::StateNotWritable),
        };
        Self::new(cause, error.to_string())
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = match error {
            ServeError::Bind { .. } => ExitCode::Usage,
            ServeError::Thread(_) | ServeError::Metrics(_) => ExitCode::Unexpected,
        };
        Self::new(Cause::Told(code), error.to_string())
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
            assert_eq!(Cause::from(code).code(), code);
            assert_eq!(
                Cause::from(code).remedy().is_empty(),
                matches!(code, ExitCode::Success | ExitCode::Usage),
                "{code:?}"
            );
        }
    }

    #[test]
    fn no_remedy_repeats_what_the_message_says_already() {
        let failure = Failure::from(StateError::Held { path: "/run/thermocline/state.lock".into() });
        assert_eq!(failure.to_string().matches("stop it first").count(), 1, "{failure}");
    }

    #[test]
    fn a_reader_who_has_seen_enough_is_no_failure() {
        assert!(printed(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let failure = printed(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(!failure.to_string().contains("report"), "{failure}");
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
