use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[test]
fn a_balancer_without_a_server_is_noticed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(UNAVAILABLE).unwrap();
    });
    let kubeconfig = json!({
        "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "" } }],
        "current-context": "test",
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let api = api(kube::Client::try_from(config(Some(&file)).await.unwrap()).unwrap());
        // Nobody answers a second time.
        api.get("any").await
    });
    match answer {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 503),
        other => panic!("{other:?}"),
    }
    answering.join().unwrap();
}

#[test]
fn what_a_server_made_of_a_status_is_no_reason_to_write_it_again_and_what_another_made_of_it_is() {
    let status = |engine: &str, promotion: Option<&str>| NodeTieringStatus {
        engine: Some(engine.to_owned()),
        promotion: promotion.map(str::to_owned),
        ..NodeTieringStatus::default()
    };
    let sent = status("pages", Some("kernel"));
    // Its definitions are older, and have no `promotion`.
    let stored = status("pages", None);
    let mut written = Written { has: sent.clone(), sent: sent.clone(), stored: stored.clone() };
    let mut check = |heard: &NodeTieringStatus, has: &NodeTieringStatus| {
        written.heard(heard.clone());
        assert_eq!(&written.has, has);
    };
    check(&stored, &sent);
    let late = status("reclaim", None);
    check(&late, &late);
    check(&stored, &sent);
}
