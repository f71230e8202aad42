//! A long-polling Socket.IO v2 server on the standard library alone: it acknowledges every event and sends it back.
//!
//! ```sh
//! cargo run -p socketio2-protocol --example server          # prints the address that it listens at
//! ```
//!
//! It has what the protocol needs and no more. A server for strangers also limits its sessions and their outboxes, times out
//! requests, and closes sessions whose pings stay away.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use socketio2_protocol::{
    Connection, EnginePacket, HandshakeError, HandshakeQuery, OpenPacket, Received, SessionId, TransportName,
    engine_payload::{DEFAULT_MAX_PACKETS, Payload, encode_text},
    write_ack, write_event, write_invalid_namespace,
};

const MAX_BODY: usize = 64 * 1024;
const MAX_HEAD: u64 = 16 * 1024;
const PING_INTERVAL: Duration = Duration::from_secs(25);

struct Session {
    connection: Connection,
    /// Packets for the next `GET`.
    outbox: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Server {
    sessions: Mutex<HashMap<SessionId, Session>>,
    changed: Condvar,
}

struct Request {
    method: String,
    query: String,
    body: Vec<u8>,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "listening {}", listener.local_addr()?)?;
    let server: &'static Server = Box::leak(Box::default());
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve(server, &stream) {
                let _ = writeln!(io::stderr(), "connection: {error}");
            }
        });
    }
    Ok(())
}

/// Answers one request and closes the connection.
fn serve(server: &Server, mut stream: &TcpStream) -> io::Result<()> {
    let request = read_request(stream)?;
    let (status, body) = match answer(server, &request) {
        Ok(body) => (200, body),
        Err(refusal) => (refusal.http_status(), refusal.to_json().into_bytes()),
    };
    write!(stream, "HTTP/1.1 {status} \r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}

fn answer(server: &Server, request: &Request) -> Result<Vec<u8>, HandshakeError> {
    let query = HandshakeQuery::parse(&request.query)?;
    if query.transport != TransportName::Polling || query.jsonp.is_some() {
        return Err(HandshakeError::TransportUnknown);
    }
    match (request.method.as_str(), query.sid) {
        ("GET", None) => server.open().map_err(|_| HandshakeError::BadRequest),
        ("GET", Some(sid)) => server.poll(sid),
        ("POST", Some(sid)) => server.receive(sid, &request.body),
        _ => Err(HandshakeError::BadMethod),
    }
}

impl Server {
    /// Begins a session: the open packet, and the connect packet of the namespace `/`.
    fn open(&self) -> io::Result<Vec<u8>> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let sid = SessionId::from_random(random);
        let mut open = Vec::new();
        OpenPacket { sid, node: None, upgrades: &[], ping_interval: PING_INTERVAL, ping_timeout: 2 * PING_INTERVAL }
            .encode(&mut open);
        let session = Session { connection: Connection::new(), outbox: Vec::new() };
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(sid, session);
        Ok(body([&open[..], b"40"]))
    }

    /// Waits for packets, or until a client would take the server for dead.
    fn poll(&self, sid: SessionId) -> Result<Vec<u8>, HandshakeError> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |sessions: &mut HashMap<_, Session>| sessions.get(&sid).is_some_and(|s| s.outbox.is_empty());
        let (mut sessions, _) =
            self.changed.wait_timeout_while(sessions, PING_INTERVAL, is_empty).unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&sid).ok_or(HandshakeError::SessionUnknown)?;
        if session.outbox.is_empty() { Ok(body(["6"])) } else { Ok(body(session.outbox.drain(..))) }
    }

    /// Takes the packets of a `POST`. A body that does not parse ends the session.
    fn receive(&self, sid: SessionId, bytes: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(&sid).ok_or(HandshakeError::SessionUnknown)?;
        let packets = Payload::decode(bytes, DEFAULT_MAX_PACKETS);
        let goes_on = packets.is_ok_and(|payload| payload.packets().all(|packet| session.receive(packet)));
        if !goes_on {
            sessions.remove(&sid);
        }
        self.changed.notify_all();
        Ok(b"ok".to_vec())
    }
}

impl Session {
    /// Returns whether the session goes on.
    fn receive(&mut self, packet: EnginePacket<'_>) -> bool {
        let mut reply = Vec::new();
        match self.connection.receive(packet) {
            Err(_) | Ok(Received::Closed) => return false,
            Ok(Received::Ping(data)) => EnginePacket::Pong(data).encode_text(&mut reply),
            Ok(Received::Entered) => reply.extend_from_slice(b"40"),
            Ok(Received::InvalidNamespace(namespace)) => write_invalid_namespace(&mut reply, namespace),
            Ok(Received::Event { ack, event }) => {
                let argument = event.args.first().map_or("null", |argument| argument.get());
                write_event(&mut reply, &event.name, argument);
                if let Some(ack) = ack {
                    self.outbox.push(std::mem::take(&mut reply));
                    write_ack(&mut reply, ack, "ok");
                }
            }
            Ok(Received::Nothing | Received::Upgrade | Received::Left | Received::BinaryEvent { .. }) => return true,
        }
        self.outbox.push(reply);
        true
    }
}

fn body<P: AsRef<[u8]>>(packets: impl IntoIterator<Item = P>) -> Vec<u8> {
    let mut body = Vec::new();
    encode_text(packets, &mut body);
    body
}

fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed request");
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.take(MAX_HEAD + MAX_BODY as u64));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let [method, target, _version] = line.split_whitespace().collect::<Vec<_>>()[..] else { return Err(malformed()) };
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let (method, query) = (method.to_owned(), query.to_owned());
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(|_| malformed())?;
            }
            Some(_) => {}
            None => break,
        }
    }
    if length > MAX_BODY {
        return Err(malformed());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { method, query, body })
}
