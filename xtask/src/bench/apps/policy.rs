//! Policies for the pods, as the chart has them.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::guest_image::root;

/// Which.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing said but that it acts
    Default,
    /// For services whose tail counts
    Latency,
    /// For batch jobs
    Batch,
}

impl Policy {
    pub(super) const ALL: [Self; 3] = [Self::Default, Self::Latency, Self::Batch];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Latency => "latency",
            Self::Batch => "batch",
        }
    }

    /// Its spec in JSON.
    pub(super) fn spec(self) -> Result<String> {
        if self == Self::Default {
            return Ok("{}".to_owned());
        }
        let path = root().join(format!("charts/thermocline/files/policies/{}.yaml", self.name()));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let policy: Value = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        let mut spec = policy.get("spec").with_context(|| format!("{} has no spec", path.display()))?.clone();
        // Of pods' annotations, which no host has.
        spec.as_object_mut().and_then(|spec| spec.remove("allowOverrides"));
        Ok(spec.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_the_charts_and_words_of_a_command_line() {
        for policy in Policy::ALL {
            let spec = policy.spec().unwrap();
            assert!(spec.starts_with('{') && !spec.contains(' '), "{spec}");
        }
        assert!(Policy::Latency.spec().unwrap().contains(r#""after":"10m""#));
    }
}
