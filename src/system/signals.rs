//! The signals that control a running server.

#[cfg(unix)]
pub(crate) use self::unix::Signals;
#[cfg(windows)]
pub(crate) use self::windows::Signals;

#[cfg(unix)]
mod unix {
    use std::io::{self, IsTerminal, stdin};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(crate) struct Signals {
        terminate: Signal,
        interrupt: Signal,
        hangup: Signal,
        /// Whether the server was started in a terminal.
        terminal: bool,
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
                terminal: stdin().is_terminal(),
            })
        }

        /// Waits until the server must stop. SIGHUP stops it only if its terminal is gone;
        /// otherwise it calls `read_again` to reload files.
        pub(crate) async fn stop(&mut self, read_again: impl Fn()) {
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
}

#[cfg(windows)]
mod windows {
    use std::io;

    use tokio::signal::windows::{
        CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
    };

    use crate::system::service;

    pub(crate) struct Signals {
        interrupt: CtrlC,
        terminate: CtrlBreak,
        close: CtrlClose,
        shutdown: CtrlShutdown,
    }

    impl Signals {
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self {
                interrupt: ctrl_c()?,
                terminate: ctrl_break()?,
                close: ctrl_close()?,
                shutdown: ctrl_shutdown()?,
            })
        }

        /// Waits until the server must stop. No signal of Windows means to reload files.
        pub(crate) async fn stop(&mut self, _read_again: impl Fn()) {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.close.recv() => {}
                _ = self.shutdown.recv() => {}
                () = service::stopped() => {}
            }
        }
    }
}
