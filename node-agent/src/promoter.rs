//! Who promotes.

use host::numa_balancing::NumaBalancing;
use host::probe::{Feature, ProbeReport};
use serde::Serialize;
use tiering::{DemotionSupport, TierMap};

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
}

impl Promoter {
    /// Who brings hot memory back beside this engine; nobody where nothing may be written.
    #[must_use]
    pub fn choose(engine: Option<&Engine>, probe: &ProbeReport, tiers: &TierMap, writes: bool) -> Self {
        if !writes || !tiers.has_lower_tier() {
            return Self::None;
        }
        if let Some(Engine::Pages(_)) = engine {
            return Self::Pages;
        }
        let kernel =
            probe.has(Feature::NumaBalancing) && *tiers.demotion_support() == DemotionSupport::Kernel;
        if kernel { Self::Kernel } else { Self::None }
    }

    /// As the law sees it.
    #[must_use]
    pub fn of_law(self) -> tiering::law::Promoter {
        match self {
            Self::Kernel => tiering::law::Promoter::Kernel,
            Self::Pages => tiering::law::Promoter::Agent,
            Self::None => tiering::law::Promoter::None,
        }
    }

    /// What NUMA balancing is set to while anyone is promoted: off where another promotes, or the kernel would promote behind
    /// our back. `None` leaves it alone.
    #[must_use]
    pub fn numa_balancing(self) -> Option<NumaBalancing> {
        match self {
            Self::Kernel => Some(NumaBalancing::TIERING),
            Self::Pages => Some(NumaBalancing::OFF),
            Self::None => None,
        }
    }

    /// Its name, as users see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Pages => "pages",
            Self::None => "none",
        }
    }
}
