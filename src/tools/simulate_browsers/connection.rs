//! One connection without its sockets: bytes in, bytes out, over either transport.

use super::frame::{Frame, FrameError, MAX_MESSAGE, Opcode, next_frame, write_masked};
use super::http::{read_answer, read_head};
use super::protocol::{Broken, Manners, Protocol, Reply, Transport};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) protocol: Protocol,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    /// Waits for the answer to the upgrade request.
    Upgrading,
    WebSocket {
        /// A message that comes in several frames, as far as it has come.
        unfinished: Vec<u8>,
    },
    Polling {
        /// Empty before the open packet.
        sid: String,
        /// The answer to the poll under way, as far as it has come.
        answer: Vec<u8>,
    },
}

/// What a connection wants to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Out {
    /// On the connection's own socket.
    pub(super) main: Vec<u8>,
    /// Requests that each need another, since a poll occupies the first.
    pub(super) posts: Vec<Vec<u8>>,
}

/// Largest body of a poll that is read, in bytes.
const MAX_BODY: usize = 16 << 20;

impl Connection {
    /// Begins with the request that opens a connection.
    pub(super) fn open(audience: u32, manners: &Manners) -> (Self, Out) {
        let Manners { host, path, .. } = manners;
        let (carrier, request) = match manners.transport {
            // The server's answer to the key is not checked, so it need not be a secret.
            Transport::Websocket => (
                Carrier::Upgrading,
                format!(
                    "GET {path}?EIO=3&transport=websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
                     Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2ltdWxhdGUtYnJvd3Nlcg==\r\n\r\n"
                ),
            ),
            Transport::Polling => (Carrier::Polling { sid: String::new(), answer: Vec::new() }, poll("", manners)),
        };
        let out = Out { main: request.into_bytes(), posts: Vec::new() };
        (Self { protocol: Protocol::new(audience), carrier }, out)
    }

    pub(super) fn ping(&self, manners: &Manners, out: &mut Out) {
        match &self.carrier {
            Carrier::Upgrading => {}
            Carrier::WebSocket { .. } => write_masked(Opcode::Text, b"2", &mut out.main),
            Carrier::Polling { sid, .. } => out.posts.push(post(sid, manners, &["2".to_owned()])),
        }
    }

    /// Leaves as a page does that is closed. One that polls just does not come back.
    pub(super) fn close(&self, out: &mut Out) {
        match &self.carrier {
            Carrier::WebSocket { .. } => write_masked(Opcode::Close, &1001_u16.to_be_bytes(), &mut out.main),
            Carrier::Upgrading | Carrier::Polling { .. } => {}
        }
    }

