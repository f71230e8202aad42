//! A web-update server for render farms: the Manager hands over what changed, every browser that looks at it is told,
//! live, over Socket.IO v2.
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
//! Imports point down only: `main → app → transport, ingest → actors → session, membership, outbox → protocol, farm`.

pub mod actors;
pub mod app;
pub mod client;
pub mod clock;
pub mod config;
pub mod disconnect;
pub mod farm;
pub mod faults;
pub mod frame;
pub mod ingest;
pub mod interest;
pub mod last_rendered;
pub mod membership;
pub mod outbox;
pub mod protocol;
pub mod proxy;
pub mod service_manager;
pub mod session;
pub mod stats;
pub mod sync;
pub mod tls;
pub mod tools;
pub mod transport;
