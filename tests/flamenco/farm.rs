//! In front of real Managers of both generations.

use std::{collections::HashMap, time::Duration};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{
    browser::Browser,
    crowds::crowd,
    real::{Farm, api, program, tasks, text},
    server::{Server, until},
};

/// The number of scenarios at a time: most of the time the workers of their farms wait.
const AT_A_TIME: u32 = 2;
static SCENARIOS: Semaphore = Semaphore::const_new(AT_A_TIME as usize);

/// Plays `scenario` in front of a farm of each generation, both at once. Without a program that starts them it says so
/// and plays nothing.
async fn with_both_generations(workers: u32, scenario: impl AsyncFn(&Farm, &Server)) {
    play(1, workers, scenario).await;
}

/// Does the same while no other scenario is played, for one that loads the machine.
async fn with_both_generations_alone(workers: u32, scenario: impl AsyncFn(&Farm, &Server)) {
    play(AT_A_TIME, workers, scenario).await;
}

async fn play(permits: u32, workers: u32, scenario: impl AsyncFn(&Farm, &Server)) {
    let Some(program) = program() else { return };
    let _permits = SCENARIOS.acquire_many(permits).await.unwrap();
    let play = async |generation| {
        let farm = Farm::start(&program, generation, workers, &[]).await;
        let server = Server::before(&farm.url, &[]).await;
        scenario(&farm, &server).await;
    };
    join(play("3.9"), play("3.0")).await;
}

#[actix_rt::test]
async fn a_job_is_published_from_its_beginning_to_its_end() {
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

/// Opens the page of a new job and of its task's log, which works until it is done: each line of the log has to arrive once, and the
/// task's update.
async fn watch_a_render(farm: &Farm, server: &Server) {
    let mut browser = Browser::connect(&server.address()).await;
    // One task keeps the worker busy, so that the others wait until somebody looks.
    farm.submit(server, &["sleep", "--tasks", "1", "--seconds", "4"]).await;
    let job = farm.submit(server, &["blender", "--frames", "1-6", "--chunk", "6"]).await;
    let task = text(&tasks(server, &job).await[0]["id"]).to_owned();
    assert!(browser.subscribe("job", Some(&job)).await < Duration::from_millis(900));
    assert!(browser.subscribe("tasklog", Some(&task)).await < Duration::from_millis(900));
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
}

#[actix_rt::test]
async fn no_line_of_a_log_is_lost_or_doubled() {
    with_both_generations(1, watch_a_render).await;
}

#[actix_rt::test]
async fn a_page_stays_live_while_others_ask_for_thousands_of_rooms() {
    with_both_generations(1, async |farm, server| {
        server.until_relay("connected").await;
        let logs = crowd(server, 11, "tasklog").await;
        let jobs = crowd(server, 3, "job").await;
        watch_a_render(farm, server).await;
        drop((logs, jobs));
        let job = farm.submit(server, &["sleep", "--tasks", "1", "--seconds", "0"]).await;
        let mut browser = Browser::connect(&server.address()).await;
        assert!(browser.subscribe("job", Some(&job)).await < Duration::from_millis(900));
        browser.next_where("/task", |update| update["status"] == "completed").await;
        let stats = server.stats().await;
        assert_eq!(stats["relay"]["connections"], 1, "the Manager keeps the link: {stats}");
        assert_eq!(stats["sources"]["relay"]["state"], "connected");
    })
    .await;
}

/// Submits jobs whose tasks together are as many; the jobs with their tasks.
async fn submit_many(farm: &Farm, server: &Server, jobs: usize, tasks_each: usize) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for _ in 0..jobs {
        let job = farm.submit(server, &["sleep", "--tasks", &tasks_each.to_string(), "--seconds", "3600"]).await;
        let tasks = tasks(server, &job).await.iter().map(|task| text(&task["id"]).to_owned()).collect();
        all.push((job, tasks));
    }
    all
}

#[actix_rt::test]
async fn thousands_of_pages_that_come_back_at_once_are_all_supplied() {
    with_both_generations_alone(1, async |farm, server| {
        let jobs = submit_many(farm, server, 20, 99).await;
        let open = async |(job, tasks): &(String, Vec<String>)| {
            let mut browser = Browser::connect(&server.address()).await;
            browser.subscribe("job", Some(job)).await;
            browser.subscribe_all("tasklog", tasks.iter().cloned()).await;
            browser
        };
        let mut browsers = join_all(jobs.iter().map(open)).await;
        // The relay comes back to the Manager with all rooms, while the pages subscribe to them again.
        farm.restart().await;
        server.until_relay("connected").await;
        let are_supplied = async || {
            let ask = async |(browser, (job, tasks)): (&mut Browser, &(String, Vec<String>))| {
                let answers = browser.subscribe_all("tasklog", tasks.iter().cloned()).await;
                browser.try_subscribe("job", Some(job)).await.0 == "ok" && answers.iter().all(|answer| answer == "ok")
            };
            join_all(browsers.iter_mut().zip(&jobs).map(ask)).await.into_iter().all(|is_supplied| is_supplied)
        };
        until("all rooms to be supplied", are_supplied).await;
        let stats = server.stats().await;
        assert_eq!(stats["relay"]["connections"], 2, "the Manager keeps the second link: {stats}");
        // A loaded Manager may take longer than a look-up waits: such a room is looked up again.
        let all = async || server.stats().await["relay"]["rooms"]["supplied"] == 20 * 101;
        until("the statistics to show every room as supplied", all).await;
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

/// The state of the farm as a browser shows it after all events.
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
        // Events that arrive after this one were published after all that.
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
