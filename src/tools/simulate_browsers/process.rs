//! What the kernel tells about processes: their CPU time, their memory, and how many files this one may open.

use std::fmt::Display;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// CPU time of a process and all its threads so far. `pid`: a process id or `self`.
pub(super) fn cpu_time(pid: impl Display) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let in_ticks = Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    // Ticks are 10 ms, the threads' own clocks exact; but the latter are gone with threads that have ended.
    Ok(in_ticks.max(cpu_time_of_threads(pid)))
}

/// Resident memory of a process in bytes.
pub(super) fn resident_bytes(pid: impl Display) -> io::Result<u64> {
    // The roll-up is exact but for the owner's eyes; the status is an estimate that anybody may see.
    let (text, key) = match fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        Ok(text) => (text, "Rss:"),
        Err(_) => (fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"),
    };
    kibibytes(&text, key).map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Sees to it that so many files can be open, raising this process's own limit as far as it may. The error is how many
/// there can be.
pub(super) fn allow_open_files(wanted: u64) -> Result<(), u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(maximum) = maximum.filter(|&maximum| maximum < wanted) {
        return Err(maximum);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|_| current.unwrap_or(0))
}

/// `utime` and `stime`, the 14th and 15th field of proc_pid_stat(5). The second field, a name, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The first field of each thread's `schedstat`, in nanoseconds. Nothing where the kernel keeps none.
fn cpu_time_of_threads(pid: impl Display) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 100 0 0 0 700 33 0 0 20 0 4 0 1234 1000 50";
        assert_eq!(cpu_ticks(stat), Some(733));
        assert_eq!(cpu_ticks("12 (a"), None);
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t    5120 kB\n", "VmRSS:"), Some(5120));
        assert_eq!(kibibytes("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        assert!(cpu_time("self").is_ok());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert_eq!(allow_open_files(1), Ok(()));
    }
}
