//! The pages of `docs/`: none that nobody finds, and no link that leads nowhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use manifest_tests::root;

/// All pages below a directory.
fn pages(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// What a page links to in the checkout, without the part of the page.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(page).unwrap();
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .map(|target| page.parent().unwrap().join(target))
        .collect()
}

#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    let mut all = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|page| root().join(page)).to_vec();
    pages(&root().join("docs"), &mut all);
    let mut linked = BTreeSet::new();
    for page in &all {
        for link in links(page) {
            let found = link
                .canonicalize()
                .unwrap_or_else(|error| panic!("{}: {}: {error}", page.display(), link.display()));
            // A link to a folder is one to all in it.
            if found.is_dir() {
                linked.extend(std::fs::read_dir(&found).unwrap().map(|entry| entry.unwrap().path()));
            }
            linked.insert(found);
        }
    }
    for page in all.iter().filter(|page| **page != root().join("README.md")) {
        assert!(linked.contains(&page.canonicalize().unwrap()), "no page links {}", page.display());
    }
}
