//! Which labels a selector matches, as Kubernetes' own selectors do.

use api::{LabelOperator, LabelRequirement, LabelSelector};

/// Whether the labels that `value` looks up fulfil all that the selector says. One that says nothing matches everything.
pub(super) fn matches<'a>(selector: &LabelSelector, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    let label = |(key, expected): (&String, &String)| value(key) == Some(expected);
    let requirement = |LabelRequirement { key, operator, values }: &LabelRequirement| {
        let found = value(key);
        let listed = found.is_some_and(|found| values.iter().any(|value| value == found));
        match operator {
            LabelOperator::In => listed,
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => found.is_some(),
            LabelOperator::DoesNotExist => found.is_none(),
        }
    };
    selector.match_labels.iter().all(label) && selector.match_expressions.iter().all(requirement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let check = |selector: &str, matched: bool| {
            let parsed: LabelSelector = serde_json::from_str(selector).unwrap();
            let labels = [("app", "web"), ("tier", "")];
            let value = |key: &str| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
            assert_eq!(matches(&parsed, value), matched, "{selector}");
        };
        let expression = |key: &str, operator: &str, values: &str, matched| {
            let requirement =
                format!(r#"{{ "key": "{key}", "operator": "{operator}", "values": [{values}] }}"#);
            check(&format!(r#"{{ "matchExpressions": [{requirement}] }}"#), matched);
        };
        check("{}", true);
        check(r#"{ "matchLabels": { "app": "web" } }"#, true);
        check(r#"{ "matchLabels": { "app": "web", "tier": "" } }"#, true);
        check(r#"{ "matchLabels": { "app": "web", "zone": "" } }"#, false);
        check(r#"{ "matchLabels": { "app": "Web" } }"#, false);
        expression("app", "In", r#""db", "web""#, true);
        expression("app", "In", r#""db""#, false);
        expression("zone", "In", r#""""#, false);
        expression("app", "NotIn", r#""web""#, false);
        expression("app", "NotIn", r#""db""#, true);
        expression("zone", "NotIn", r#""a""#, true);
        expression("tier", "Exists", "", true);
        expression("zone", "Exists", "", false);
        expression("zone", "DoesNotExist", "", true);
        expression("tier", "DoesNotExist", "", false);
        check(
            r#"{ "matchLabels": { "app": "web" }, "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] }"#,
            false,
        );
    }
}
