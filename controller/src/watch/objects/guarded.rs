//! One malformed object must not end a watch.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// An object, or why it is none; what it is called is known either way.
///
/// As [`kube::core::DeserializeGuard`], but from the text: that one first makes a tree of the whole object, twice where it fails.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Malformed>);

/// An object that is not as its type says.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// What is wrong with it.
    pub message: String,
    /// What it is called; empty where even that can't be read.
    pub metadata: Box<ObjectMeta>,
    /// What its status says, as it says it.
    pub status: Value,
}

/// What an object is called, and its status, as far as it says, whatever else is wrong with it.
fn known(text: &str) -> (ObjectMeta, Value) {
    let mut object: Value = serde_json::from_str(text).unwrap_or_default();
    let status = object.get_mut("status").map(Value::take).unwrap_or_default();
    (called(&object), status)
}

fn called(object: &Value) -> ObjectMeta {
    let metadata = &object["metadata"];
    let text = |key: &str| metadata[key].as_str().map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: metadata["generation"].as_i64(),
        ..ObjectMeta::default()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(serde_json::from_str(text.get()).map_err(|error| {
            let (metadata, status) = known(text.get());
            Malformed { message: error.to_string(), metadata: Box::new(metadata), status }
        })))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(kind)
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::group(kind)
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::version(kind)
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|malformed| &*malformed.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|malformed| &mut *malformed.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::objects::Pod;
    use kube::ResourceExt as _;
    use kube::core::{ObjectList, WatchEvent};

    const BAD: &str = r#"{ "metadata": { "name": "bad", "namespace": "a", "resourceVersion": "7", "managedFields": [{}] },
                           "spec": { "containers": "none" } }"#;
    const GOOD: &str = r#"{ "metadata": { "name": "good" }, "spec": { "containers": [{ "name": "c" }] } }"#;

    fn outcome(guarded: &Guarded<Pod>) -> (String, bool) {
        (guarded.name_any(), guarded.0.is_ok())
    }

    #[test]
    fn a_list_has_its_malformed_objects_by_name() {
        // Of the last ones not even the metadata is as it should be.
        let worse = r#"{ "metadata": { "name": "worse", "labels": "none", "annotations": [1] } }"#;
        let text = format!(
            r#"{{ "kind": "PodList", "apiVersion": "v1", "metadata": {{}}, "items": [{BAD}, {GOOD}, {worse}, 5, {{}}] }}"#
        );
        let list: ObjectList<Guarded<Pod>> = serde_json::from_str(&text).unwrap();
        assert_eq!(
            list.items.iter().map(outcome).collect::<Vec<_>>(),
            [
                ("bad".into(), false),
                ("good".into(), true),
                ("worse".into(), false),
                (String::new(), false),
                (String::new(), false)
            ]
        );
    }

    #[test]
    fn a_watch_goes_on_after_a_malformed_object() {
        let text = format!(r#"{{ "type": "ADDED", "object": {BAD} }}"#);
        let WatchEvent::Added(guarded) = serde_json::from_str::<WatchEvent<Guarded<Pod>>>(&text).unwrap()
        else {
            panic!("{text}");
        };
        assert_eq!(outcome(&guarded), ("bad".into(), false));
        assert_eq!(guarded.resource_version().as_deref(), Some("7"));
        let message = guarded.0.unwrap_err().to_string();
        assert!(message.contains("expected a sequence"), "{message}");
    }
}
