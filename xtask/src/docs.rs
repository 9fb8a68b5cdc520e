//! Every page is found from another one, and no link leads nowhere.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::guest_image::root;

/// The pages, by their paths from the root.
fn pages() -> Vec<PathBuf> {
    let listed =
        std::process::Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success());
    let pages: Vec<PathBuf> = String::from_utf8(listed.stdout).unwrap().lines().map(PathBuf::from).collect();
    assert!(pages.len() > 40, "{pages:?}");
    pages
}

/// Files of the project that a page links to, and the links that lead nowhere.
fn links(page: &Path) -> (BTreeSet<PathBuf>, Vec<String>) {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (mut found, mut broken) = (BTreeSet::new(), Vec::new());
    for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next()) {
        if link.is_empty() || link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let mut path = PathBuf::new();
        for part in page.parent().unwrap_or(Path::new("")).join(link).components() {
            match part {
                Component::ParentDir => assert!(path.pop(), "{}: {link}", page.display()),
                Component::Normal(part) => path.push(part),
                _ => {}
            }
        }
        if root().join(&path).exists() {
            found.insert(path);
        } else {
            broken.push(format!("{}: {link}", page.display()));
        }
    }
    (found, broken)
}

#[test]
fn no_link_leads_nowhere() {
    let broken: Vec<String> = pages().iter().flat_map(|page| links(page).1).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_page_is_linked_from_another() {
    let pages = pages();
    let linked: BTreeSet<PathBuf> =
        pages.iter().flat_map(|page| links(page).0.into_iter().filter(move |to| to != page)).collect();
    // A README is what a link to its directory shows.
    let is_found = |page: &PathBuf| {
        let is_index = page.file_name().is_some_and(|name| name == "README.md");
        linked.contains(page)
            || (is_index && page.parent().is_some_and(|dir| dir == Path::new("") || linked.contains(dir)))
    };
    let orphans: Vec<&PathBuf> = pages.iter().filter(|page| !is_found(page)).collect();
    assert!(orphans.is_empty(), "no page links to these: {orphans:#?}");
}

/// What three kinds of readers took for something else, or found to be untrue.
#[test]
fn words_that_misled_are_gone() {
    const GONE: [&str; 14] = [
        // Nobody saw who else was measured, or how much less money for what.
        "Ratios to other tools",
        "as much DRAM for less money",
        "two or three times as long",
        "goes up and down for ever",
        "costs the pod is a bound",
        // In the demo there are none.
        "what the pods know",
        // It needs the definitions.
        "before anything is installed",
        // It does, by default.
        "if the chart's nodeSelector or affinity looks at it",
        "a day that is like the others",
        // A floor forbids a part of it; and the column has a time.
        "would sink if every policy were enforced",
        "working set 2",
        // Of amounts that a terminal cuts off.
        "(only observed)",
        // `run` waits for slow memory.
        "`run` ends with exit code 6",
        // What a picture counts has a name that says it.
        "stayed: 4",
    ];
    let dashboard = PathBuf::from("charts/thermocline/files/dashboard/thermocline.json");
    for page in pages().into_iter().chain([dashboard]) {
        let text = std::fs::read_to_string(root().join(&page)).unwrap().replace('\n', " ");
        for words in GONE {
            assert!(!text.contains(words), "{}: {words}", page.display());
        }
    }
}

/// What it saves, how mature it is and on what that was seen, a picture, and how to install and undo it: before anything else.
#[test]
fn the_first_screen_says_what_it_saves_how_mature_it_is_and_how_to_have_it() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let first = readme.split("\n```").next().unwrap();
    for words in [
        "%)",
        "cargo xtask vm",
        "in virtual machines",
        "no real PMEM or CXL",
        "Nothing is published",
        "MGLRU",
        "apt install",
        "helm install",
        "apt remove",
        "helm uninstall",
        "](docs/images/demo.svg)",
    ] {
        assert!(first.contains(words), "{words}");
    }
    let picture = std::fs::read_to_string(root().join("docs/images/demo.svg")).unwrap();
    // As the product is now, in colour.
    for words in ["would free", "touched within", "what the programs themselves know", "fill"] {
        assert!(picture.contains(words), "{words}");
    }
}

/// Nothing is published: an install that does not name the images can't pull them. In kind they are loaded under the chart's own names.
#[test]
fn whoever_installs_the_chart_by_a_page_says_where_its_images_are() {
    let mut told = 0;
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap().replace("\\\n", "");
        for line in text.lines().filter(|line| line.contains("helm install thermocline charts/thermocline")) {
            told += 1;
            let names = ["image.registry", "IMAGES", "kind.yaml"];
            assert!(names.iter().any(|name| line.contains(name)), "{}: {line}", page.display());
        }
    }
    assert!(told > 10, "{told}");
}

/// In our images a program lies at the root, which is in no `PATH`.
#[test]
fn what_runs_in_a_pod_is_named_by_its_path_in_the_image() {
    let others =
        ["charts/thermocline/templates/NOTES.txt", "node-agent/src/args.rs", "controller/src/args.rs"];
    let mut told = 0;
    for page in pages().into_iter().chain(others.map(PathBuf::from)) {
        // A string of the code may go on in the next line.
        let text = std::fs::read_to_string(root().join(&page)).unwrap().replace("\\\n", "");
        for command in text.split(" exec ").skip(1).filter_map(|rest| rest.split_once(" -- ")) {
            let program = command.1.split_whitespace().next().unwrap_or_default();
            if command.0.lines().count() == 1 && program.contains("thermocline-") {
                told += 1;
                assert!(program.starts_with('/'), "{}: {program}", page.display());
            }
        }
    }
    assert!(told > 7, "{told}");
}

/// Where a path of a page may begin: at the root, or where the crate or directory that the paragraph is about has its files.
fn is_there(path: &str, paragraph: &[&str]) -> bool {
    let named = paragraph.iter().map(|named| root().join(named));
    let beside = named.flat_map(|named| {
        let dirs = named.ancestors().map(Path::to_owned).collect::<Vec<_>>();
        dirs.into_iter().take_while(|dir| dir.starts_with(root()) && *dir != root())
    });
    let starts = beside.flat_map(|dir| [dir.join("src"), dir]).chain([root()]);
    starts.into_iter().any(|start| start.join(path).exists())
}

#[test]
fn every_path_that_contributors_are_told_of_is_there() {
    let is_path = |word: &&str| {
        let of_a_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let is_file = [".rs", ".md", ".json", ".yaml"].iter().any(|end| word.ends_with(end));
        word.chars().all(of_a_path) && !word.starts_with('/') && (word.contains('/') || is_file)
    };
    let mut told = 0;
    let mut gone = Vec::new();
    for page in ["CONTRIBUTING.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let prose: String = text.split("```").step_by(2).collect();
        for paragraph in prose.split("\n\n") {
            let paths: Vec<&str> = paragraph.split('`').skip(1).step_by(2).filter(is_path).collect();
            let plain = paragraph.split(|c: char| c.is_whitespace() || "(),;:`".contains(c));
            let plain = plain.map(|word| word.trim_end_matches('.')).filter(|word| word.starts_with("docs/"));
            for path in paths.iter().copied().chain(plain) {
                told += 1;
                if !is_there(path, &paths) {
                    gone.push(format!("{page}: {path}"));
                }
            }
        }
    }
    assert!(told > 60, "{told}");
    assert!(gone.is_empty(), "{gone:#?}");
}
