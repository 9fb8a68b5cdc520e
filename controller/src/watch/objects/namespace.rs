use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// A namespace: its labels, and the annotations that are read.
#[derive(Clone, Debug, Default, Deserialize, Resource)]
#[resource(inherit = v1::Namespace)]
pub struct Namespace {
    /// All there is to it.
    #[serde(deserialize_with = "super::thin_metadata")]
    pub metadata: ObjectMeta,
}