    /// Handles received bytes and returns how many of them are complete; the rest must be part of
    /// the next call.
    ///
    /// What is to be sent is appended to `out`; `on_event` gets each event packet.
    pub(super) fn receive(
        &mut self,
        mut input: &[u8],
        manners: &Manners,
        out: &mut Out,
        on_event: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Broken> {
        let given = input.len();
        if matches!(self.carrier, Carrier::Upgrading) {
            let Some(head) = read_head(input)? else { return Ok(0) };
            if head.status != 101 {
                return Err(Broken::Refused(head.status));
            }
            input = &input[head.length..];
            self.carrier = Carrier::WebSocket { unfinished: Vec::new() };
        }
        let Self { protocol, carrier } = self;
        match carrier {
            Carrier::Upgrading => Ok(0),
            Carrier::WebSocket { unfinished } => {
                while let Some(frame) = next_frame(&mut input)? {
                    receive_frame(frame, unfinished, protocol, manners, out, on_event)?;
                }
                Ok(given - input.len())
            }
            Carrier::Polling { sid, answer } => {
                answer.extend_from_slice(input);
                receive_poll(sid, answer, protocol, manners, out, on_event)?;
                Ok(given)
            }
        }
    }
}

fn receive_frame(
    frame: Frame<'_>,
    unfinished: &mut Vec<u8>,
    protocol: &mut Protocol,
    manners: &Manners,
    out: &mut Out,
    on_event: &mut impl FnMut(&[u8]),
) -> Result<(), Broken> {
    let mut packet = |packet: &[u8], out: &mut Out| {
        if protocol.packet(packet, manners, on_event)? == Reply::Subscribe {
            for subscription in &manners.subscriptions[protocol.audience as usize] {
                write_masked(Opcode::Text, subscription.as_bytes(), &mut out.main);
            }
        }
        Ok(())
    };
    match frame {
        Frame { opcode: Opcode::Text, last: true, payload } => packet(payload, out),
        Frame { opcode: Opcode::Text, last: false, payload } => {
            *unfinished = payload.to_vec();
            Ok(())
        }
        Frame { opcode: Opcode::Continuation, last, payload } => {
            if unfinished.len() + payload.len() > MAX_MESSAGE {
                return Err(FrameError::TooLarge.into());
            }
            unfinished.extend_from_slice(payload);
            if last { packet(&std::mem::take(unfinished), out) } else { Ok(()) }
        }
        Frame { opcode: Opcode::Ping, payload, .. } => {
            write_masked(Opcode::Pong, payload, &mut out.main);
            Ok(())
        }
        Frame { opcode: Opcode::Close, .. } => Err(Broken::CloseFrame),
        Frame { opcode: Opcode::Binary | Opcode::Pong, .. } => Ok(()),
    }
}

/// Takes a poll's answer once it is whole, and polls again.
fn receive_poll(
    sid: &mut String,
    answer: &mut Vec<u8>,
    protocol: &mut Protocol,
    manners: &Manners,
    out: &mut Out,
    on_event: &mut impl FnMut(&[u8]),
) -> Result<(), Broken> {
    let Some(whole) = read_answer(answer, false, MAX_BODY)? else { return Ok(()) };
    answer.clear();
    if whole.status != 200 {
        return Err(Broken::Refused(whole.status));
    }
    let mut rest = std::str::from_utf8(&whole.body).map_err(|_| Broken::BadPayload)?;
    while !rest.is_empty() {
        let packet = next_packet(&mut rest).ok_or(Broken::BadPayload)?;
        match protocol.packet(packet.as_bytes(), manners, on_event)? {
            Reply::Nothing => {}
            Reply::Opened(id) if id.bytes().all(|byte| byte.is_ascii_graphic()) => *sid = id,
            Reply::Opened(_) => return Err(Broken::BadOpen),
            Reply::Subscribe => {
                out.posts.push(post(sid, manners, &manners.subscriptions[protocol.audience as usize]));
            }
        }
    }
    out.main.extend_from_slice(poll(sid, manners).as_bytes());
    Ok(())
}

/// Takes the first packet off a payload: `<length>:<packet>`, with the length in UTF-16 code units.
fn next_packet<'a>(payload: &mut &'a str) -> Option<&'a str> {
    let (length, rest) = payload.split_once(':')?;
    let mut units: usize = length.parse().ok()?;
    let mut characters = rest.chars();
    while units > 0 {
        units = units.checked_sub(characters.next()?.len_utf16())?;
    }
    *payload = characters.as_str();
    rest.strip_suffix(*payload)
}

