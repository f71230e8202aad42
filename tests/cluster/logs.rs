//! The logs of a real Manager's tasks, while one leader after the other is stopped, killed or paused.

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix_rt::time::sleep;
use fastrand::Rng;
use flamenco_webupdates::client::{Client, Incoming, Limits};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    long::setting,
    nats::Nats,
    nodes::node,
    program,
    real::{self, Farm, api, tasks, text},
    server::{Server, until},
};

/// Follows a task's log at a node until that ends. Returns what comes.
async fn watch(node: &Server, task: &str) -> Rc<RefCell<String>> {
    let mut client = Client::connect(&node.address(), Limits::default()).await.unwrap();
    let request = json!({"op": "subscribe", "type": "tasklog", "uuid": task});
    let (is_in, log) = (Rc::new(RefCell::new(false)), Rc::<RefCell<String>>::default());
    let (entered, kept) = (is_in.clone(), log.clone());
    client.emit_with_ack("/subscription", &request).unwrap();
    actix_rt::spawn(async move {
        while let Ok(incoming) = client.next().await {
            match incoming {
                // An answer says whether the log is followed now. If not, it is later.
                Incoming::Ack { .. } => *entered.borrow_mut() = true,
                Incoming::Event { name, args } if name == "/tasklog" => {
                    let chunk: Value = serde_json::from_str(args[0].get()).unwrap();
                    kept.borrow_mut().push_str(text(&chunk["log"]));
                }
                Incoming::Event { .. } => {}
            }
        }
    });
    until("the browser to be in the room", async || *is_in.borrow()).await;
    log
}

/// Ends one leader after the other. Returns what happened.
async fn end_leaders(program: &str, generation: &'static str, seconds: u64, rng: &mut Rng) -> String {
    let Some(nats) = Nats::start().await else { return "nothing without NATS".to_owned() };
    let farm = Farm::start(program, generation, 1, &[]).await;
    let options = ["--manager", &farm.url, "--task-logs", "follow", "--backplane-grace", "120s"];
    let mut leader = node(&nats, &options).await;
    leader.until_relay("connected").await;
    // A frame takes 0.3 s or more.
    let frames = format!("1-{}", seconds * 3);
    let job = farm.submit(&leader, &["blender", "--frames", &frames, "--chunk", "100000"]).await;
    let task = text(&tasks(&leader, &job).await[0]["id"]).to_owned();
    let is_over = async |node: &Server| api(node, &format!("/api/v3/jobs/{job}")).await["status"] == "completed";
    let (mut logs, mut ends) = (Vec::new(), [0; 3]);
    let mut other = node(&nats, &options).await;
    while !is_over(&other).await {
        let log = watch(&other, &task).await;
        let begins = log.borrow().len();
        until("lines to come", async || log.borrow().len() > begins || is_over(&other).await).await;
        sleep(Duration::from_millis(rng.u64(..2000))).await;
        let way = rng.u32(..3);
        match way {
            0 => leader.signal(Signal::TERM),
            1 => leader.signal(Signal::KILL),
            _ => {
                leader.signal(Signal::STOP);
                other.until_relay("connected").await;
                leader.signal(Signal::CONT);
                leader.until_relay("standby").await;
                leader.signal(Signal::TERM);
            }
        }
        leader.ended().await;
        other.until_relay("connected").await;
        let (health, metrics) = (other.health().await, other.metrics().await);
        assert!(health.starts_with("ok\nmanager: connected\n") && health.contains(", runs relay\n"), "{health}");
        for line in
            ["leader{source=\"relay\"} 1", "connected 1", "lost_total 0", "unread_total 0", "unavailable_total 0"]
        {
            assert!(metrics.contains(&format!("webupdates_backplane_{line}\n")), "{line}: {metrics}");
        }
        let before = log.borrow().len();
        until("lines of the next leader", async || log.borrow().len() > before || is_over(&other).await).await;
        ends[way as usize] += 1;
        logs.push(log);
        leader = std::mem::replace(&mut other, node(&nats, &options).await);
    }
    let whole = async || {
        let info = api(&leader, &format!("/api/v3/tasks/{task}/log")).await;
        text(&api(&leader, text(&info["url"])).await).to_owned()
    };
    // The last browser may have come after the last line.
    let last = logs.last().expect("a leader ended").clone();
    let is_whole = async || whole().await.ends_with(&*last.borrow());
    program::until("the end of the log", async || (is_whole().await, last.borrow().len()), |(is_whole, _)| *is_whole)
        .await;
    let file = whole().await;
    for log in &logs {
        assert!(
            file.contains(&*log.borrow()),
            "{generation}: lines are lost or repeated:\n{}\nof\n{file}",
            log.borrow()
        );
    }
    let bytes: usize = logs.iter().map(|log| log.borrow().len()).sum();
    let [stopped, killed, paused] = ends;
    format!("{stopped} leaders stopped, {killed} killed, {paused} paused; {bytes} bytes of the log's {}", file.len())
}

#[actix_rt::test]
#[ignore = "takes minutes: tests/long/cluster runs it"]
async fn no_line_of_a_real_log_is_lost_or_repeated_while_leaders_are_killed() {
    let Some(program) = real::program() else { return };
    let seconds = setting("WEBUPDATES_FAULTS_SECONDS", 600);
    let seed = setting("WEBUPDATES_FAULTS_SEED", fastrand::u64(..1_000_000));
    println!("WEBUPDATES_FAULTS_SEED={seed} WEBUPDATES_FAULTS_SECONDS={seconds}");
    let mut rng = Rng::with_seed(seed);
    for generation in ["3.9", "3.0"] {
        println!("{generation}: {}", end_leaders(&program, generation, seconds / 2, &mut rng).await);
    }
}
