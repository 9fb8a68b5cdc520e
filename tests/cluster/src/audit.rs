//! What was written to an API server, by whom, in which order: its audit log.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::write_private;

/// The audit log of one API server: every write of some users, complete when the server has answered it.
pub struct AuditLog {
    dir: TempDir,
}

/// A write that the server answered, whether or not it changed anything.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who wrote.
    pub user: String,
    /// `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// For example `nodetierings`, or `nodetierings/status`.
    pub resource: String,
    /// The namespace; empty where the object has none.
    pub namespace: String,
    /// The object's name; empty where the server made it.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
    /// What was sent.
    pub body: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    request_object: Value,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl AuditLog {
    /// One of what these users write. For a server that is started with [`Self::arguments`].
    ///
    /// # Errors
    /// When its policy cannot be written.
    pub fn of(users: &[&str]) -> Result<Self> {
        let log = Self { dir: TempDir::with_prefix("thermocline-audit-")? };
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [
                { "level": "Request", "users": users, "verbs": ["create", "update", "patch", "delete", "deletecollection"] },
                { "level": "None" },
            ],
        });
        write_private(&log.policy(), &policy.to_string())?;
        Ok(log)
    }

    /// What makes a server write it. It is written before the server answers.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--audit-policy-file={}", self.policy().display()),
            format!("--audit-log-path={}", self.file().display()),
            "--audit-log-mode=blocking-strict".to_owned(),
        ]
    }

    /// All writes so far that were answered, in the order of the answers.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes(&self) -> Result<Vec<Write>> {
        let text = match std::fs::read_to_string(self.file()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // What follows the last line feed is still being written.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let lines = complete.lines().map(|line| {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("the audit log says {line}"))?;
            let ObjectRef { resource, subresource, namespace, name } = line.object_ref;
            Ok(Write {
                user: line.user.username,
                verb: line.verb,
                resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
                namespace,
                name,
                code: line.response_status.code,
                body: line.request_object,
            })
        });
        lines.collect()
    }

    fn policy(&self) -> PathBuf {
        self.dir.path().join("policy.json")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }
}
