//! Every request that an API server was sent, as its own audit log has it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The audit log of one server. To be kept as long as the server runs.
pub struct RequestLog {
    dir: TempDir,
}

/// One request of the log.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was asked for: `get`, `list`, `watch`, `create`, `patch` and so on.
    pub verb: String,
    /// The resource with its group and subresource, as RBAC's rules and [`Request::right`] have it.
    pub resource: String,
    /// With its query.
    pub uri: String,
    /// The status of the answer; of a watch, of its beginning.
    pub code: i64,
    /// When it came.
    pub at: Timestamp,
}

impl Request {
    /// The right that it took, as in `patch nodetierings.thermocline.io/status`.
    #[must_use]
    pub fn right(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

impl RequestLog {
    /// A log that is empty so far.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn new() -> Result<Self> {
        let dir = TempDir::with_prefix("thermocline-audit-")?;
        let policy = json!({
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            // A watch is told of when it begins, anything else when it was answered.
            "omitStages": ["RequestReceived"],
            "rules": [{ "level": "Metadata" }],
        });
        std::fs::write(dir.path().join("policy.json"), policy.to_string())?;
        Ok(Self { dir })
    }

    /// What the server is to be started with, see [`ApiServer::start_with`](crate::ApiServer::start_with).
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        vec![
            format!("--audit-policy-file={}", file("policy.json")),
            format!("--audit-log-path={}", file("audit.log")),
        ]
    }

    /// What a service account has asked for so far, in the order of the answers.
    ///
    /// # Errors
    /// When the log is not as Kubernetes writes it.
    pub fn of(&self, namespace: &str, account: &str) -> Result<Vec<Request>> {
        let text = match std::fs::read_to_string(self.dir.path().join("audit.log")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let user = format!("system:serviceaccount:{namespace}:{account}");
        let mut seen = BTreeSet::new();
        let mut requests = Vec::new();
        // The last line may be half written.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let event: Value = serde_json::from_str(line)?;
            // A watch has an event at its beginning and one at its end.
            if event["user"]["username"] == user.as_str() && seen.insert(event["auditID"].to_string()) {
                requests.push(request(&event).with_context(|| line.to_owned())?);
            }
        }
        Ok(requests)
    }
}

fn request(event: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let reference = &event["objectRef"];
    let mut resource = text(&reference["resource"]).unwrap_or_default();
    if let Some(group) = reference["apiGroup"].as_str() {
        resource = format!("{resource}.{group}");
    }
    if let Some(subresource) = reference["subresource"].as_str() {
        resource = format!("{resource}/{subresource}");
    }
    Some(Request {
        verb: text(&event["verb"])?,
        resource,
        uri: text(&event["requestURI"])?,
        code: event["responseStatus"]["code"].as_i64()?,
        at: event["requestReceivedTimestamp"].as_str()?.parse().ok()?,
    })
}
