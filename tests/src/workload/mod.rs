//! `thermocline-workload`: memory of known heat with an exact ledger of what was touched when and where it lies.
//!
//! It is the thing under observation, so it shares no code with what observes it: an error in those readers cannot
//! hide itself here.

mod frames;
mod ledger;
mod run;
mod spec;

pub use ledger::{Ledger, RegionLedger};
pub use run::{main, now_ms};
pub use spec::{Heat, Kind, PageSize, Region, Spec};
