use api::{PolicySpec, TieringPolicyStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A `TieringPolicy` as far as this version knows it: an API server may have filled in fields of a newer one.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = api::TieringPolicy)]
pub struct Policy {
    /// Name, uid and generation.
    #[serde(deserialize_with = "super::thin_metadata")]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default, deserialize_with = "api::lenient::field")]
    pub spec: PolicySpec,
    #[serde(default, deserialize_with = "as_far_as_it_is_known")]
    status: TieringPolicyStatus,
}

/// A status that can't be read is written anew.
fn as_far_as_it_is_known<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<TieringPolicyStatus, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

impl From<Policy> for api::TieringPolicy {
    fn from(policy: Policy) -> Self {
        let Policy { metadata, spec, status } = policy;
        Self { metadata, spec, status: Some(status) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_of_a_newer_version_make_no_policy_unreadable() {
        let policy = |spec: Value, status: Value| {
            serde_json::from_value::<Policy>(
                json!({ "metadata": { "name": "p" }, "spec": spec, "status": status }),
            )
        };
        let read = policy(
            json!({ "demote": { "after": "5m", "grace": "5s" }, "new": 1 }),
            json!({ "matchedPods": "many" }),
        );
        let read = api::TieringPolicy::from(read.unwrap());
        assert_eq!(read.spec, serde_json::from_value(json!({ "demote": { "after": "5m" } })).unwrap());
        assert_eq!(read.status, Some(TieringPolicyStatus::default()));
        assert!(policy(json!({ "mode": "Guess" }), json!({})).is_err());
    }
}
