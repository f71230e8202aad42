//! Process metrics from the kernel: CPU time, memory, and the limit of open files. Only Linux has the
//! first two in a form that this program reads.

#[cfg(target_os = "linux")]
pub(super) use self::linux::{cpu_time, resident_bytes};
#[cfg(not(target_os = "linux"))]
pub(super) use self::other::{cpu_time, resident_bytes};

#[cfg(target_os = "linux")]
mod linux {
    use std::{io, time::Duration};

    use procfs::process::Process;

    /// Returns the CPU time of a process and all its threads so far.
    pub(in super::super) fn cpu_time(pid: u32) -> io::Result<Duration> {
        let process = open(pid)?;
        let stat = process.stat().map_err(io::Error::other)?;
        let ticks = Duration::from_secs(stat.utime + stat.stime);
        let in_ticks = ticks / u32::try_from(procfs::ticks_per_second()).unwrap_or(100);
        // Ticks are 10 ms, the threads' own clocks exact; but the latter are gone with threads that have ended.
        let threads = process.tasks().into_iter().flatten().flatten();
        let in_threads = threads.filter_map(|thread| thread.schedstat().ok()).map(|times| times.sum_exec_runtime).sum();
        Ok(in_ticks.max(Duration::from_nanos(in_threads)))
    }

    /// Returns the resident memory of a process in bytes.
    pub(in super::super) fn resident_bytes(pid: u32) -> io::Result<u64> {
        let process = open(pid)?;
        // The roll-up is exact but for the owner's eyes; the status is an estimate that anybody may see.
        let rollup = process.smaps_rollup().ok();
        let exact = rollup.and_then(|rollup| rollup.memory_map_rollup.iter().next()?.extension.map.get("Rss").copied());
        match exact {
            Some(bytes) => Ok(bytes),
            None => {
                let status = process.status().map_err(io::Error::other)?;
                status.vmrss.map(|kibibytes| kibibytes * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn open(pid: u32) -> io::Result<Process> {
        let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
        Process::new(pid).map_err(io::Error::other)
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
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert_eq!(allow_open_files(1), Ok(()));
    }
}
