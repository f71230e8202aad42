//! A long-polling Socket.IO v2 client on the standard library alone: it sends one event with an acknowledgement id, prints what
//! arrives, and leaves once the acknowledgement is there.
//!
//! ```sh
//! cargo run -p socketio2-protocol --example client -- 127.0.0.1:8081 /chat '{"name":"me","text":"hello"}'
//! ```

use std::{
    error::Error,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use socketio2_protocol::{
    AckId, EnginePacket, Event, Namespace, ServerOpen, SocketPacket,
    engine_payload::{DEFAULT_MAX_PACKETS, Payload, encode_text},
};

const ACK: u32 = 1;
const MAX_BODY: u64 = 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("usage: client ADDR:PORT [EVENT [JSON]]")?;
    let name = arguments.next().unwrap_or_else(|| "hello".to_owned());
    let json = arguments.next().unwrap_or_else(|| "null".to_owned());

    let first = request(&address, "GET", "", &[])?;
    let first = Payload::decode(&first, DEFAULT_MAX_PACKETS)?;
    let Some(EnginePacket::Open(open)) = first.packets().next() else { return Err("no open packet".into()) };
    let open = ServerOpen::decode(open)?;
    let sid = format!("&sid={}", open.sid);

    let event = Event { name: name.into(), args: vec![serde_json::from_str(&json)?] };
    let mut message = vec![b'4'];
    SocketPacket::Event { namespace: Namespace::ROOT, ack: Some(AckId::from(ACK)), event }.encode(&mut message);
    send(&address, &sid, &message)?;

    // One turn of the loop is one request, so a client that has to stay connected pings here whenever half of `ping_interval`
    // has passed.
    loop {
        let body = request(&address, "GET", &sid, &[])?;
        for packet in Payload::decode(&body, DEFAULT_MAX_PACKETS)?.packets() {
            let EnginePacket::Message(text) = packet else { continue };
            match SocketPacket::decode(text)? {
                SocketPacket::Event { event, .. } => {
                    let args: Vec<_> = event.args.iter().map(|argument| argument.get()).collect();
                    writeln!(io::stdout(), "event {} {}", event.name, args.join(" "))?;
                }
                SocketPacket::Ack { ack, args, .. } if ack.value() == u64::from(ACK) => {
                    let args: Vec<_> = args.iter().map(|argument| argument.get()).collect();
                    writeln!(io::stdout(), "acknowledged {}", args.join(" "))?;
                    return send(&address, &sid, b"1");
                }
                SocketPacket::Error { message, .. } => return Err(message.into()),
                SocketPacket::Connect { .. }
                | SocketPacket::Disconnect { .. }
                | SocketPacket::Ack { .. }
                | SocketPacket::BinaryEvent { .. }
                | SocketPacket::BinaryAck { .. } => {}
            }
        }
    }
}

fn send(address: &str, sid: &str, packet: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut body = Vec::new();
    encode_text([packet], &mut body);
    match request(address, "POST", sid, &body)?.as_slice() {
        b"ok" => Ok(()),
        other => Err(String::from_utf8_lossy(other).into()),
    }
}

/// One request on a connection of its own; returns the body of its response.
fn request(address: &str, method: &str, sid: &str, body: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "{method} /socket.io/?EIO=3&transport=polling{sid} HTTP/1.1\r\nhost: {address}\r\n")?;
    write!(stream, "content-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut response = Vec::new();
    stream.take(MAX_BODY).read_to_end(&mut response)?;
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").ok_or("no HTTP response")?;
    let body = response.split_off(end + 4);
    if response.starts_with(b"HTTP/1.1 200 ") { Ok(body) } else { Err(String::from_utf8_lossy(&body).into()) }
}
