//! Which engine and which promoter may work together: most ways to find out what is accessed clear what they look at, and so
//! blind each other.

use super::Promoter;

/// Whether two may work together, and why.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The engine: its age source, and what moves memory down.
    pub engine: &'static str,
    /// Its age source.
    pub ages: &'static str,
    /// What moves memory up.
    pub promoter: Promoter,
    /// Whether they may.
    pub together: bool,
    /// Why.
    pub why: &'static str,
}

/// All pairs, the best of each engine first. The table in docs/engines.md is made from it.
pub const PAIRS: &[Pair] = &[
    Pair {
        engine: "lru-gen",
        ages: "walks of page tables, two in an age",
        promoter: Promoter::Damon,
        together: true,
        why: "DAMON looks at slow nodes only, ten times a second; a walk clears there what DAMON finds again with the next access",
    },
    Pair {
        engine: "lru-gen",
        ages: "walks of page tables, two in an age",
        promoter: Promoter::Kernel,
        together: true,
        why: "NUMA balancing goes by page faults, not by accessed bits",
    },
    Pair {
        engine: "lru-gen",
        ages: "walks of page tables, two in an age",
        promoter: Promoter::Pages,
        together: false,
        why: "heat of single pages is known by clear_refs only, after which all generations look untouched",
    },
    Pair {
        engine: "reclaim",
        ages: "the kernel's own lists",
        promoter: Promoter::Damon,
        together: true,
        why: "nothing of the agent's looks at accessed bits, and the kernel's reclaim looks at slow nodes when they are short",
    },
    Pair {
        engine: "reclaim",
        ages: "the kernel's own lists",
        promoter: Promoter::Kernel,
        together: true,
        why: "NUMA balancing goes by page faults, not by accessed bits",
    },
    Pair {
        engine: "pages",
        ages: "clear_refs, two in an age",
        promoter: Promoter::Pages,
        together: true,
        why: "one look serves both: a mapping that is accessed in two looks on end is hot",
    },
    Pair {
        engine: "pages",
        ages: "clear_refs, two in an age",
        promoter: Promoter::Damon,
        together: false,
        why: "DAMON would clear accessed bits between two looks, and what is in use on slow nodes would look cold",
    },
    Pair {
        engine: "pages",
        ages: "clear_refs, two in an age",
        promoter: Promoter::Kernel,
        together: false,
        why: "NUMA balancing makes mappings inaccessible to see faults, and moves what the agent has just counted",
    },
];

/// Who may promote beside an engine, the best first.
pub fn beside(engine: &str) -> impl Iterator<Item = Promoter> {
    PAIRS.iter().filter(move |pair| pair.engine == engine && pair.together).map(|pair| pair.promoter)
}

/// The table as Markdown.
#[must_use]
pub fn table() -> String {
    let row = |Pair { engine, ages, promoter, together, why }: &Pair| {
        let together = if *together { "yes" } else { "never" };
        format!("| `{engine}` | {ages} | `{}` | {together} | {why} |\n", promoter.as_str())
    };
    let rows: String = PAIRS.iter().map(row).collect();
    format!("| engine | finds ages by | promoter | together | why |\n|---|---|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_judged_once() {
        for engine in ["lru-gen", "pages", "reclaim"] {
            assert!(beside(engine).next().is_some(), "{engine}");
            for promoter in [Promoter::Damon, Promoter::Kernel, Promoter::Pages] {
                let judged = PAIRS.iter().filter(|pair| pair.engine == engine && pair.promoter == promoter);
                // Page moves without their own looks know nothing that is hot: `reclaim` has none.
                let expected = usize::from((engine, promoter) != ("reclaim", Promoter::Pages));
                assert_eq!(judged.count(), expected, "{engine} {promoter:?}");
            }
        }
    }

    #[test]
    fn the_documentation_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/engines.md");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&table()), "docs/engines.md lacks this table:\n{}", table());
    }
}
