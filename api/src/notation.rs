//! Notations of values in text, and what to say of a value that does not parse.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de;
use thiserror::Error;

/// A value that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{}` is not {what}{}: write {accepted}", excerpt(.found), .hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct ParseError {
    /// What was there.
    pub found: String,
    /// What should be there, with its article.
    pub what: &'static str,
    /// What is wrong with this one, where that is known.
    pub hint: Option<&'static str>,
    /// What would be right, with an example.
    pub accepted: &'static str,
}

/// As much of a text as tells which it is: whoever reads a message is to see its end.
pub(crate) fn excerpt(text: &str) -> Cow<'_, str> {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A value with a notation in text.
pub(crate) trait Notation: FromStr<Err = ParseError> + fmt::Display {
    /// What it is, with its article.
    const WHAT: &'static str;
    /// How it is written, with an example.
    const ACCEPTED: &'static str;

    fn refuse(found: &str, hint: Option<&'static str>) -> ParseError {
        ParseError { found: found.to_owned(), what: Self::WHAT, hint, accepted: Self::ACCEPTED }
    }
}

/// Reads a [`Notation`] from text or a bare number: YAML and JSON both take `1000000` and `0.9` for numbers.
pub(crate) struct NotationVisitor<T>(pub(crate) PhantomData<T>);

impl<T: Notation> de::Visitor<'_> for NotationVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: write {}", T::WHAT, T::ACCEPTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    /// The shortest text that reads as this number is what was written.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// In a schema on its way, how a value is written. [`describe`] takes it out.
pub(crate) const ACCEPTED: &str = "x-accepted";

/// Says in descriptions how values are written: `kubectl explain` shows neither patterns nor that an amount is text.
pub(crate) fn describe(schema: &mut schemars::Schema) {
    // A value that may be left out is one of two things, the other of which is nothing.
    let mut of_some = schema.get_mut("anyOf").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
    let of_some = of_some.find_map(|one| one.as_object_mut()?.remove(ACCEPTED));
    let accepted = schema.remove(ACCEPTED).or(of_some);
    schemars::transform::transform_subschemas(&mut describe, schema);
    let Some(serde_json::Value::String(accepted)) = accepted else { return };
    let before = schema.get("description").and_then(serde_json::Value::as_str).unwrap_or_default();
    let after = format!("{before} Written as {accepted}.");
    schema.insert("description".to_owned(), after.trim_start().into());
}

/// Serde and the schema of a type with a [`Notation`]. The schema is for API servers: it refuses what is plainly wrong early, and
/// lets through nothing that does not parse but for sizes out of range.
macro_rules! wire_notation {
    ($($type:ty: $schema:tt),+ $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($crate::notation::NotationVisitor::<Self>(std::marker::PhantomData))
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut schema = schemars::json_schema!($schema);
                schema.insert($crate::notation::ACCEPTED.to_owned(), <Self as $crate::notation::Notation>::ACCEPTED.into());
                schema
            }
        }
    )+};
}
pub(crate) use wire_notation;

/// Digits with at most one point: the digits as one number, and how many of them follow the point.
pub(crate) fn decimal(text: &str) -> Option<(u128, u32)> {
    const MOST_DIGITS: usize = 24;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let pointless = !text.contains('.') || !fraction.is_empty();
    if whole.is_empty() || !pointless || text.len() > MOST_DIGITS || !digits().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = digits().fold(0_u128, |number, digit| number * 10 + u128::from(digit - b'0'));
    Some((number, u32::try_from(fraction.len()).ok()?))
}

/// Splits text after its leading digits and points.
pub(crate) fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}
