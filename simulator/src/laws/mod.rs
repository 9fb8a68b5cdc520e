//! Who acts on a host: the product's law, and the peers' for comparison.
//!
//! The peers are written anew from what they publish, as they would act on this host, and each in its favour where the model is
//! coarser than it is. A peer may be told how much DRAM is to be saved: then it demotes in its own order until that is reached.

mod peers;
mod thermocline;

use std::time::Duration;

use crate::host::Host;

pub use peers::Peer;
pub use thermocline::Thermocline;

/// Acts on a host.
pub trait Law {
    /// Its name in tables.
    fn name(&self) -> String;
    /// Acts now, at the end of a tick.
    fn act(&mut self, host: &mut Host);
    /// The agent is started again: what is only in its memory is gone.
    fn restart(&mut self, _now: Duration) {}
}
