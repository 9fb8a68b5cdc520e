//! Values and policies as people write them.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use api::{
    Factor, MemoryHighInputs, ParseError, Percentage, PolicySpec, Quantity, Rate, TierReference,
    WireDuration, WireShare,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tiering::Bytes;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let text = text.as_ref();
    comes_back::<Quantity>(text);
    comes_back::<Rate>(text);
    comes_back::<Percentage>(text);
    comes_back::<Factor>(text);
    comes_back::<WireShare>(text);
    comes_back::<WireDuration>(text);
    comes_back::<TierReference>(text);

    if let Ok(spec) = serde_json::from_str::<PolicySpec>(text) {
        let json = serde_json::to_string(&spec).expect("a policy can be written");
        assert_eq!(serde_json::from_str::<PolicySpec>(&json).ok(), Some(spec.clone()), "{json}");
        let inputs = MemoryHighInputs { request: Bytes(1 << 28), limit: Bytes(1 << 30) };
        for inputs in [None, Some(inputs)] {
            if let Err(error) = spec.to_policy(inputs) {
                assert!(!error.to_string().is_empty() && !error.path().is_empty());
            }
        }
    }
});

/// What is written as text reads as the same value, from text and from JSON.
fn comes_back<T>(text: &str)
where
    T: FromStr<Err = ParseError> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            let again: T = shown.parse().unwrap_or_else(|error| panic!("{text:?} became {shown:?}: {error}"));
            assert_eq!(again, value, "{text:?} became {shown:?}");
            assert_eq!(again.to_string(), shown);
            let json = serde_json::to_string(&value).expect("a value can be written");
            assert_eq!(serde_json::from_str::<T>(&json).ok(), Some(value), "{json}");
        }
        Err(error) => {
            let said = error.to_string();
            let begin: String = text.chars().take(64).collect();
            assert!(said.starts_with(&format!("`{begin}")) && said.contains("` is not "), "{said}");
            assert!(said.chars().count() < 300, "the remedy is hidden: {said}");
        }
    }
    let _ = serde_json::from_str::<T>(text);
}
