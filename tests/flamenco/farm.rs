//! In front of real Managers of both generations.
//!
//! The program that starts them comes from the variable `FLAMENCO_FARM`.

use std::{
    collections::HashMap,
    fs::Permissions,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    browser::Browser,
    server::{Server, until},
};

/// Two farms are as many as a machine of two cores carries beside the other tests.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What a farm's workers need of ffmpeg: it tells its version and makes the file that its last argument names.
const FFMPEG: &str = r#"#!/bin/sh
for last; do :; done
case "$last" in
    -version) printf 'ffmpeg version 7.0 stand-in\nbuilt of\nnothing\n' ;;
    *) echo video > "$last" ;;
esac
"#;

/// Plays `scenario` in front of a farm of each generation, both at once: most of the time their workers wait. Without a
/// program that starts them it says so and plays nothing.
async fn with_both_generations(workers: u32, scenario: impl AsyncFn(&Farm, &Server)) {
    static SAID: Once = Once::new();
    let Ok(program) = std::env::var("FLAMENCO_FARM") else {
        SAID.call_once(|| {
            // Written straight to where it is not captured.
            let _ = writeln!(
                std::io::stderr(),
                "left out: the tests with real Flamenco Managers; set FLAMENCO_FARM to the program that starts them"
            );
        });
        return;
    };
    let _one = ONE_TEST_AT_A_TIME.lock().await;
    let play = async |generation| {
        let farm = Farm::start(&program, generation, workers).await;
        let server = Server::before(&farm.url, &[]).await;
        scenario(&farm, &server).await;
    };
    join(play("3.9"), play("3.0")).await;
}

/// A real farm. Dropping it stops it.
struct Farm {
    program: String,
    generation: &'static str,
    folder: PathBuf,
    url: String,
}

