//! How the process ends: a number for scripts, words and a remedy for people.

use std::fmt;

use crate::watch::with_causes;

/// What the process returns. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Something nobody foresaw.
    Unexpected = 1,
    /// Wrong arguments.
    Usage = 2,
    /// A right is missing.
    Forbidden = 3,
    /// No cluster to talk to.
    NoCluster = 4,
    /// The definitions of our objects are not installed.
    NotInstalled = 5,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

impl ExitCode {
    /// What to do about it; empty where the message says all.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Unexpected => "run again with --log-level debug and report what it says",
            Self::Usage => "",
            Self::Forbidden => {
                "give its service account the rights of the chart's ClusterRole; `kubectl auth can-i --list` shows what it has"
            }
            Self::NoCluster => {
                "in a pod, mount its service account's token; elsewhere name a kubeconfig that works with kubectl: --kubeconfig FILE"
            }
            Self::NotInstalled => "install the chart first: helm install thermocline charts/thermocline",
        }
    }
}

/// Why the process ends before it was asked to.
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

    /// What it means that objects could not be listed.
    #[must_use]
    pub fn of_list(plural: &str, error: &kube::Error) -> Self {
        let message = with_causes(error);
        match error {
            kube::Error::Api(status) if status.code == 403 => {
                Self::new(ExitCode::Forbidden, format!("may not list {plural}: {message}"))
            }
            kube::Error::Api(status) if status.code == 404 => {
                // The server's own words would only be those of a page that is not found.
                Self::new(ExitCode::NotInstalled, format!("the cluster knows no {plural}"))
            }
            kube::Error::Api(status) if status.code == 401 => {
                Self::new(ExitCode::NoCluster, format!("the cluster does not know us: {message}"))
            }
            kube::Error::Api(_) => {
                Self::new(ExitCode::Unexpected, format!("cannot list {plural}: {message}"))
            }
            _ => Self::new(ExitCode::NoCluster, format!("cannot list {plural}: {message}")),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_our_definitions_is_named_in_words_with_what_to_do() {
        let status =
            kube::core::Status::failure("404 page not found\n", "Failed to parse error data").with_code(404);
        let failure = Failure::of_list("tieringpolicies", &kube::Error::Api(Box::new(status)));
        assert_eq!(failure.code as u8, 5);
        assert_eq!(
            failure.to_string(),
            "the cluster knows no tieringpolicies\n  to do: install the chart first: helm install thermocline charts/thermocline"
        );
    }
}
