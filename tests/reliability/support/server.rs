//! A server process of its own, and what the system says of it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use flamenco_webupdates::clock;

use super::http::{Connection, Response};

/// Lines of its log that are kept, from the beginning.
const MAX_LOG_LINES: usize = 10_000;

pub(crate) struct Server {
    child: Child,
    pub(crate) browsers: SocketAddr,
    pub(crate) manager: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it on free ports, and waits until it is ready.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_on(["127.0.0.1:0", "127.0.0.1:0"], options)
    }

    pub(crate) fn start_on([browsers, manager]: [&str; 2], options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flamenco-webupdates"))
            .args(["serve", "--listen", browsers, "--manager-listen", manager])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        keep_log(BufReader::new(stderr), log.clone());
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = ready.recv_timeout(Duration::from_secs(20)).unwrap_or_default();
        let addresses: Vec<SocketAddr> =
            line.split_whitespace().filter_map(|word| word.split_once("http://")?.1.parse().ok()).collect();
        let &[browsers, manager] = addresses.as_slice() else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no ready line but {line:?}; its log:\n{}", log.lock().unwrap().join("\n"));
        };
        Self { child, browsers, manager, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// How it ended, if it does within `limit`.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = clock::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return Some(status),
                None if clock::now() > deadline => return None,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Memory that it has in use, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Processor time that it has taken.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// Files and sockets that it holds open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Bytes that the kernel holds for the browsers' port and has not been able to send, by connection.
    pub(crate) fn unsent(&self) -> Vec<u64> {
        let port = format!(":{:04X}", self.browsers.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let queue = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next()?;
            let queues = fields.nth(2)?;
            local.ends_with(&port).then(|| u64::from_str_radix(queues.split(':').next()?, 16).ok())?
        };
        table.lines().skip(1).filter_map(queue).collect()
    }

    pub(crate) async fn manager(&self) -> Connection {
        Connection::open(self.manager).await
    }

    /// Its figures.
    pub(crate) async fn stats(&self) -> serde_json::Value {
        self.manager().await.get("/api/stats").await.json()
    }

    pub(crate) async fn healthz(&self) -> Response {
        Connection::open(self.browsers).await.get("/healthz").await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn keep_log(lines: impl BufRead + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            if log.len() < MAX_LOG_LINES {
                log.push(line);
            }
        }
    });
}
