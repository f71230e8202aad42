//! The program under test, as a process of its own. Each test binary that starts it includes this
//! file.

use std::{
    fmt::Debug,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

use flamenco_webupdates::clock;
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_flamenco-webupdates");

/// The arguments of a server on free ports.
pub(crate) const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--manager-listen", "127.0.0.1:0"];

/// Far above what a healthy program needs on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The maximum number of log lines that are kept, from the beginning.
const MAX_LOG_LINES: usize = 10_000;

/// A running server. Dropping it kills it, and prints its log if the test has failed.
pub(crate) struct Program {
    child: Child,
    /// As in the ready line.
    pub(crate) browsers_url: String,
    pub(crate) manager_url: String,
    pub(crate) browsers: SocketAddr,
    pub(crate) manager: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// Returns the program with these arguments, without any variable of the developer's environment:
/// every option may come from one.
pub(crate) fn command(arguments: &[&str]) -> Command {
    isolated(Command::new(BINARY), arguments)
}

/// The same for a command that becomes the program.
pub(crate) fn isolated(mut command: Command, arguments: &[&str]) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("RUST_LOG", "info").env("RUST_BACKTRACE", "1").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a program that ends by itself. One that does not end is killed, because the thread that
/// waits for it would keep the test from ending.
pub(crate) async fn run(mut command: Command) -> Output {
    let child = command.spawn().unwrap();
    let id = Pid::from_child(&child);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    tokio::time::timeout(DEADLINE, ended).await.map_or_else(
        |_| {
            kill_process(id, Signal::KILL).unwrap();
            panic!("the program does not end by itself: {command:?}")
        },
        Result::unwrap,
    )
}

/// Reads a value until `check` accepts it, with a deadline.
pub(crate) async fn until<T: Debug>(what: &str, mut read: impl AsyncFnMut() -> T, check: impl Fn(&T) -> bool) {
    let deadline = clock::now() + DEADLINE;
    loop {
        let value = read().await;
        if check(&value) {
            return;
        }
        assert!(clock::now() < deadline, "waited for {what}: {value:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Gives a test's own server the methods of the program that it wraps.
macro_rules! deref_to_program {
    ($server:ty) => {
        impl std::ops::Deref for $server {
            type Target = Program;

            fn deref(&self) -> &Program {
                &self.0
            }
        }

        impl std::ops::DerefMut for $server {
            fn deref_mut(&mut self) -> &mut Program {
                &mut self.0
            }
        }
    };
}
pub(crate) use deref_to_program;

impl Program {
    /// Starts a server on free ports and waits until it is ready.
    pub(crate) fn serve(options: &[&str]) -> Self {
        Self::start(command(&[&SERVE, options].concat()))
    }

    /// Starts a server and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        log.keep(BufReader::new(child.stderr.take().unwrap()));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = sender.send(line);
            // What it prints later shall not block it.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let line = ready.recv_timeout(DEADLINE).unwrap_or_default();
        let url = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        let (Some(browsers_url), Some(manager_url)) = (url("browsers="), url("manager=")) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no ready line but {line:?}; the log:\n{}", log.text());
        };
        // The first of several; a Unix socket has none.
        let address = |url: &str| match url.split(',').next().unwrap().split_once("://") {
            Some((_, address)) => address.parse().unwrap(),
            None => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let (browsers, manager) = (address(&browsers_url), address(&manager_url));
        Self { child, browsers_url, manager_url, browsers, manager, log }
    }

    /// Does the same on another thread, for a test whose own thread answers the server meanwhile.
    pub(crate) async fn start_aside(command: Command) -> Self {
        tokio::task::spawn_blocking(move || Self::start(command)).await.unwrap()
    }

    /// Writes to the stdin of a server that was started with a pipe.
    pub(crate) fn write_stdin(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends the stdin of a server that was started with a pipe.
    pub(crate) fn end_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns how it ended, if it does within `limit`.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = clock::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if clock::now() > deadline => return None,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Returns how it ended, which it does by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.ended_within(DEADLINE).await.expect("the server ends by itself")
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    pub(crate) fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().clone()
    }

    /// Waits until the log has `count` lines with this text.
    pub(crate) async fn logged(&self, text: &str, count: usize) {
        let (log, text) = (self.log.clone(), text.to_owned());
        let wait = tokio::task::spawn_blocking(move || {
            let lines = log.lines.lock().unwrap();
            let missing = |lines: &mut Vec<String>| lines.iter().filter(|line| line.contains(&text)).count() < count;
            let (lines, waited) = log.grown.wait_timeout_while(lines, DEADLINE, missing).unwrap();
            assert!(!waited.timed_out(), "waited for {count} × {text:?} in {lines:#?}");
        });
        wait.await.unwrap();
    }

    /// Returns the memory in use, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Returns the number of open files and sockets.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

impl Log {
    fn keep(self: &Arc<Self>, lines: impl BufRead + Send + 'static) {
        let log = self.clone();
        thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                let mut kept = log.lines.lock().unwrap();
                if kept.len() < MAX_LOG_LINES {
                    kept.push(String::from_utf8_lossy(&line).into_owned());
                }
                log.grown.notify_all();
            }
        });
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}
