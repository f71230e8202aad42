//! The API of the console. Its page is tested in `tests/web`.

use serde_json::Value;

use crate::server::{Browser, Server};

async fn sessions(server: &Server, query: &str) -> Value {
    let answer = server.manager_get(&format!("/api/sessions{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn ids(page: &Value) -> Vec<u64> {
    page["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn sessions_are_sorted_and_paged() {
    let server = Server::start(&[]);
    let mut browsers = Vec::new();
    for _ in 0..5 {
        browsers.push(Browser::connect(server.browsers).await);
    }
    browsers[2].send(r#"42["/subscription",{"op":"subscribe","type":"allWorkers"}]"#).await;
    server.until("the subscription", |stats| stats["rooms"]["Workers"] == 1).await;
    server.until("all sessions", |stats| stats["sessions"]["total"] == 5).await;

    let oldest_first = ids(&sessions(&server, "").await);
    assert!(oldest_first.is_sorted() && oldest_first.len() == 5, "{oldest_first:?}");
    let youngest = sessions(&server, "?sort=age&order=ascending&limit=2").await;
    assert_eq!((ids(&youngest), &youngest["total"]), (vec![oldest_first[4], oldest_first[3]], &5.into()));
    assert_eq!(ids(&sessions(&server, "?offset=4&limit=2").await), oldest_first[4..]);
    assert!(ids(&sessions(&server, "?offset=18446744073709551615&limit=18446744073709551615").await).is_empty());

    let most_rooms = sessions(&server, "?sort=rooms").await;
    let first = &most_rooms["sessions"][0];
    assert_eq!((&first["id"], &first["room_count"]), (&oldest_first[2].into(), &3.into()));
    assert_eq!((&first["address"], &first["transport"]), (&"127.0.0.1".into(), &"websocket".into()));
    assert_eq!(first["waiting_bytes"], 0);
    assert_eq!(sessions(&server, "?address=192.0.2.7").await["total"], 0);
    for bad in ["?sort=name", "?limit=-1", "?address=here", "?nonsense=1"] {
        assert_eq!(server.manager_get(&format!("/api/sessions{bad}")).await.status, 400, "{bad}");
    }

    let rooms: Value = serde_json::from_str(&server.manager_get("/api/rooms?limit=2").await.body).unwrap();
    assert_eq!(rooms["total"], 3);
    assert_eq!(rooms["rooms"][0], serde_json::json!({ "name": "Chat", "members": 5 }));
}

#[tokio::test]
async fn an_operator_disconnects_one_session() {
    let server = Server::start(&[]);
    let mut browser = Browser::connect(server.browsers).await;
    let _other = Browser::connect(server.browsers).await;
    server.until("both sessions", |stats| stats["rooms"]["Jobs"] == 2).await;
    let [id, _] = ids(&sessions(&server, "").await)[..] else { panic!("two sessions") };
    assert_eq!(server.manager_request("DELETE", "/api/sessions/999999", &[], "").await.status, 404);
    assert_eq!(server.manager_request("GET", &format!("/api/sessions/{id}"), &[], "").await.status, 405);
    assert_eq!(server.manager_request("DELETE", &format!("/api/sessions/{id}"), &[], "").await.status, 202);
    while browser.next().await.is_some() {}
    server.until("it to be counted", |stats| stats["disconnects"]["operator"] == 1).await;
    assert_eq!(server.stats().await["sessions"]["total"], 1);
}

#[tokio::test]
async fn the_history_has_what_flows_now() {
    let server = Server::start(&[]);
    let _browser = Browser::connect(server.browsers).await;
    server.until("the session", |stats| stats["sessions"]["websocket"] == 1).await;
    server.publish(&format!("[{},{}]", super::metrics::JOB, super::metrics::JOB)).await;
    let history: Value = serde_json::from_str(&server.manager_get("/api/history").await.body).unwrap();
    let kind = history["events"].as_array().unwrap().iter().position(|kind| kind == "job-update").unwrap();
    assert_eq!(history["current"]["events"][kind], 2);
    assert_eq!(history["current"]["websocket"], 1);
    let buckets = history["buckets_s"].as_array().unwrap().len();
    assert_eq!(history["current"]["latencies"].as_array().unwrap().len(), buckets + 1);
    assert_eq!(history["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn draining_takes_a_confirmation() {
    let mut server = Server::start(&[]);
    let json = ("content-type", "application/json");
    for (headers, body, status) in [
        (&[json][..], r#"{"confirm":false}"#, 422),
        (&[json], "{}", 400),
        (&[json], "", 400),
        (&[], r#"{"confirm":true}"#, 400),
    ] {
        assert_eq!(server.manager_request("POST", "/api/drain", headers, body).await.status, status, "{body}");
    }
    assert_eq!(server.manager_request("POST", "/api/drain", &[json], r#"{"confirm":true}"#).await.status, 202);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = Server::start(&[]);
    let host = server.manager.to_string();
    let own = format!("http://{host}");
    for (target, headers, status) in [
        ("/", &[][..], 200),
        ("/", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 200),
        ("/", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
        ("/console/console.js", &[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], 200),
        ("/console/console.js", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
        ("/api/sessions", &[("sec-fetch-site", "same-origin")], 200),
        ("/api/sessions", &[("sec-fetch-site", "same-site")], 403),
        ("/api/sessions", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 403),
        ("/api/sessions", &[("origin", own.as_str())], 200),
        ("/api/sessions", &[("origin", "http://127.0.0.1:1")], 403),
        ("/api/sessions", &[("origin", "null")], 403),
        ("/api/sessions", &[("host", "evil.example"), ("origin", "http://evil.example")], 421),
        ("/", &[("host", "evil.example")], 421),
        ("/console/nothing.js", &[], 404),
        ("/console/console.html", &[], 404),
    ] {
        let answer = server.manager_request("GET", target, headers, "").await;
        assert_eq!(answer.status, status, "{target} {headers:?}: {}", answer.body);
    }
    let page = server.manager_get("/").await;
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
}
