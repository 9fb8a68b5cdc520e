//! What both binaries tell about themselves in the same way: logs, metrics, and what is served over HTTP.
#![forbid(unsafe_code)]

mod durations;
pub mod http;
mod logs;
pub mod metrics;
mod process;

pub use durations::{BOUNDS, Durations};
pub use logs::{FILTER_VARIABLE, LogFormat, TelemetryError, init};
pub use process::Process;
