//! Values made from a schema, each of which breaks one of its bounds.

use anyhow::{Result, bail, ensure};
use serde_json::{Map, Value, json};

/// A value that breaks one bound.
pub(crate) struct Try {
    /// Where, as the server names it: `spec.pods[0].uid`.
    path: String,
    /// The keyword of the schema.
    keyword: &'static str,
    /// All of the spec or the status.
    pub(crate) value: Value,
}

impl Try {
    /// Sees that the answer is a refusal, for this reason and at this place.
    pub(crate) fn must_be(&self, answer: &std::result::Result<Value, String>) -> Result<()> {
        let Self { path, keyword, value } = self;
        // Bounds of lists are checked by another part of the server, which names the keys of maps in brackets.
        let in_brackets = path.replace(".key", "[key]");
        match answer {
            Ok(_) => bail!("{path}: {keyword} is not enforced: {value} is accepted"),
            Err(says) => ensure!(
                (says.contains(path.as_str()) || says.contains(&in_brackets)) && says.contains(self.says()),
                "{path}: {keyword} is broken, but refused is something else: {says}"
            ),
        }
        Ok(())
    }

    /// What a server says of a value that breaks the bound.
    fn says(&self) -> &'static str {
        match self.keyword {
            "type" => "must be of type",
            "enum" => "Unsupported value",
            "pattern" => "should match",
            "maxLength" => "Too long",
            "minLength" => "should be at least",
            "maximum" => "should be less than or equal to",
            "minimum" => "should be greater than or equal to",
            "maxItems" | "maxProperties" => "Too many",
            "minItems" => "should have at least",
            "required" => "Required value",
            "list-map" | "list-set" => "Duplicate value",
            other => panic!("a bound of a kind that no test knows: {other}"),
        }
    }
}

/// A try for each bound at and below a place of the schema.
pub(crate) fn tries(schema: &Value, path: &str) -> Vec<Try> {
    let mut found = Vec::new();
    assert!(schema.is_object(), "{path} has no schema");
    at(schema, path, &|value| value, &mut found);
    found
}

/// Finds the bounds of `schema`; `within` puts a value for it into the whole.
fn at(schema: &Value, path: &str, within: &dyn Fn(Value) -> Value, found: &mut Vec<Try>) {
    let mut broken =
        |keyword, value| found.push(Try { path: path.to_owned(), keyword, value: within(value) });
    // The bounds are whole numbers, written as floats.
    let number =
        |keyword: &str| schema[keyword].as_number()?.to_string().trim_end_matches(".0").parse::<i64>().ok();
    let either = schema["x-kubernetes-int-or-string"] == true;
    match schema["type"].as_str() {
        Some("string" | "boolean" | "integer") => broken("type", json!({})),
        Some("object" | "array") => broken("type", json!("text")),
        None if either => {}
        other => panic!("{path} is of a type that no test knows: {other:?}"),
    }
    if schema["enum"].is_array() {
        broken("enum", json!("Nonsense"));
    }
    if schema["pattern"].is_string() {
        broken("pattern", json!("%"));
    }
    if let Some(bound) = number("maxLength") {
        broken("maxLength", json!("x".repeat(usize::try_from(bound).unwrap() + 1)));
    }
    if number("minLength").is_some_and(|bound| bound > 0) {
        broken("minLength", json!(""));
    }
    if let Some(bound) = number("maximum") {
        broken("maximum", json!(bound + 1));
    }
    if let Some(bound) = number("minimum") {
        broken("minimum", json!(bound - 1));
    }
    if let Some(bound) = number("maxProperties") {
        let value = valid(&schema["additionalProperties"]);
        broken("maxProperties", (0..=bound).map(|i| (format!("key{i}"), value.clone())).collect());
    }
    if let Some(bound) = number("maxItems") {
        broken("maxItems", (0..=bound).map(|_| valid(&schema["items"])).collect());
    }
    if number("minItems").is_some_and(|bound| bound > 0) {
        broken("minItems", json!([]));
    }
    match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            found.push(twice(schema, path, "list-map", within));
        }
        Some("set") => {
            found.push(twice(schema, path, "list-set", within));
        }
        _ => {}
    }
    let whole = valid(schema);
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(name);
        found.push(Try { path: format!("{path}.{name}"), keyword: "required", value: within(without) });
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let within = |value| {
            let mut object = whole.clone();
            object[name] = value;
            within(object)
        };
        at(field, &format!("{path}.{name}"), &within, found);
    }
    if schema["items"].is_object() {
        at(&schema["items"], &format!("{path}[0]"), &|value| within(json!([value])), found);
    }
    if schema["additionalProperties"].is_object() {
        let path = format!("{path}.key");
        at(&schema["additionalProperties"], &path, &|value| within(json!({ "key": value })), found);
    }
}

fn twice(schema: &Value, path: &str, keyword: &'static str, within: &dyn Fn(Value) -> Value) -> Try {
    let item = valid(&schema["items"]);
    Try { path: format!("{path}[1]"), keyword, value: within(json!([item.clone(), item])) }
}

/// A value that breaks no bound: the least that the schema requires.
fn valid(schema: &Value) -> Value {
    if let Some(choice) = schema["enum"].as_array().and_then(|choices| choices.first()) {
        return choice.clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let fields = required.map(|name| (name.to_owned(), valid(&schema["properties"][name])));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Some("array") => json!([]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("1"),
    }
}
