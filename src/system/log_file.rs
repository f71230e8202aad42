//! The log of a service, which has no stderr.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A log file of bounded size. A full one is renamed to `….log.1`, in place of the one before.
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl LogFile {
    /// Opens a log file of at most `limit` bytes, and continues it if it exists.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or created.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit })
    }
}

impl Write for LogFile {
    /// Writes a line. A line that is longer than the limit gets a file of its own.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size > 0 && self.size + line.len() as u64 > self.limit {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = append_to(&self.path)?;
            self.size = 0;
        }
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_file_replaces_the_one_before() {
        let folder = tempfile();
        let path = folder.join("server.log");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        for line in ["1 line\n", "2 line\n", "3 line\n"] {
            // Each server continues the log of the last one.
            LogFile::open(&path, 14).unwrap().write_all(line.as_bytes()).unwrap();
        }
        assert_eq!((read("server.log").as_str(), read("server.log.1").as_str()), ("3 line\n", "1 line\n2 line\n"));
        let mut log = LogFile::open(&path, 14).unwrap();
        log.write_all(b"a line beyond the limit\n").unwrap();
        log.write_all(b"4 line\n").unwrap();
        assert_eq!(
            (read("server.log").as_str(), read("server.log.1").as_str()),
            ("4 line\n", "a line beyond the limit\n")
        );
        fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("webupdates-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }
}
