use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::watch::objects::{Guarded, Namespace};

/// What a server answers to one request after the other, and what it was asked.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<Vec<(StatusCode, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn answer(RawQuery(query): RawQuery, Shared(script): Shared<Script>) -> Response {
    script.asked.lock().unwrap().push(query.unwrap_or_default());
    let next = script.answers.lock().unwrap().pop();
    next.unwrap_or((StatusCode::SERVICE_UNAVAILABLE, String::new())).into_response()
}

fn object(name: &str, version: u32) -> Value {
    json!({ "metadata": { "name": name, "resourceVersion": version.to_string() } })
}

/// As servers write it, the type first: an object before it could not be kept as text.
fn event(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn bookmark(version: u32, ends_the_list: bool) -> String {
    let annotations = if ends_the_list { json!({ END_OF_LIST: "true" }) } else { json!({}) };
    let metadata = json!({ "resourceVersion": version.to_string(), "annotations": annotations });
    event("BOOKMARK", &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))
}

fn events(events: &[String]) -> (StatusCode, String) {
    (StatusCode::OK, events.concat())
}

fn refusal(code: u16) -> (StatusCode, String) {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Invalid", "message": "forbidden for watch" });
    (StatusCode::from_u16(code).unwrap(), status.to_string())
}

/// The first so many events, in words, of a server that answers so; and the queries that it was asked.
async fn seen(answers: &[(StatusCode, String)], most: usize) -> (Vec<String>, Vec<String>) {
    let script = Script {
        answers: Arc::new(Mutex::new(answers.iter().rev().cloned().collect())),
        asked: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(script.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = kube::Config::new(url.parse().unwrap());
    config.default_retry = false;
    let api: Api<Guarded<Namespace>> = Api::all(Client::try_from(config).unwrap());
    let words = |event: Result<Event<Guarded<Namespace>>>| match event {
        Ok(Event::Init) => "list".to_owned(),
        Ok(Event::InitDone) => "listed".to_owned(),
        Ok(Event::InitApply(object)) => format!("listed {}", object.name_any()),
        Ok(Event::Apply(object)) => format!("applied {}", object.name_any()),
        Ok(Event::Delete(object)) => format!("deleted {}", object.name_any()),
        Err(Error::WatchStartFailed(_)) => "not begun".to_owned(),
        Err(Error::WatchError(status)) => format!("error {}", status.code),
        Err(error) => format!("error {error}"),
    };
    let seen = Box::pin(objects(api)).take(most).map(words).collect().await;
    server.abort();
    let asked = script.asked.lock().unwrap().clone();
    (seen, asked)
}

#[tokio::test]
async fn a_list_is_of_the_most_recent_state_and_ends_with_the_marked_bookmark() {
    let first = events(&[
        event("ADDED", &object("a", 1)),
        bookmark(1, false),
        event("ADDED", &object("b", 2)),
        bookmark(7, true),
        event("MODIFIED", &object("a", 8)),
        event("DELETED", &object("b", 9)),
        bookmark(12, false),
    ]);
    let second = events(&[event("ADDED", &object("c", 13))]);
    let (seen, asked) = seen(&[first, second], 7).await;
    assert_eq!(seen, ["list", "listed a", "listed b", "listed", "applied a", "deleted b", "applied c"]);
    assert!(asked[0].contains("sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), "{asked:?}");
    assert!(asked[0].ends_with("&resourceVersion="), "nothing that a cache once had: {asked:?}");
    // What came to an end goes on where it was, without a list.
    assert!(asked[1].ends_with("&resourceVersion=12") && !asked[1].contains("sendInitial"), "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_is_too_old_lists_again_and_other_errors_go_on() {
    let listed = |name, version| events(&[event("ADDED", &object(name, version)), bookmark(version, true)]);
    let error = |code: u16| events(&[event("ERROR", &serde_json::from_str(&refusal(code).1).unwrap())]);
    let (seen, asked) = seen(&[listed("a", 3), error(500), error(410), listed("b", 4)], 8).await;
    assert_eq!(seen, ["list", "listed a", "listed", "error 500", "error 410", "list", "listed b", "listed"]);
    assert!(asked[2].ends_with("&resourceVersion=3"), "{asked:?}");
    assert!(asked[3].contains("sendInitialEvents=true"), "{asked:?}");
}

#[tokio::test]
async fn a_server_without_such_lists_and_one_that_does_not_end_them_are_asked_for_pages() {
    let page = json!({ "kind": "NamespaceList", "apiVersion": "v1", "metadata": { "resourceVersion": "5" }, "items": [object("a", 1)] });
    let page = (StatusCode::OK, page.to_string());
    for code in [400, 422] {
        let (seen, asked) = seen(&[refusal(code), page.clone()], 3).await;
        assert_eq!(seen, ["list", "listed a", "listed"]);
        assert!(asked[1].contains("limit=500"), "{asked:?}");
    }
    let half = [event("ADDED", &object("a", 1))];
    let (seen_by_halves, _) = seen(&[events(&half), page.clone()], 5).await;
    assert_eq!(seen_by_halves, ["list", "listed a", "list", "listed a", "listed"]);
    // As with an old etcd.
    let unable = events(&[event("ERROR", &serde_json::from_str(&refusal(500).1).unwrap())]);
    let (seen, _) = seen(&[unable, page], 4).await;
    assert_eq!(seen, ["list", "list", "listed a", "listed"]);
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_again_by_stream() {
    let listed = events(&[bookmark(3, true)]);
    let (seen, asked) = seen(&[refusal(503), refusal(403), listed], 4).await;
    assert_eq!(seen, ["not begun", "not begun", "list", "listed"]);
    assert!(asked.iter().all(|asked| asked.contains("sendInitialEvents=true")), "{asked:?}");
}
