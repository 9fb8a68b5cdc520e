//! The rules of the schema, tried without an API server, beside what the binaries themselves refuse.

use serde::Deserialize;

use crate::{PolicySpec, TieringPolicy};

/// One of `cases/tieringpolicies.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default = "any_name")]
    name: String,
    spec: PolicySpec,
    refused: Option<String>,
}

fn any_name() -> String {
    "any".to_owned()
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("../cases/tieringpolicies.yaml")).unwrap()
}

#[test]
fn the_rules_refuse_what_they_are_for_and_nothing_else() {
    for Case { about, name, spec, refused } in cases() {
        // A server fills in defaults before it applies rules.
        let answer = TieringPolicy::new(&name, spec.complete()).validate_cel();
        match (refused, answer) {
            (None, answer) => assert!(answer.is_ok(), "{about}: {answer:?}"),
            (Some(message), Ok(())) => panic!("{about} is accepted, expected: {message}"),
            (Some(message), Err(error)) => {
                assert!(error.to_string().contains(&message), "{about}: {error}");
            }
        }
    }
}

#[test]
fn the_rules_and_the_binaries_refuse_the_same() {
    // A name is not in the spec.
    for Case { about, spec, refused, .. } in cases().into_iter().filter(|case| case.name != "none") {
        assert_eq!(spec.check().is_err(), refused.is_some(), "{about}: {:?}", spec.check());
    }
}