fn poll(sid: &str, Manners { host, path, .. }: &Manners) -> String {
    let separator = if sid.is_empty() { "" } else { "&sid=" };
    format!("GET {path}?EIO=3&transport=polling&b64=1{separator}{sid} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn post(sid: &str, Manners { host, path, .. }: &Manners, packets: &[String]) -> Vec<u8> {
    let body: String = packets.iter().map(|packet| format!("{}:{packet}", packet.encode_utf16().count())).collect();
    let head = format!(
        "POST {path}?EIO=3&transport=polling&b64=1&sid={sid} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::http::AnswerError;
    use super::super::protocol::Phase;
    use super::*;

    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    const OPEN: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":3000,"pingTimeout":4000}"#;

    fn manners(transport: Transport) -> Manners {
        Manners::new(transport, "h:1", "/socket.io/", &[Vec::new(), vec!["1".to_owned(), "2".to_owned()]], true)
    }

    fn opened(transport: Transport, audience: u32) -> Connection {
        Connection::open(audience, &manners(transport)).0
    }

    fn text(packet: &str) -> Vec<u8> {
        [&[0x81, packet.len() as u8], packet.as_bytes()].concat()
    }

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// Gives `input` in pieces of `size` bytes, as a socket might, and returns what was sent and which events came.
    fn in_pieces(connection: &mut Connection, input: &[u8], size: usize) -> Result<(Out, Vec<String>), Broken> {
        let transport = if matches!(connection.carrier, Carrier::Polling { .. }) {
            Transport::Polling
        } else {
            Transport::Websocket
        };
        let (mut out, mut events, mut waiting) = (Out::default(), Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            waiting.extend_from_slice(piece);
            let mut on_event = |packet: &[u8]| events.push(String::from_utf8(packet.to_vec()).unwrap());
            let used = connection.receive(&waiting, &manners(transport), &mut out, &mut on_event)?;
            waiting.drain(..used);
        }
        assert!(waiting.is_empty());
        Ok((out, events))
    }

    #[test]
    fn a_websocket_is_understood_however_its_bytes_are_cut() {
        let input = [SWITCH, &text(OPEN), &text("40"), &text("42[\"/jobs\",{}]"), &text("3")].concat();
        for size in 1..=input.len() {
            let mut connection = opened(Transport::Websocket, 0);
            let (out, events) = in_pieces(&mut connection, &input, size).unwrap();
            assert_eq!((connection.protocol.phase, out), (Phase::Ready, Out::default()));
            assert_eq!(events, ["42[\"/jobs\",{}]"]);
        }
    }

    #[test]
    fn polls_are_understood_however_their_bytes_are_cut() {
        let event = "42[\"/jobs\",{\"name\":\"\u{1f3ac}é\"}]";
        let length = event.encode_utf16().count();
        let first = answer(&format!("{}:{OPEN}2:40", OPEN.len()));
        let second = answer(&format!("1:3{length}:{event}1:6"));
        for size in 1..=first.len().max(second.len()) {
            let mut connection = opened(Transport::Polling, 0);
            let next = Out { main: poll("x", &manners(Transport::Polling)).into_bytes(), posts: Vec::new() };
            assert_eq!(in_pieces(&mut connection, &first, size).unwrap(), (next, Vec::new()));
            assert_eq!(connection.protocol.phase, Phase::Ready);
            assert_eq!(in_pieces(&mut connection, &second, size).unwrap().1, [event]);
        }
    }

    #[test]
    fn subscriptions_are_sent_the_way_of_the_transport() {
        let [first, second] = [r#"420["/subscription",1]"#, r#"421["/subscription",2]"#];
        let mut connection = opened(Transport::Websocket, 1);
        let (out, _) = in_pieces(&mut connection, &[SWITCH, &text(OPEN), &text("40")].concat(), 1000).unwrap();
        let mut expected = Vec::new();
        write_masked(Opcode::Text, first.as_bytes(), &mut expected);
        write_masked(Opcode::Text, second.as_bytes(), &mut expected);
        assert_eq!(out, Out { main: expected, posts: Vec::new() });

        let mut connection = opened(Transport::Polling, 1);
        let body = format!("{}:{OPEN}2:40", OPEN.len());
        let (out, _) = in_pieces(&mut connection, &answer(&body), 1000).unwrap();
        let posted = String::from_utf8(out.posts.concat()).unwrap();
        assert!(posted.starts_with("POST /socket.io/?EIO=3&transport=polling&b64=1&sid=x HTTP/1.1\r\n"));
        assert!(posted.ends_with(&format!("\r\n\r\n22:{first}22:{second}")), "{posted}");
    }

    #[test]
    fn fragments_are_put_together_and_pings_between_them_answered() {
        let mut connection = opened(Transport::Websocket, 0);
        let fragments: [&[u8]; 4] = [b"\x01\x0542[\"/", b"\x89\x02hi", b"\x00\x05jobs\"", b"\x80\x04,{}]"];
        let input = [SWITCH, &text(OPEN), &text("40"), &fragments.concat()].concat();
        let (out, events) = in_pieces(&mut connection, &input, 7).unwrap();
        assert_eq!(events, ["42[\"/jobs\",{}]"]);
        let mut pong = Vec::new();
        write_masked(Opcode::Pong, b"hi", &mut pong);
        assert_eq!(out.main, pong);
    }

    #[test]
    fn every_way_to_end_has_its_name() {
        let ends = [
            (Transport::Websocket, &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], Broken::Refused(400)),
            (Transport::Websocket, b"nonsense\r\n\r\n", Broken::Answer(AnswerError::NotHttp)),
            (Transport::Websocket, &[SWITCH, b"\x88\x02\x03\xe9"].concat(), Broken::CloseFrame),
            (Transport::Websocket, &[SWITCH, b"\x81\xff"].concat(), Broken::Frame(FrameError::Masked)),
            (Transport::Polling, b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", Broken::Refused(400)),
            (Transport::Polling, &answer("5:40"), Broken::BadPayload),
            (Transport::Polling, &answer("1:\u{1f3ac}"), Broken::BadPayload),
            (Transport::Polling, &answer("1:1"), Broken::ClosePacket),
            (Transport::Polling, &answer(r#"49:0{"sid":"a b","pingInterval":25,"pingTimeout":60}"#), Broken::BadOpen),
        ];
        for (transport, input, expected) in ends {
            assert_eq!(in_pieces(&mut opened(transport, 0), input, 1000).unwrap_err(), expected);
        }
    }
}
