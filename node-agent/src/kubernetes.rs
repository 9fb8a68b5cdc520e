//! One node of a cluster: which pods the controller assigned to it, where their cgroups are, and what is said of them.
//!
//! ```text
//!  API server ──watch──▶ client ──Assignment──▶ the agent's loop ──▶ cgroups
//!      ▲                   │  ▲                       │
//!      └──────status───────┘  └───────Snapshot────────┘
//! ```
//!
//! [`client`] alone talks to the API server, on the thread that HTTP has. All else is without I/O: [`assignment`] reads a
//! `NodeTiering`, [`layout`] knows which cgroup is which pod's, [`status`] says what became of each. [`last_known`] is the file
//! that an agent starts from while the API server is away.

pub mod assignment;
pub mod client;
pub mod last_known;
pub mod layout;
pub mod mailbox;
pub mod status;
