//! The throttle of the global `Last-Rendered` room.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    farm::JobId,
    options::{duration, heading},
    slots::Shrink,
};

/// The options of the throttle.
#[derive(Debug, Clone, Copy, Args)]
pub struct ThrottleOptions {
    /// Minimum time between two images of one job in the room of all last-rendered images; 0s means
    /// no limit
    #[arg(long, value_name = "TIME", env = "WEBUPDATES_LAST_RENDERED_INTERVAL", default_value = "1s", value_parser = duration, help_heading = heading::DELIVERY, hide_short_help = true)]
    pub last_rendered_interval: Duration,
}

/// Limits the updates of each job to one per interval, and always passes the last one.
#[derive(Debug)]
pub struct LastRendered<T> {
    interval: Duration,
    jobs: HashMap<JobId, Window<T>>,
}

#[derive(Debug)]
struct Window<T> {
    since: Instant,
    held: Option<T>,
}

impl<T> LastRendered<T> {
    pub fn new(interval: Duration) -> Self {
        Self { interval, jobs: HashMap::new() }
    }

    /// Takes an update. Returns it if the room gets it now; otherwise the throttle holds it and
    /// replaces the one held before.
    pub fn offer(&mut self, job: JobId, update: T, now: Instant) -> Option<T> {
        match self.jobs.get_mut(&job) {
            Some(window) if !window.is_over(self.interval, now) || window.held.is_some() => {
                window.held = Some(update);
                None
            }
            Some(_) | None if self.interval.is_zero() => Some(update),
            Some(_) | None => {
                self.jobs.insert(job, Window { since: now, held: None });
                Some(update)
            }
        }
    }

    /// Returns the held updates whose interval has passed.
    pub fn due(&mut self, now: Instant) -> Vec<T> {
        let mut due = Vec::new();
        self.jobs.retain(|_, window| {
            if !window.is_over(self.interval, now) {
                return true;
            }
            let held = mem::take(&mut window.held);
            window.since = now;
            held.map(|update| due.push(update)).is_some()
        });
        // Walking a map takes time proportional to its capacity.
        self.jobs.shrink_if_sparse();
        due
    }

    /// Returns all held updates, whether or not their interval has passed.
    pub fn release_all(&mut self) -> Vec<T> {
        self.jobs.drain().filter_map(|(_, window)| window.held).collect()
    }

    /// Returns when the next update is due or the next job is dropped, as seen from `now`.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        self.jobs.values().map(|window| (window.since + self.interval).saturating_duration_since(now)).min()
    }
}

impl<T> Window<T> {
    fn is_over(&self, interval: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn job(number: u8) -> JobId {
        format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
    }

    #[test]
    fn one_a_second_and_always_the_last_one() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut throttle = LastRendered::new(Duration::from_secs(1));
        assert_eq!(throttle.offer(job(1), "a", at(0)), Some("a"));
        assert_eq!(
            throttle.next_due(at(0)),
            Some(Duration::from_secs(1)),
            "a job is forgotten in time though nothing is held"
        );
        assert_eq!(throttle.offer(job(1), "b", at(100)), None);
        assert_eq!(throttle.offer(job(1), "c", at(200)), None);
        assert_eq!(throttle.offer(job(2), "x", at(300)), Some("x"));
        assert_eq!(throttle.next_due(at(300)), Some(Duration::from_millis(700)));
        assert!(throttle.due(at(999)).is_empty());
        assert_eq!(throttle.due(at(1000)), ["c"]);
        assert_eq!(throttle.offer(job(1), "d", at(1500)), None);
        assert_eq!(throttle.due(at(2000)), ["d"]);
        assert!(throttle.due(at(3000)).is_empty());
        assert!(throttle.jobs.is_empty(), "quiet jobs are forgotten");
        assert_eq!(throttle.offer(job(1), "e", at(3100)), Some("e"));
    }

    #[test]
    fn a_held_update_is_not_overtaken() {
        let start = clock::now();
        let mut throttle = LastRendered::new(Duration::from_secs(1));
        throttle.offer(job(1), "a", start);
        throttle.offer(job(1), "b", start);
        let late = start + Duration::from_secs(5);
        assert_eq!(throttle.offer(job(1), "c", late), None);
        assert_eq!(throttle.due(late), ["c"]);
    }
    #[test]
    fn nothing_is_kept_at_the_end() {
        let start = clock::now();
        let mut throttle = LastRendered::new(Duration::from_secs(1));
        throttle.offer(job(1), "a", start);
        throttle.offer(job(1), "b", start);
        assert_eq!(throttle.release_all(), ["b"]);
        assert!(throttle.release_all().is_empty());
    }
}
