//! The store behind the API servers.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Access;
use crate::server::Server;

/// A single etcd on loopback. It never syncs to disk: a test's data need not survive the machine.
pub struct Etcd(Server);

impl Etcd {
    /// Starts one with nothing in it.
    ///
    /// # Errors
    /// When the binary is missing or does not get ready.
    pub async fn start() -> Result<Self> {
        let dir = TempDir::with_prefix("thermocline-etcd-")?;
        let on_port = |port, dir: &Path| {
            let url = format!("http://127.0.0.1:{port}");
            let arguments = vec![
                format!("--data-dir={}", dir.join("data").display()),
                "--unsafe-no-fsync=true".to_owned(),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                // It has no peers, so any port will do.
                "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            ];
            Ok((arguments, Access::open(port)))
        };
        Ok(Self(Server::start("etcd", dir, "/health", on_port).await?))
    }

    /// Where API servers find it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address())
    }

    /// Puts objects where an API server looks for them, all at once, at most 128; keys as `/registry/pods/NAMESPACE/NAME`. They are as
    /// the server would have left them: nothing is checked, nothing gets a default.
    ///
    /// # Errors
    /// When etcd refuses them.
    pub async fn store(&self, objects: &[(String, Value)]) -> Result<()> {
        let put = |(key, object): &(String, Value)| {
            let value = STANDARD.encode(object.to_string());
            json!({ "requestPut": { "key": STANDARD.encode(key), "value": value } })
        };
        let puts: Vec<_> = objects.iter().map(put).collect();
        let answer = self.post("/v3/kv/txn", &json!({ "success": puts })).await?;
        ensure!(answer["succeeded"] == true, "etcd has not stored the objects: {answer}");
        Ok(())
    }

    /// How many objects there are below a key, and how many bytes they are together.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn sizes(&self, below: &str) -> Result<(usize, usize)> {
        let mut end = below.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({ "key": STANDARD.encode(below), "range_end": STANDARD.encode(end) });
        let answer = self.post("/v3/kv/range", &range).await?;
        let values = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bytes = |value: &Value| {
            value["value"].as_str().map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4)
        };
        Ok((values.len(), values.iter().map(bytes).sum()))
    }

    /// Bytes of all keys and values that were put since it started.
    ///
    /// # Errors
    /// When etcd does not answer, or does not count them.
    pub async fn bytes_put(&self) -> Result<f64> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = self.0.access().client().await?.request_text(request).await?;
        let line =
            text.lines().find(|line| !line.starts_with('#') && line.contains("mvcc_total_put_size_in_bytes"));
        let value = line.and_then(|line| line.rsplit_once(' ')).context("etcd does not count bytes")?.1;
        Ok(value.parse()?)
    }

    /// Forgets every revision but the last: a watch or a paged list that goes on from an older one is answered with 410,
    /// by an API server that has not the newer ones in its own cache (restart it).
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn compact(&self) -> Result<()> {
        let range = self.post("/v3/kv/range", &json!({ "key": "AA==" })).await?;
        let revision = range["header"]["revision"].as_str().context("etcd's answer has no revision")?;
        let physical = json!({ "revision": revision, "physical": true });
        self.post("/v3/kv/compaction", &physical).await?;
        Ok(())
    }

    /// Ends it at once, as a crash would. Its data stays.
    pub fn kill(&mut self) {
        self.0.kill();
    }

    /// Starts it again with its data, having killed it if it still ran.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.0.restart().await
    }

    /// Calls etcd's JSON gateway.
    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = http::Request::post(path).body(serde_json::to_vec(body)?)?;
        Ok(self.0.access().client().await?.request(request).await?)
    }
}
