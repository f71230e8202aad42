//! socketioxide as its documentation sets it up: a layer on an axum router, tokio's default runtime, `to(room).emit(…)`.

use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socketioxide::extract::SocketRef;
use socketioxide::{SocketIo, TransportType};
use tokio::net::{TcpListener, TcpSocket};

/// Packets a connection may hold before the library drops further ones. The default of 128 loses most of a burst, and a
/// loss is no speed; this holds every burst of the comparison, and memory is allocated only as far as it is used.
const MAX_BUFFERED_PACKETS: usize = 100_000;

#[derive(Deserialize)]
#[serde(untagged)]
enum Events {
    Many(Vec<Event>),
    One(Event),
}

#[derive(Deserialize)]
struct Event {
    payload: Value,
}

#[derive(Serialize)]
struct Accepted {
    accepted: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (layer, io) =
        SocketIo::builder().transports([TransportType::Websocket]).max_buffer_size(MAX_BUFFERED_PACKETS).build_layer();
    io.ns("/", async |socket: SocketRef| socket.join("Jobs"));
    let app = Router::new().route("/api/events", post(publish)).with_state(io).layer(layer);

    let listener = listen(std::env::args().nth(1).as_deref().unwrap_or("0").parse()?)?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("listening browsers={url} manager={url}");
    axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), app).await?;
    Ok(())
}

async fn publish(State(io): State<SocketIo>, Json(events): Json<Events>) -> Json<Accepted> {
    let events = match events {
        Events::Many(events) => events,
        Events::One(event) => vec![event],
    };
    for event in &events {
        // The errors name connections that closed meanwhile or whose buffer is full; the load generator counts the loss.
        io.to("Jobs").emit("/jobs", &event.payload).await.ok();
    }
    Json(Accepted { accepted: events.len() })
}

/// A listener with a backlog long enough for thousands of connects at once, like our own server has.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.listen(4096)
}
