//! Process metrics from the kernel: CPU time, memory, and the limit of open files. Only Linux has the
//! first two in a form that this program reads.

#[cfg(target_os = "linux")]
pub(super) use self::linux::{cpu_time, resident_bytes};
#[cfg(not(target_os = "linux"))]
pub(super) use self::other::{cpu_time, resident_bytes};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs,
        io::{self, ErrorKind::InvalidData},
        time::Duration,
    };

    /// Returns the CPU time of a process and all its threads so far.
    pub(in super::super) fn cpu_time(pid: u32) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = ticks(&stat).ok_or(InvalidData)?;
        let in_ticks = Duration::from_secs(ticks).div_f64(rustix::param::clock_ticks_per_second() as f64);
        // Ticks are 10 ms, the threads' own clocks exact; but the latter are gone with threads that have ended.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let clocks = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
        let in_threads =
            clocks.filter_map(|clock| clock.split(' ').next()?.parse().ok()).map(Duration::from_nanos).sum();
        Ok(in_ticks.max(in_threads))
    }

    /// Returns the ticks in user and in kernel mode. The name in front of them may hold anything.
    fn ticks(stat: &str) -> Option<u64> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut times = fields.split(' ').skip(11);
        Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
    }

    /// Returns the resident memory of a process in bytes.
    pub(in super::super) fn resident_bytes(pid: u32) -> io::Result<u64> {
        // The roll-up is exact but for the owner's eyes; the status is an estimate that anybody may see.
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
        match rollup.ok().and_then(|rollup| bytes(&rollup, "Rss:")) {
            Some(bytes) => Ok(bytes),
            None => {
                bytes(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:").ok_or_else(|| InvalidData.into())
            }
        }
    }

    fn bytes(text: &str, field: &str) -> Option<u64> {
        let kibibytes = text.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?;
        Some(1024 * kibibytes.parse::<u64>().ok()?)
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::{io, process, time::Duration};

    /// Returns zero for this process, so that a run without `--server-pid` works.
    pub(in super::super) fn cpu_time(pid: u32) -> io::Result<Duration> {
        if pid == process::id() { Ok(Duration::ZERO) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    pub(in super::super) fn resident_bytes(_pid: u32) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Sees to it that so many files can be open, raising this process's own limit as far as it may. The error is how many
/// there can be.
#[cfg(unix)]
pub(super) fn allow_open_files(wanted: u64) -> Result<(), u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if let Some(maximum) = maximum.filter(|&maximum| maximum < wanted) {
        return Err(maximum);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|_| current.unwrap_or(0))
}

/// Does nothing: sockets are limited by memory only.
#[cfg(not(unix))]
pub(super) fn allow_open_files(_wanted: u64) -> Result<(), u64> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        // Each question takes CPU time itself.
        let busy = std::time::Duration::from_millis(30);
        assert!((0..1_000_000).any(|_| cpu_time(std::process::id()).unwrap() >= busy));
        assert!((1_000_000..10_000_000_000).contains(&resident_bytes(std::process::id()).unwrap()));
        assert!(cpu_time(u32::MAX).is_err() && resident_bytes(u32::MAX).is_err());
        assert_eq!(allow_open_files(1), Ok(()));
    }
}
