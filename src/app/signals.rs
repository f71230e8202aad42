//! What the system tells a running server.

use std::io::{self, IsTerminal, stdin};

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether it was started in a terminal.
    terminal: bool,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            terminal: stdin().is_terminal(),
        })
    }

    /// Returns when the server is to stop. SIGHUP says so only where the terminal is gone; else it is an order to read files
    /// again, which `read_again` carries out.
    pub(super) async fn stop(&mut self, read_again: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.terminal && !stdin().is_terminal() {
                        return;
                    }
                    read_again();
                }
            }
        }
    }
}
