//! Reading what a newer version may have written.
//!
//! The types of this crate refuse fields that they do not know: in a user's file such a field is a typo. What an API server hands
//! out was checked when it was written, and may have fields of a newer version, if only because the server filled in a default.
//! There, [`read`] passes over unknown fields and says which they were.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::{Error, Value};
use std::cell::RefCell;

/// A value, and the fields in it that its type does not know, as in `demote.grace`.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<(T, Vec<String>), Error> {
    let unknown = RefCell::default();
    let read = T::deserialize(Lenient { value, path: String::new(), unknown: &unknown })?;
    Ok((read, unknown.into_inner()))
}

/// For `#[serde(deserialize_with)]`: a value, whatever else is there.
pub fn field<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    read(value).map(|(read, _)| read).map_err(D::Error::custom)
}

/// A value whose structures have only the fields that are asked for.
struct Lenient<'u> {
    value: Value,
    /// Where it is.
    path: String,
    unknown: &'u RefCell<Vec<String>>,
}

impl Lenient<'_> {
    fn inner(&self, key: &str, value: Value) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { value, path, unknown: self.unknown }
    }
}

impl<'de, 'u: 'de> IntoDeserializer<'de, Error> for Lenient<'u> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de, 'u: 'de> Deserializer<'de> for Lenient<'u> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        match self.value.take() {
            Value::Array(values) => {
                let values: Vec<Self> = values
                    .into_iter()
                    .enumerate()
                    .map(|(n, value)| self.inner(&n.to_string(), value))
                    .collect();
                visitor.visit_seq(SeqDeserializer::new(values.into_iter()))
            }
            Value::Object(fields) => {
                let fields: Vec<(String, Self)> = fields
                    .into_iter()
                    .map(|(key, value)| {
                        let value = self.inner(&key, value);
                        (key, value)
                    })
                    .collect();
                visitor.visit_map(MapDeserializer::new(fields.into_iter()))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Value::Object(fields) = &mut self.value {
            fields.retain(|key, _| {
                let is_known = known.contains(&key.as_str());
                if !is_known {
                    self.unknown.borrow_mut().push(if self.path.is_empty() {
                        key.clone()
                    } else {
                        format!("{}.{key}", self.path)
                    });
                }
                is_known
            });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::PolicySpec;

    #[test]
    fn what_a_newer_version_added_is_passed_over_and_named() {
        let spec = json!({
            "mode": "Observe",
            "swapOut": { "enabled": true },
            "tiers": ["dram", 1],
            "dram": { "floor": "25%", "weight": 7, "borrow": [1] },
            "demote": { "grace": "5s", "after": "90s" },
            "selector": { "pods": { "matchLabels": { "anything": "here" }, "matchFields": [] } },
        });
        let strict = serde_json::from_value::<PolicySpec>(spec.clone()).unwrap_err().to_string();
        assert!(strict.contains("unknown field"), "{strict}");
        let (read, mut unknown) = read::<PolicySpec>(spec.clone()).unwrap();
        unknown.sort();
        assert_eq!(unknown, ["demote.grace", "dram.borrow", "selector.pods.matchFields", "swapOut"]);
        let mut known = spec;
        known.as_object_mut().unwrap().remove("swapOut");
        known["dram"].as_object_mut().unwrap().remove("borrow");
        known["demote"].as_object_mut().unwrap().remove("grace");
        known["selector"]["pods"].as_object_mut().unwrap().remove("matchFields");
        assert_eq!(read, serde_json::from_value(known).unwrap());
    }

    #[test]
    fn what_has_no_meaning_is_an_error_all_the_same() {
        for bad in
            [json!({ "mode": "Guess" }), json!({ "dram": 5 }), json!({ "demote": { "after": "soon" } })]
        {
            assert!(read::<PolicySpec>(bad.clone()).is_err(), "{bad}");
        }
    }
}
