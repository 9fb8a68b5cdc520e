//! Whether what happened in a world is what it asks.

mod bars;
mod oracle;

use crate::laws::{Peer, Thermocline};
use crate::run::{Run, run};
use crate::world::{Bar, World};

pub use bars::allowed_touches;
pub use oracle::Regret;

/// What one bar says of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The bar.
    pub what: String,
    /// What it asks.
    pub asked: String,
    /// What was seen.
    pub seen: String,
    /// Whether it holds.
    pub holds: bool,
    /// Of two runs, the worse one has the greater.
    pub badness: f64,
}

/// A law's line in a world's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The law's name.
    pub law: String,
    /// See [`Regret`].
    pub regret: Regret,
    /// Pages demoted.
    pub demoted: u64,
    /// Pages promoted.
    pub promoted: u64,
}

/// A world with one seed, judged.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The seed.
    pub seed: u64,
    /// The bars, in the world's order.
    pub verdicts: Vec<Verdict>,
    /// The product's law, then the others that the bars ask for.
    pub lines: Vec<Line>,
    /// The run of the product's law.
    pub run: Run,
}

/// The runs of one seed that bars compare.
struct Runs<'a> {
    ours: &'a Run,
    without_us: Option<Run>,
    unmoved: Option<Run>,
    peers: Vec<Run>,
}

/// Runs a world by the product's law, and by the others that its bars ask for, and judges.
#[must_use]
pub fn judge(world: &World, seed: u64) -> Judged {
    let ours = run(world, &mut Thermocline::new(world), seed);
    let asks = |what: fn(&Bar) -> bool| world.bars.iter().any(what);
    let with = |peer: Peer, target: Option<u64>| run(world, &mut peer.law(target), seed);
    let saved = Regret::of(&ours.host).saved as u64;
    let runs = Runs {
        without_us: asks(|bar| matches!(bar, Bar::FewerSlowAccesses(_))).then(|| with(Peer::Kernel, None)),
        unmoved: asks(|bar| matches!(bar, Bar::Throughput(_))).then(|| with(Peer::Nothing, None)),
        peers: if asks(|bar| matches!(bar, Bar::BeatsPeers(true))) {
            Peer::COMPARED.into_iter().map(|peer| with(peer, Some(saved))).collect()
        } else {
            Vec::new()
        },
        ours: &ours,
    };
    let verdicts = world.bars.iter().enumerate().map(|(index, bar)| runs.verdict(index, bar)).collect();
    let others = runs.peers.iter().chain(&runs.without_us).chain(&runs.unmoved);
    let lines = std::iter::once(&ours).chain(others).map(line).collect();
    Judged { seed, verdicts, lines, run: ours }
}

/// The line of one law, for a world that asks nothing.
#[must_use]
pub fn line(run: &Run) -> Line {
    let minutes = || run.host.pods.iter().flat_map(|pod| &pod.ledger.minutes);
    Line {
        law: run.law.clone(),
        regret: Regret::of(&run.host),
        demoted: minutes().map(|minute| minute.demoted).sum(),
        promoted: minutes().map(|minute| minute.promoted).sum(),
    }
}

/// The peers' lines of a world, each as it is when nobody tells it what to save.
#[must_use]
pub fn peers(world: &World, seed: u64) -> Vec<Line> {
    let all = [Peer::Nothing, Peer::Kernel].into_iter().chain(Peer::COMPARED);
    all.map(|peer| line(&run(world, &mut peer.law(None), seed))).collect()
}
