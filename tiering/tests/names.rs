//! The properties that modules state are tests of the same names.

use std::fs;
use std::path::Path;

fn sources(dir: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).expect("a text"));
        }
    }
    texts
}

/// The names in a module's list of properties: each line's first words, up to a colon.
fn properties(source: &str) -> Vec<&str> {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let list = header.skip_while(|line| line.trim() != "# Properties").filter(|line| line.starts_with(" - "));
    list.flat_map(|line| {
        line.split(':').next().into_iter().flat_map(|names| names.split('`').skip(1).step_by(2))
    })
    .collect()
}

#[test]
fn every_property_is_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (code, tests) = (sources(&root.join("src")), sources(&root.join("tests")));
    let stated: Vec<&str> = code.iter().flat_map(|source| properties(source)).collect();
    assert!(stated.len() > 30, "{stated:?}");
    let is_test =
        |name: &str| code.iter().chain(&tests).any(|source| source.contains(&format!("fn {name}(")));
    let missing: Vec<&&str> = stated.iter().filter(|name| !is_test(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
