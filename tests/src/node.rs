//! A Kubernetes node in a guest: what the host provides, and where the guest finds it.

use std::net::Ipv4Addr;

/// The node's name.
pub const NAME: &str = "worker";

/// The namespace of the chart's release.
pub const NAMESPACE: &str = "thermocline-system";

/// The network between the emulator and the guest. It is the one of the cluster's services, too, so that the address by
/// which pods know the API server needs no kube-proxy: the emulator answers there, and nowhere else.
pub const NETWORK: &str = "10.0.0.0/24";
/// The API server, as pods and the kubelet reach it: address and port of the service `kubernetes`.
pub const API_SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 0, 0, 1), 443);
/// The emulator's own address: the guest's gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The guest's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 15);

/// What the kubelet proves itself by, in the guest.
pub const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// What the scenario, as administrator, proves itself by.
pub const ADMIN_CONFIG: &str = "/etc/kubernetes/admin.conf";
/// The agent's half of the chart, rendered.
pub const AGENT: &str = "/etc/kubernetes/agent.yaml";
/// Directory with the archives of images that the node is to have.
pub const IMAGES: &str = "/images";

/// Where the kubelet keeps the output of containers: `NAMESPACE_POD_UID/CONTAINER/RESTART.log`.
pub const POD_LOGS: &str = "/var/log/pods";

/// Image of a process that does nothing, for the pods' sandboxes. No registry has it.
pub const PAUSE_IMAGE: &str = "test.invalid/pause:1";
/// Image of `thermocline-workload`. No registry has it.
pub const WORKLOAD_IMAGE: &str = "test.invalid/workload:1";
