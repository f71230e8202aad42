//! Events of a real Manager, alone and beside the relay.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    broker::Broker,
    browser::Browser,
    real::{Farm, api, program, tasks, text},
    server::{Server, until},
};

/// One farm is as much as a small machine carries beside the other tests.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What a page shows: it loads the Manager's lists once and then applies what arrives.
struct Page {
    browser: Browser,
    jobs: Vec<String>,
    /// The state of each job, task, worker and tag by its id.
    shown: HashMap<String, Value>,
    statuses: Vec<Value>,
}

impl Page {
    async fn open(server: &Server) -> Self {
        let mut browser = Browser::connect(&server.address()).await;
        browser.subscribe("allWorkers", None).await;
        browser.subscribe("allWorkerTags", None).await;
        let shown = listed(server, &[]).await;
        Self { browser, jobs: Vec::new(), shown, statuses: Vec::new() }
    }

    /// Follows the tasks of a job.
    async fn show(&mut self, server: &Server, job: String) {
        self.browser.subscribe("job", Some(&job)).await;
        self.take(server).await;
        self.shown.extend(tasks(server, &job).await.iter().map(|task| (text(&task["id"]).to_owned(), state(task))));
        self.jobs.push(job);
    }

    async fn take(&mut self, server: &Server) {
        let mut changed = Vec::new();
        for (name, update) in self.browser.take_all() {
            // Like Flamenco's page, this one then asks for the tasks again.
            if update["refresh_tasks"] == true {
                changed.push(text(&update["id"]).to_owned());
            }
            let entity = match name.as_str() {
                "/status" => {
                    self.statuses.push(update["status"].clone());
                    continue;
                }
                "/jobs" | "/task" | "/workers" => &update,
                "/workertags" => &update["tag"],
                _ => continue,
            };
            let id = text(&entity["id"]).to_owned();
            if update["was_deleted"] == true || !update["deleted_at"].is_null() {
                self.shown.remove(&id);
            } else {
                self.shown.insert(id, state(entity));
            }
        }
        for job in changed {
            let tasks = tasks(server, &job).await;
            self.shown.extend(tasks.iter().map(|task| (text(&task["id"]).to_owned(), state(task))));
        }
    }

