//! Who promotes.

mod damon;
pub mod pairs;

use host::numa_balancing::NumaBalancing;
use host::probe::{Feature, ProbeReport};
use serde::Serialize;
use tiering::{DemotionSupport, TierMap};

pub use damon::{Claim, DamonPromoter, Report, kdamond};

use crate::config::PromoterChoice;
use crate::engine::Engine;

/// Who moves memory up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Promoter {
    /// NUMA balancing, in its tiering mode.
    Kernel,
    /// This agent, with `move_pages(2)`.
    Pages,
    /// Nobody.
    #[default]
    None,
    /// DAMON, as this agent has it.
    Damon,
}

/// Whether DAMON is to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damon<'a> {
    /// No.
    NotAsked,
    /// Yes.
    Asked,
    /// It was, and did not work, for this reason.
    Failed(&'a str),
}

impl<'a> Damon<'a> {
    /// As the configuration has it, and as it went when it was tried.
    #[must_use]
    pub fn of(choice: PromoterChoice, failed: Option<&'a str>) -> Self {
        match (choice, failed) {
            (PromoterChoice::Auto, _) => Self::NotAsked,
            (PromoterChoice::Damon, None) => Self::Asked,
            (PromoterChoice::Damon, Some(failed)) => Self::Failed(failed),
        }
    }
}

/// Who promotes, and why not another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Who.
    pub promoter: Promoter,
    /// What that means, and what kept from better, in words.
    pub words: String,
}

impl Promoter {
    /// Who brings hot memory back beside this engine; nobody where nothing may be written. `damon` says whether that is to be
    /// tried.
    #[must_use]
    pub fn choose(
        engine: Option<&Engine>,
        probe: &ProbeReport,
        tiers: &TierMap,
        writes: bool,
        damon: Damon<'_>,
    ) -> Chosen {
        let nobody = |words: &str| Chosen { promoter: Self::None, words: words.to_owned() };
        if !tiers.has_lower_tier() {
            return nobody("no memory node is slower than the others");
        }
        if !writes {
            return nobody("nothing may be written");
        }
        let Some(engine) = engine else { return nobody("there is no engine") };
        let mut missing: Vec<String> = Vec::new();
        for promoter in pairs::beside(engine.name()) {
            match promoter.works(probe, tiers, damon) {
                Ok(()) => {
                    missing.insert(0, promoter.means().to_owned());
                    return Chosen { promoter, words: missing.join("; ") };
                }
                Err(why) => missing.push(format!("not {}: {why}", promoter.as_str())),
            }
        }
        nobody(&missing.join("; "))
    }

    /// Whether it can work on this host, or what keeps it from that.
    fn works(self, probe: &ProbeReport, tiers: &TierMap, damon: Damon<'_>) -> Result<(), String> {
        let lacks = |feature| {
            let row = probe.row(feature);
            row.map_or_else(|| "not probed".to_owned(), |row| row.detail.clone())
        };
        match self {
            Self::Damon => match damon {
                Damon::NotAsked => {
                    Err("it is taken where the configuration says `promoter: Damon`".to_owned())
                }
                Damon::Failed(failure) => Err(failure.to_owned()),
                Damon::Asked if probe.damon() => Ok(()),
                Damon::Asked => Err(lacks(Feature::Damon)),
            },
            Self::Kernel => match tiers.demotion_support() {
                DemotionSupport::AgentOnly { reason } => Err(reason.clone()),
                DemotionSupport::Kernel if probe.has(Feature::NumaBalancing) => Ok(()),
                DemotionSupport::Kernel => Err(lacks(Feature::NumaBalancing)),
            },
            Self::Pages | Self::None => Ok(()),
        }
    }

    /// What it means that this one promotes.
    fn means(self) -> &'static str {
        match self {
            Self::Damon => {
                "DAMON finds what is hot on slow nodes and moves it, for each cgroup within its promote.maxRate and ceiling"
            }
            Self::Kernel => {
                "NUMA balancing promotes what it finds hot, of any cgroup, within the sum of the policies' promote.maxRate"
            }
            Self::Pages => {
                "the agent finds what is hot on slow nodes and moves it, for each cgroup within its promote.maxRate and ceiling"
            }
            Self::None => "nobody promotes",
        }
    }

    /// As a condition's reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Kernel => "NumaBalancing",
            Self::Pages => "PageMoves",
            Self::None => "Nobody",
            Self::Damon => "Damon",
        }
    }

    /// As the law sees it.
    #[must_use]
    pub fn of_law(self) -> tiering::law::Promoter {
        match self {
            Self::Kernel => tiering::law::Promoter::Kernel,
            Self::Pages | Self::Damon => tiering::law::Promoter::Agent,
            Self::None => tiering::law::Promoter::None,
        }
    }

    /// What NUMA balancing is set to while anyone is promoted: off where another promotes, or the kernel would promote behind
    /// our back. `None` leaves it alone.
    #[must_use]
    pub fn numa_balancing(self) -> Option<NumaBalancing> {
        match self {
            Self::Kernel => Some(NumaBalancing::TIERING),
            // Also what kernels boot with moves pages from slow nodes, which have no processors, as soon as they are used.
            Self::Pages | Self::Damon => Some(NumaBalancing::OFF),
            Self::None => None,
        }
    }

    /// Its name, as users see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Pages => "pages",
            Self::None => "none",
            Self::Damon => "damon",
        }
    }
}
