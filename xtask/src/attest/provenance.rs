//! What files were made from and by what, as SLSA's provenance in an in-toto statement: <https://slsa.dev/spec/v1.0/provenance>.

use serde_json::{Value, json};

use crate::image::Source;

/// The file that has it.
pub(super) const NAME: &str = "provenance.intoto.json";

/// The statement about files, by name and SHA-256, that a command made.
pub(super) fn statement(files: &[(String, String)], command: &str, source: &Source, compiler: &str) -> Value {
    let subject = |(name, sum): &(String, String)| json!({ "name": name, "digest": { "sha256": sum } });
    let repository = env!("CARGO_PKG_REPOSITORY");
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": files.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": format!("{repository}/blob/main/docs/decisions/release.md"),
                "externalParameters": { "command": command },
                "resolvedDependencies": [
                    { "uri": format!("git+{repository}"), "digest": { "gitCommit": source.revision } },
                    { "name": "rustc", "annotations": { "version": compiler } },
                ],
            },
            // Whose machine it was only a signature can say.
            "runDetails": { "builder": { "id": format!("{repository}/tree/main/xtask") } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_named_with_its_sum_and_what_it_was_made_from() {
        let source = Source { revision: "abc".to_owned(), created: 0 };
        let statement = statement(
            &[("a.tar".to_owned(), "00ff".to_owned())],
            "cargo xtask image",
            &source,
            "rustc 1.0.0",
        );
        assert_eq!(statement["subject"], json!([{ "name": "a.tar", "digest": { "sha256": "00ff" } }]));
        let from = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        assert_eq!(from[0]["digest"]["gitCommit"], "abc");
        assert_eq!(from[1]["annotations"]["version"], "rustc 1.0.0");
    }
}
