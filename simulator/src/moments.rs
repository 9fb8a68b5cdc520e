//! A world at moments, in the words of the agent's `/debug/state`: what a guest that runs the same is compared with.

use std::time::Duration;

use crate::host::Host;
use crate::laws::{Law as _, Thermocline};
use crate::world::{NodeKind, PAGE, World};

/// The managed pods at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Since the world began.
    pub at: Duration,
    /// Bytes on slow nodes.
    pub sunk: u64,
    /// Bytes touched there a minute, as the law says.
    pub touched: u64,
    /// The age that counts as cold; the oldest of them.
    pub age: Duration,
}

/// The world as it is written, at each of these times.
#[must_use]
pub fn moments(world: &World, times: &[Duration]) -> Vec<Moment> {
    let mut host = Host::new(world, 0);
    let mut law = Thermocline::new(world);
    let mut moments = Vec::new();
    for at in times {
        while host.now < *at {
            host.step();
            law.act(&mut host);
        }
        moments.push(moment(&host, &law));
    }
    moments
}

fn moment(host: &Host, law: &Thermocline) -> Moment {
    let slow = host.on_tier(NodeKind::Slow);
    let mut sum = Moment { at: host.now, ..Moment::default() };
    for index in (0..host.pods.len()).filter(|index| host.pods[*index].managed) {
        sum.sunk += slow.iter().map(|node| host.truly_on(index, None, *node)).sum::<u64>() * PAGE;
        if let Some(known) = law.known(index) {
            sum.touched += known.touched_per_minute().0;
            sum.age = sum.age.max(known.touches().age());
        }
    }
    sum
}
