//! Pages of other hosts, where the tests of the single transports do not look.

use tokio::net::TcpStream;

use crate::support::{
    http::{Connection, POLLING, Request, WEBSOCKET},
    server::Server,
};

const EVIL: &str = "https://evil.example";

#[actix_rt::test]
async fn any_page_may_come_only_where_that_is_said() {
    for (arguments, polling, websocket, allowed) in
        [(&["--allow-origin", "*"][..], [200, 204], 101, Some(EVIL)), (&[][..], [403, 403], 403, None)]
    {
        let server = Server::start(arguments).await;
        for (method, status) in ["GET", "OPTIONS"].into_iter().zip(polling) {
            let answer = Request::new(method, POLLING).header("origin", EVIL).send(server.browsers).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, allowed), "{method}");
        }
        let answer = Request::upgrade(WEBSOCKET).header("origin", EVIL).send(server.browsers).await;
        assert_eq!(answer.status, websocket);
    }
}

#[actix_rt::test]
async fn a_page_that_knows_a_session_may_not_use_it() {
    let server = Server::start(&[]).await;
    let mut browser = Connection::new(TcpStream::connect(server.browsers).await.unwrap());
    let sid = browser.request(Request::new("GET", POLLING)).await.sid();
    let of_session = |target| format!("{target}&sid={sid}");
    for request in [
        Request::new("GET", &of_session(POLLING)),
        Request::new("POST", &of_session(POLLING)).body(b"1:1"),
        Request::new("GET", &format!("{}&j=0", of_session(POLLING))),
        Request::new("OPTIONS", &of_session(POLLING)),
        Request::upgrade(&of_session(WEBSOCKET)),
    ] {
        let answer = request.header("origin", EVIL).send(server.browsers).await;
        assert_eq!((answer.status, answer.text().as_str()), (403, r#"{"code":4,"message":"Forbidden"}"#));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    assert_eq!(browser.request(Request::new("POST", &of_session(POLLING)).body(b"1:2")).await.text(), "ok");
    let stats = server.stats().await;
    assert_eq!((&stats["sessions"]["polling"], &stats["refused"]["forbidden-origin"]), (&1.into(), &5.into()));
}