impl Farm {
    async fn start(program: &str, generation: &'static str, workers: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("webupdates-farm-{}-{number}", std::process::id()));
        let tools = folder.join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        std::fs::write(tools.join("ffmpeg"), FFMPEG).unwrap();
        std::fs::set_permissions(tools.join("ffmpeg"), Permissions::from_mode(0o755)).unwrap();
        let mut farm = Self { program: program.to_owned(), generation, folder, url: String::new() };
        let folder = farm.folder.display().to_string();
        farm.url = farm.run(&["start", &folder, "--generation", generation, "--workers", &workers.to_string()]).await;
        farm
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(arguments).env("PATH", format!("{}:{path}", self.folder.join("tools").display()));
        let output = actix_rt::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Submits a job through the server; its id.
    async fn submit(&self, server: &Server, job: &[&str]) -> String {
        self.run(&[&["job", &server.browsers], job].concat()).await
    }

    async fn restart(&self) {
        self.run(&["restart", &self.folder.display().to_string()]).await;
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = Command::new(&self.program).args(["stop", &self.folder.display().to_string()]).status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What the Manager answers, through the server.
async fn api(server: &Server, path: &str) -> Value {
    let url = format!("{}{path}", server.browsers);
    let body = awc::Client::new().get(url).send().await.unwrap().body().limit(1 << 24).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()))
}

async fn tasks(server: &Server, job: &str) -> Vec<Value> {
    api(server, &format!("/api/v3/jobs/{job}/tasks")).await["tasks"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[actix_rt::test]
async fn a_job_is_told_from_its_beginning_to_its_end() {
    with_both_generations(1, async |farm, server| {
        let mut browser = Browser::connect(&server.address()).await;
        browser.subscribe("allWorkers", None).await;
        browser.subscribe("allLastRendered", None).await;

        let job = farm.submit(server, &["sleep", "--tasks", "3", "--name", "sleeping", "--message", "hello 🎬"]).await;
        let id = json!(job);
        let new = browser.next_where("/jobs", |update| update["id"] == id).await;
        assert_eq!((&new["name"], &new["status"]), (&json!("sleeping"), &json!("queued")));
        assert!(browser.subscribe("job", Some(&job)).await < Duration::from_millis(900));
        let echo = tasks(server, &job).await.into_iter().find(|task| task["name"] == "echo").unwrap();
        let echo = text(&echo["id"]).to_owned();
        browser.subscribe("tasklog", Some(&echo)).await;

        let is_done = |update: &Value| update["id"] == id && update["status"] == "completed";
        assert_eq!(browser.next_where("/jobs", is_done).await["previous_status"], "active");
        for task in tasks(server, &job).await {
            let (id, status) = (&task["id"], &task["status"]);
            browser.next_where("/task", |update| update["id"] == *id && update["status"] == *status).await;
        }
        let mut log = String::new();
        while !log.contains("hello 🎬") {
            log.push_str(text(&browser.next("/tasklog").await["log"]));
        }

        farm.submit(server, &["blender", "--frames", "1-2", "--name", "rendering"]).await;
        let image = browser.next("/last-rendered").await;
        let path = format!("{}/{}", text(&image["thumbnail"]["base"]), text(&image["thumbnail"]["suffixes"][0]));
        let image = awc::Client::new().get(server.address().join(&path)).send().await.unwrap();
        assert!(image.status().is_success(), "{path}");
    })
    .await;
}

/// Follows a log from the beginning to the end, and compares with the file.
#[actix_rt::test]
async fn no_line_of_a_log_is_lost_or_doubled() {
    with_both_generations(1, async |farm, server| {
        let mut browser = Browser::connect(&server.address()).await;
        // One task keeps the worker busy, so that the others wait until somebody looks.
        farm.submit(server, &["sleep", "--tasks", "1", "--seconds", "4"]).await;
        let job = farm.submit(server, &["blender", "--frames", "1-6", "--chunk", "6"]).await;
        let task = text(&tasks(server, &job).await[0]["id"]).to_owned();
        browser.subscribe("job", Some(&job)).await;
        browser.subscribe("tasklog", Some(&task)).await;
        browser.next_where("/task", |update| update["id"] == *task && update["status"] == "completed").await;
        let info = api(server, &format!("/api/v3/tasks/{task}/log")).await;
        let file = api(server, text(&info["url"])).await;
        let last = text(&file).lines().rfind(|line| line.contains("Blender quit")).unwrap().to_owned();
        let mut log = String::new();
        while !log.contains(&last) {
            log.push_str(text(&browser.next("/tasklog").await["log"]));
        }
        let of_blender = |log: &str| -> Vec<String> {
            log.lines().filter(|line| line.contains("Fra:") || line.contains("Saved:")).map(str::to_owned).collect()
        };
        assert_eq!(of_blender(&log), of_blender(text(&file)), "{}", farm.generation);
        assert_eq!(of_blender(&log).len(), 6 * 4);
    })
    .await;
}

#[actix_rt::test]
async fn the_manager_restarts_under_its_browsers() {
    with_both_generations(1, async |farm, server| {
        let mut browser = Browser::connect(&server.address()).await;
        browser.subscribe("allWorkers", None).await;
        let job = farm.submit(server, &["sleep", "--tasks", "4", "--seconds", "2"]).await;
        browser.subscribe("job", Some(&job)).await;
        browser.next_where("/jobs", |update| update["id"] == *job && update["status"] == "active").await;
        farm.restart().await;
        assert_eq!(browser.next_where("/status", |status| status["status"] == "unknown").await["status"], "unknown");
        let refreshed = browser.next_where("/jobs", |update| update["refresh_tasks"] == true).await;
        assert_eq!(refreshed["id"], *job);
        browser.next_where("/jobs", |update| update["id"] == *job && update["status"] == "completed").await;
        assert_eq!(server.stats().await["disconnects"]["transport-close"], 0, "nobody was sent away");
    })
    .await;
}

/// What a browser believes after all that it was told.
#[derive(Default)]
struct Belief {
    jobs: HashMap<String, String>,
    tasks: HashMap<String, String>,
}

#[actix_rt::test]
async fn two_hundred_browsers_end_with_what_the_manager_says() {
    with_both_generations(2, async |farm, server| {
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(farm.submit(server, &["sleep", "--tasks", "2", "--seconds", "1"]).await);
            jobs.push(farm.submit(server, &["blender", "--frames", "1-4", "--chunk", "2"]).await);
        }
        let jobs = &jobs;
        let connect = async |number: usize| {
            let mut browser = Browser::connect(&server.address()).await;
            let job = &jobs[number % jobs.len()];
            browser.subscribe("job", Some(job)).await;
            let tasks = tasks(server, job).await;
            browser.subscribe("tasklog", tasks[number % tasks.len()]["id"].as_str()).await;
            // What a page does once it is subscribed.
            let mut belief = Belief::default();
            for task in self::tasks(server, job).await {
                belief.tasks.insert(text(&task["id"]).to_owned(), text(&task["status"]).to_owned());
            }
            (browser, belief)
        };
        let mut browsers = join_all((0..200).map(connect)).await;
        for job in jobs {
            let is_over = async || api(server, &format!("/api/v3/jobs/{job}")).await["status"] == "completed";
            until("all jobs to be completed", is_over).await;
        }
        // What is told after this was told after all that.
        let end = farm.submit(server, &["sleep", "--tasks", "1", "--seconds", "0", "--name", "end"]).await;
        let mut truth = HashMap::new();
        for job in jobs {
            for task in tasks(server, job).await {
                truth.insert(text(&task["id"]).to_owned(), text(&task["status"]).to_owned());
            }
        }
        for (browser, belief) in &mut browsers {
            browser.next_where("/jobs", |update| update["id"] == *end).await;
            for (name, update) in browser.take_all() {
                let known = match name.as_str() {
                    "/task" => &mut belief.tasks,
                    "/jobs" => &mut belief.jobs,
                    _ => continue,
                };
                known.insert(text(&update["id"]).to_owned(), text(&update["status"]).to_owned());
            }
            for (task, status) in belief.tasks.iter().filter(|(task, _)| truth.contains_key(*task)) {
                assert_eq!(status, &truth[task], "{}", farm.generation);
            }
        }
        let stats = server.stats().await;
        assert_eq!(stats["disconnects"]["too-slow"], 0, "{stats}");
    })
    .await;
}
