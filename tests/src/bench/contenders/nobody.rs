//! Nothing moves: what the workload costs by itself.

use super::{Contender, Running};

pub(super) const CONTENDER: Contender = Contender {
    name: "nobody",
    settings: "nothing is switched on; not compared, the others' costs are beside it",
    start: |_, _| Ok(Running::Kernel(None)),
};