    /// Waits until the page shows what the Manager's lists say.
    async fn until_agreed(&mut self, server: &Server, limit: Duration) {
        let deadline = flamenco_webupdates::clock::now() + limit;
        loop {
            // Whatever was sent before this answer has arrived.
            self.browser.subscribe("allWorkers", None).await;
            self.take(server).await;
            let listed = listed(server, &self.jobs).await;
            if self.shown == listed {
                return;
            }
            assert!(flamenco_webupdates::clock::now() < deadline, "{:?} is not {listed:?}", self.shown);
            actix_rt::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What changes of an entity: its status, or the name of a tag, which has none.
fn state(entity: &Value) -> Value {
    if entity["status"].is_null() { entity["name"].clone() } else { entity["status"].clone() }
}

/// The Manager's jobs, workers and tags, and the tasks of these jobs.
async fn listed(server: &Server, jobs: &[String]) -> HashMap<String, Value> {
    let mut listed = Vec::new();
    for (path, list) in [("jobs", "jobs"), ("worker-mgt/workers", "workers"), ("worker-mgt/tags", "tags")] {
        listed.extend(api(server, &format!("/api/v3/{path}")).await[list].as_array().cloned().unwrap_or_default());
    }
    for job in jobs {
        listed.extend(tasks(server, job).await);
    }
    listed.iter().map(|entity| (text(&entity["id"]).to_owned(), state(entity))).collect()
}

/// Changes a bit of everything.
async fn change(farm: &Farm, server: &Server, page: &mut Page, number: usize) {
    let job = farm.submit(server, &["sleep", "--tasks", "2", "--seconds", "0"]).await;
    page.show(server, job).await;
    let tag = json!({"name": format!("tag {number}"), "description": ""});
    let url = format!("{}/api/v3/worker-mgt/tags", farm.url);
    assert!(awc::Client::new().post(url).send_json(&tag).await.unwrap().status().is_success());
    let worker = api(server, "/api/v3/worker-mgt/workers").await["workers"][0].clone();
    let wanted = if worker["status"] == "asleep" { "awake" } else { "asleep" };
    let url = format!("{}/api/v3/worker-mgt/workers/{}/setstatus", farm.url, text(&worker["id"]));
    let request = json!({"status": wanted, "is_lazy": true});
    assert!(awc::Client::new().post(url).send_json(&request).await.unwrap().status().is_success());
}

#[actix_rt::test]
async fn a_job_of_a_manager_arrives_once() {
    let Some(program) = program() else { return };
    let Some(broker) = Broker::start("").await else { return };
    let _one = ONE_TEST_AT_A_TIME.lock().await;
    let farm = Farm::start(&program, "3.9", 1, &["--mqtt", &broker.url()]).await;
    let alone = Server::with_broker(&broker.url(), &[]).await;
    let beside = Server::with_broker(&broker.url(), &["--manager", &farm.url, "--mqtt-client-id", "beside"]).await;
    beside.until_relay("connected").await;
    let mut browsers = [Browser::connect(&alone.address()).await, Browser::connect(&beside.address()).await];
    let job = farm.submit(&beside, &["sleep", "--tasks", "2", "--seconds", "1"]).await;
    for browser in &mut browsers {
        for room in ["allWorkers", "allLastRendered", "allWorkerTags"] {
            browser.subscribe(room, None).await;
        }
        browser.subscribe("job", Some(&job)).await;
    }
    let render = farm.submit(&beside, &["blender", "--frames", "1-2"]).await;
    let task = text(&tasks(&beside, &render).await[0]["id"]).to_owned();
    browsers[1].subscribe("tasklog", Some(&task)).await;
    for browser in &mut browsers {
        browser.subscribe("job", Some(&render)).await;
        browser.next("/last-rendered").await;
    }
    assert!(!text(&browsers[1].next("/tasklog").await["log"]).is_empty(), "logs come over the link");
    let url = format!("{}/api/v3/jobs/{render}", farm.url);
    until("the job to be over", async || {
        api(&beside, &format!("/api/v3/jobs/{render}")).await["status"] == "completed"
    })
    .await;
    assert!(awc::Client::new().delete(url).send().await.unwrap().status().is_success());
    let mut seen = Vec::new();
    for browser in &mut browsers {
        browser.next_where("/jobs", |update| update["id"] == *render && update["was_deleted"] == true).await;
        seen.push(browser.take_all());
    }
    for seen in &seen {
        for (at, event) in seen.iter().enumerate() {
            // Farm status may repeat; everything else has a time of its own.
            let is_repeated = event.1["updated"] != "0001-01-01T00:00:00Z" && seen[..at].contains(event);
            assert!(!matches!(event.0.as_str(), "/jobs" | "/task") || !is_repeated, "{event:?} came twice");
        }
    }
    let stats = beside.stats().await;
    assert_eq!(stats["mqtt"]["comparisons"], 0, "MQTT has what the link has: {}", beside.log());
    assert!(stats["sources"]["mqtt"]["events"].as_u64().unwrap() > 10, "{stats}");
    assert_eq!(alone.stats().await["mqtt"]["unread"], stats["mqtt"]["unread"]);
    assert!(stats["mqtt"]["unread"].as_object().unwrap().values().all(|count| *count == 0), "{stats}");
}

#[actix_rt::test]
async fn pages_agree_with_the_manager_after_every_fault() {
    let Some(program) = program() else { return };
    let Some(mut broker) = Broker::start("").await else { return };
    let _one = ONE_TEST_AT_A_TIME.lock().await;
    let is_long = std::env::var("WEBUPDATES_LONG_TESTS").is_ok_and(|value| value == "1");
    let farm = Farm::start(&program, "3.9", 1, &["--mqtt", &broker.url()]).await;
    let server = Server::with_broker(&broker.url(), &["--manager", &farm.url]).await;
    server.until_relay("connected").await;
    let limit = Duration::from_secs(15);
    let mut page = Page::open(&server).await;
    change(&farm, &server, &mut page, 1).await;
    page.until_agreed(&server, limit).await;
    // The Manager loses what happens while its broker is away, and for up to 10 s after that.
    broker.kill();
    server.until_mqtt("away").await;
    change(&farm, &server, &mut page, 2).await;
    page.until_agreed(&server, limit).await;
    if is_long {
        actix_rt::time::sleep(Duration::from_secs(60)).await;
        change(&farm, &server, &mut page, 3).await;
        page.until_agreed(&server, limit).await;
    }
    broker.restart().await;
    server.until_mqtt("connected").await;
    change(&farm, &server, &mut page, 4).await;
    page.until_agreed(&server, limit).await;
    assert!(!page.statuses.iter().any(|status| status == "unknown"), "the Manager was there all the time");
    // The Manager goes, and returns with a job to do.
    farm.restart().await;
    server.until_relay("connected").await;
    change(&farm, &server, &mut page, 5).await;
    page.until_agreed(&server, limit).await;
    let stats = server.stats().await;
    assert_eq!(stats["mqtt"]["connections"], json!(2), "no reconnect loop");
    assert!(stats["mqtt"]["comparisons"].as_u64().unwrap() > 0, "{stats}");
}
