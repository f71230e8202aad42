//! Real farms of both generations.
//!
//! The program that starts them comes from the variable `FLAMENCO_FARM`.

use std::{
    fs::Permissions,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;

use super::server::Server;

/// What a farm's workers need of ffmpeg: it prints its version and makes the file that its last argument names.
const FFMPEG: &str = r#"#!/bin/sh
for last; do :; done
case "$last" in
    -version) printf 'ffmpeg version 7.0 stand-in\nbuilt of\nnothing\n' ;;
    *) echo video > "$last" ;;
esac
"#;

/// Returns the program that starts farms. Without one it says once that tests are left out.
pub(super) fn program() -> Option<String> {
    static SAID: Once = Once::new();
    let program = std::env::var("FLAMENCO_FARM").ok();
    if program.is_none() {
        SAID.call_once(|| {
            // Written straight to where it is not captured.
            let _ = writeln!(
                std::io::stderr(),
                "left out: the tests with real Flamenco Managers; set FLAMENCO_FARM to the program that starts them"
            );
        });
    }
    program
}

/// A real farm. Dropping it stops it.
pub(super) struct Farm {
    program: String,
    pub(super) generation: &'static str,
    folder: PathBuf,
    pub(super) url: String,
}

impl Farm {
    /// Starts one with these further arguments.
    pub(super) async fn start(program: &str, generation: &'static str, workers: u32, more: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("webupdates-farm-{}-{number}", std::process::id()));
        let tools = folder.join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        std::fs::write(tools.join("ffmpeg"), FFMPEG).unwrap();
        std::fs::set_permissions(tools.join("ffmpeg"), Permissions::from_mode(0o755)).unwrap();
        let mut farm = Self { program: program.to_owned(), generation, folder, url: String::new() };
        let folder = farm.folder.display().to_string();
        farm.url = farm
            .run(&[&["start", &folder, "--generation", generation, "--workers", &workers.to_string()], more].concat())
            .await;
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
    pub(super) async fn submit(&self, server: &Server, job: &[&str]) -> String {
        self.run(&[&["job", &server.browsers_url], job].concat()).await
    }

    pub(super) async fn restart(&self) {
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
pub(super) async fn api(server: &Server, path: &str) -> Value {
    let url = format!("{}{path}", server.browsers_url);
    let body = awc::Client::new().get(url).send().await.unwrap().body().limit(1 << 24).await.unwrap();
    serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()))
}

pub(super) async fn tasks(server: &Server, job: &str) -> Vec<Value> {
    api(server, &format!("/api/v3/jobs/{job}/tasks")).await["tasks"].as_array().unwrap().clone()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
