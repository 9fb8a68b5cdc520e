//! An API server with the chart on it.

use anyhow::Result;
use kube::Client;
use manifest_tests::NAMESPACE;
use serde_json::Value;

use crate::{Access, ApiServer, Etcd, RequestLog, eventually, install_chart};

/// etcd and kube-apiserver with the chart as rendered by default. Nothing runs in it: who is started against it has the rights
/// that the chart gives.
pub struct Cluster {
    /// The API server. Dropped before its store.
    pub server: ApiServer,
    /// Its store.
    pub etcd: Etcd,
    /// Every request.
    pub requests: RequestLog,
    /// What was installed.
    pub chart: Vec<Value>,
}

impl Cluster {
    /// Starts one.
    ///
    /// # Errors
    /// When a server does not get ready, or refuses a part of the chart.
    pub async fn start() -> Result<Self> {
        let requests = RequestLog::new()?;
        let etcd = Etcd::start().await?;
        let server = ApiServer::start_with(&etcd, &[], &requests.arguments()).await?;
        let chart = install_chart(&server.administrator().client().await?, &[]).await?;
        Ok(Self { server, etcd, requests, chart })
    }

    /// The administrator's client.
    ///
    /// # Errors
    /// When the client library refuses.
    pub async fn administrator(&self) -> Result<Client> {
        self.server.administrator().client().await
    }

    /// The account of a node's agent, once its rights are in force. The admission policy of the chart lets it write for that node alone,
    /// where the server has such policies.
    ///
    /// # Errors
    /// When they are never.
    pub async fn agent(&self, node: &str) -> Result<Access> {
        let access = self.server.pod_of_account(NAMESPACE, "thermocline-agent", node).await?;
        in_force(&access, "nodetierings").await?;
        Ok(access)
    }

    /// The controller's account, once its rights are in force.
    ///
    /// # Errors
    /// When they are never.
    pub async fn controller(&self) -> Result<Access> {
        let access = self.server.service_account(NAMESPACE, "thermocline-controller").await?;
        in_force(&access, "tieringpolicies").await?;
        Ok(access)
    }
}

/// Rights reach the authorizer through a watch of its own.
async fn in_force(access: &Access, plural: &str) -> Result<()> {
    let client = access.client().await?;
    eventually("the account has its rights", async || {
        let list = format!("/apis/thermocline.io/v1alpha1/{plural}?limit=1");
        Ok(client.request_text(http::Request::get(list).body(Vec::new())?).await.ok())
    })
    .await
    .map(|_| ())
}
