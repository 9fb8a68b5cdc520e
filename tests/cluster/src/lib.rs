//! Real API servers for tests: etcd, kube-apiserver, and crdserver, a newer server of custom resources alone.
//!
//! Which behaviour is shown on which server, and what each lacks: docs/decisions/api-servers-in-tests.md.
#![forbid(unsafe_code)]

mod access;
mod agent;
mod api_server;
mod apply;
mod audit;
mod certificates;
mod chart;
mod cluster;
mod control_plane;
mod crd_server;
mod current;
mod etcd;
mod eventually;
mod node_tree;
mod process;
mod proxy;
mod request_log;
mod server;

pub use access::Access;
pub use agent::Agent;
pub use api_server::{ApiServer, User};
pub use apply::{apply, install_crds};
pub use audit::{AuditLog, Write};
pub use chart::install_chart;
pub use cluster::Cluster;
pub use control_plane::ControlPlane;
pub use crd_server::CrdServer;
pub use current::{is_at_least, not_run};
pub use etcd::Etcd;
pub use eventually::{PATIENCE, eventually};
pub use node_tree::{Driver, NodeTree};
pub use process::{Process, free_port, server_binary, tool};
pub use proxy::Proxy;
pub use request_log::{Request, RequestLog};
