//! What the programs that tasks run print, and what the Manager adds to a task's log.

use std::fmt::Write;

use jiff::Timestamp;
use uuid::Uuid;

use super::job::{JobNo, TaskStatus, Work};

/// One task's process on one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: u64,
    pub(super) job: JobNo,
    pub(super) work: Work,
}

/// A line of the Manager's own in a task's log.
pub(super) fn manager_line(at: Timestamp, text: &str) -> String {
    let second = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("{second} {text}")
}

pub(super) fn assigned(worker: &str, id: Uuid) -> String {
    format!("Task assigned to worker {worker} ({id})")
}

pub(super) fn status_changed(from: TaskStatus, to: TaskStatus) -> String {
    format!("task changed status {} -> {}", from.word(), to.word())
}

impl Process {
    /// The command line and the program's first lines.
    pub(super) fn launched(&self) -> String {
        let dir = self.job_dir();
        match self.work {
            Work::Echo => "echo: \"dobro jutro – 🎬 “quoted” \\\\ back\\tslash\"".to_owned(),
            Work::Sleep { seconds } => format!("slept {seconds}s"),
            Work::Render { first, last, .. } => self.lines(
                &format!(
                    "/usr/bin/blender -b -y /mnt/farm/scene.blend --scene Scene --render-output '{dir}/######' \
                     --render-format PNG --render-frame {first}..{last}"
                ),
                &[
                    "Blender 4.5.0".to_owned(),
                    "Read blend: \"/mnt/farm/scene.blend\"".to_owned(),
                    "Device with name Simulated Path Tracer is used".to_owned(),
                ],
            ),
            Work::Video { last } => self.lines(
                &format!(
                    "/usr/bin/ffmpeg -r 24 -pattern_type glob -i '{dir}/*.png' -c:v h264 -crf 20 -y \
                     {dir}/scene-1-{last}.mp4"
                ),
                &self.video_lines(last),
            ),
        }
    }

    /// Some progress lines of a frame that is being rendered: `from..to` of 16 sixteenths.
    pub(super) fn sampling(&self, frame: u32, from: u32, to: u32) -> String {
        let used = 400.0 + f64::from(frame % 32) * 1.75;
        let mut text = String::new();
        for part in from..to {
            let sample = 16 * (part + 1);
            let remaining = f64::from(15 - part) * 0.13;
            let elapsed = f64::from(part + 1) * 0.13;
            self.line(
                &mut text,
                &format!(
                    "Fra:{frame} Mem:{used:.2}M (Peak 512.08M) | Time:00:{elapsed:05.2} | Remaining:00:{remaining:05.2} \
                     | Scene, ViewLayer | Sample {sample}/256"
                ),
            );
        }
        text
    }

    /// The lines that end a frame.
    pub(super) fn saved(&self, frame: u32, millis: u64) -> String {
        let mut text = String::new();
        let seconds = millis as f64 / 1000.0;
        self.line(&mut text, &format!("Saved: '{}/{frame:06}.png'", self.job_dir()));
        self.line(&mut text, &format!("Time: 00:{seconds:05.2} (Saving: 00:00.01)"));
        self.line(&mut text, "");
        text
    }

    /// The program's last words.
    pub(super) fn quit(&self) -> String {
        let mut text = String::new();
        self.line(&mut text, "Blender quit");
        text
    }

    /// What a program prints that cannot open its scene.
    pub(super) fn broke(&self) -> String {
        let mut text = String::new();
        self.line(&mut text, "Error: Cannot read file \"/mnt/farm/scene.blend\": No such file or directory");
        self.line(&mut text, "");
        text
    }

    fn job_dir(&self) -> String {
        format!("/mnt/farm/render/job-{}", self.job.0 + 1)
    }

    fn video_lines(&self, last: u32) -> Vec<String> {
        let seconds = f64::from(last) / 24.0;
        let mut lines = vec![
            "ffmpeg version 7.1 (simulated)".to_owned(),
            format!("Input #0, image2, from '{}/*.png':", self.job_dir()),
            format!("  Duration: 00:00:{seconds:05.2}, start: 0.000000, bitrate: N/A"),
            "  Stream #0:0: Video: png, rgb24(pc), 1920x1080, 24 fps".to_owned(),
        ];
        // The real one redraws its progress with a carriage return instead of a new line.
        let progress: Vec<String> =
            (1..=4).map(|part| format!("frame={:5} fps= 96 q=28.0 speed=4.0x", last * part / 4)).collect();
        lines.push(progress.join("    \r"));
        lines.push(format!("video:{}kB audio:0kB muxing overhead: 3.47%", last * 12));
        lines
    }

    fn lines(&self, command: &str, lines: &[String]) -> String {
        let mut text = format!("going to run:\n\n    {command}\n\n");
        for line in lines {
            self.line(&mut text, line);
        }
        text
    }

    fn line(&self, text: &mut String, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "pid={} > {line}", self.pid);
    }
}
