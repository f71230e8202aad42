//! A line to a server, on which bytes can be held back without an end of the connection, as in a network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use actix_rt::time::{Instant, sleep_until};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
};

/// What a line does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Open,
    /// Holds bytes back, and what is to connect.
    Cut,
    Late(Duration),
    /// Ends all connections.
    Broken,
}

/// A line to a server. Dropping it ends its connections.
pub(super) struct Line {
    pub(super) address: SocketAddr,
    way: watch::Sender<Way>,
    listening: actix_rt::task::JoinHandle<()>,
}

impl Line {
    pub(super) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, is_way) = watch::channel(Way::Open);
        let listening = actix_rt::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut way = is_way.clone();
                actix_rt::spawn(async move {
                    if way.wait_for(|way| !matches!(way, Way::Cut | Way::Broken)).await.is_ok()
                        && let Ok(far) = TcpStream::connect(server).await
                    {
                        let (near, far) = (near.into_split(), far.into_split());
                        actix_rt::spawn(carry(near.0, far.1, way.clone()));
                        actix_rt::spawn(carry(far.0, near.1, way));
                    }
                });
            }
        });
        Self { address, way, listening }
    }

    pub(super) fn turn(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Carries bytes, and at last the end of the connection, in one direction.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let (sender, mut pieces) = mpsc::channel(64);
    let reading = async move {
        loop {
            let mut piece = BytesMut::with_capacity(1 << 16);
            let is_end = !matches!(from.read_buf(&mut piece).await, Ok(1..));
            if sender.send((Instant::now(), piece)).await.is_err() || is_end {
                return;
            }
        }
    };
    let mut is_broken = way.clone();
    let writing = async move {
        while let Some((at, piece)) = pieces.recv().await {
            loop {
                let now = *way.borrow_and_update();
                let changed = match now {
                    Way::Open => break,
                    Way::Broken => return,
                    Way::Cut => way.changed().await,
                    Way::Late(by) => tokio::select! {
                        () = sleep_until(at + by) => break,
                        changed = way.changed() => changed,
                    },
                };
                if changed.is_err() {
                    return;
                }
            }
            if piece.is_empty() || to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = futures_util::future::join(reading, writing) => {}
        _ = is_broken.wait_for(|way| *way == Way::Broken) => {}
    }
}
