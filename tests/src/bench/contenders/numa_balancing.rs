//! The kernel with its promotion by hint faults, which is what TPP became.

use super::kernel::short_of;
use super::{Contender, Running};
use crate::guest::write_file;
use crate::scenarios::{BALANCING, DEMOTION};

pub(super) const CONTENDER: Contender = Contender {
    name: "numa-balancing",
    settings: "demotion_enabled 1, numa_balancing 2; a neighbour takes all free DRAM and as much more as is cold",
    start: |guest, cold| {
        write_file(DEMOTION, "1")?;
        write_file(BALANCING, "2")?;
        Ok(Running::Kernel(Some(short_of(guest, cold)?)))
    },
};
