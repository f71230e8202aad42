//! A web-update server for render farms. The Manager publishes changes; the server delivers each
//! one, live over Socket.IO v2, to every browser that subscribed to it.
//!
//! ```text
//! Manager ── POST /api/events, stdin, demo ──▶ ingest ──▶ JobUpdates / WorkerUpdates / FarmUpdates / Chat   publishers
//!                                              │ Publish { audience, frame }      encoded once
//!                                              ▼
//!                                        RoomRegistry     membership, one order for all
//!                                              │ push(frame) into each member's Outbox, once per session
//!                                              ▼
//! browser ◀── frames ── transport ◀── Outbox        Session (one actor per client)
//! browser ──▶ transport ──▶ Session ──▶ RoomRegistry: Join / Leave
//! ```
//!
//! Imports point down only: `main → app → transport, ingest → actors → session, membership, outbox
//! → protocol, farm`.

pub mod actors;
pub mod app;
pub mod backplane;
pub mod chat_budget;
pub mod config;
pub mod disconnect;
pub mod faults;
pub mod forwarded;
pub mod frame;
pub mod history;
pub mod http;
pub mod ingest;
pub mod interest;
pub mod last_rendered;
pub mod log_budget;
pub mod log_format;
pub mod manager_port;
pub mod membership;
pub mod options;
pub mod outbox;
pub mod proxy;
pub mod room_budget;
pub mod service_manager;
pub mod session_state;
pub mod slots;
pub mod stats;
pub mod sync;
pub mod system;
pub mod tls;
pub mod transport;

pub use client::{self, clock};
pub use farm;
pub use protocol;
