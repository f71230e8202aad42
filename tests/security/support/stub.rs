//! An HTTP server that a test plays.

use std::{
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_rustls::TlsAcceptor;

/// What a stub has heard, and how many requests it is about to answer.
#[derive(Default)]
pub(crate) struct Heard {
    heads: Mutex<Vec<String>>,
    open: AtomicUsize,
    pub(crate) most_open: AtomicUsize,
}

impl Heard {
    /// The heads of all requests so far, in small letters.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Answers every request, once all of it is there, with what `answer` makes of its head as it came: a status line, headers and
/// body, or `None` for never.
pub(crate) fn serve<A>(tls: Option<TlsAcceptor>, answer: impl Fn(String) -> A + 'static) -> (SocketAddr, Arc<Heard>)
where
    A: Future<Output = Option<String>> + 'static,
{
    // The kernel buffers little for it, so a sender of much must wait in between.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Heard::default());
    let (answer, all) = (Rc::new(answer), heard.clone());
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, heard) = (answer.clone(), all.clone());
            match tls.clone() {
                None => drop(actix_rt::spawn(converse(stream, answer, heard))),
                Some(tls) => drop(actix_rt::spawn(async move {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, answer, heard).await;
                    }
                })),
            }
        }
    });
    (address, heard)
}

async fn converse<S, F, A>(mut stream: S, answer: Rc<F>, heard: Arc<Heard>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(String) -> A,
    A: Future<Output = Option<String>>,
{
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = (&mut stream).take(length.unwrap_or(0));
        if tokio::io::copy(&mut body, &mut tokio::io::sink()).await.is_err() || body.limit() > 0 {
            return;
        }
        heard.heads.lock().unwrap().push(head.to_ascii_lowercase());
        let open = heard.open.fetch_add(1, Ordering::SeqCst) + 1;
        heard.most_open.fetch_max(open, Ordering::SeqCst);
        let Some(answer) = answer(head).await else { return std::future::pending().await };
        heard.open.fetch_sub(1, Ordering::SeqCst);
        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

pub(crate) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
