//! Answers that both binaries give in the same form.

use std::fmt::Display;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// A scrape, or what went wrong with it.
#[must_use]
pub fn metrics(text: prometheus::Result<String>) -> Response {
    match text {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => broken(&error),
    }
}

/// A value as JSON for people.
#[must_use]
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(value) {
        Ok(json) => ([(CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => broken(&error),
    }
}

/// Whether all is well, in words.
#[must_use]
pub fn verdict(verdict: Result<String, String>) -> Response {
    match verdict {
        Ok(words) => (StatusCode::OK, words + "\n").into_response(),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, words + "\n").into_response(),
    }
}

/// What is served instead of a path that is not; `paths` has a line for each that is.
#[must_use]
pub fn not_found(paths: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("nothing here; there is\n{paths}")).into_response()
}

fn broken(error: &dyn Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}
