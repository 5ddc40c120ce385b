//! The errors that leave no event to show. Damage inside a readable file is not an error: see
//! [`Damage`](crate::info::Damage).

use std::io;
use std::path::{Path, PathBuf};

/// Why a trace could not be read. Each message is one sentence: what, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file does not exist.
    #[error("{}: there is no such file: check the name", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The user may not read the file.
    #[error("{}: permission denied: trace files are often written by root; run as root, or `sudo chmod a+r` it", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// The system reported any other failure.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file has no content.
    #[error("{}: the file is empty: the recording was not finished, or recorded nothing; record again and let the tool end (Ctrl-C once)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A directory that is neither `perf record --threads` output nor a folder of raw pages.
    #[error("{}: a directory without trace data: give a trace file, a directory written by `perf record --threads` (it holds a file `data`), or a folder with per-CPU `trace_pipe_raw` pages and an `events` folder of formats", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The content of the file is not a trace of a known kind.
    #[error("{}: not a trace: {found}; readable are perf.data, trace.dat (trace-cmd), raw ring pages with a formats folder, and the text of tracefs, `trace-cmd report` and `perf script`, also as .gz, .zst or .xz", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What the file seems to be instead.
        found: String,
    },
    /// The trace is of a kind that cannot be read; the message says what to do instead.
    #[error("{}: {what}; {next}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The kind of trace.
        what: String,
        /// What to do instead.
        next: String,
    },
    /// A text that has no trace event but values of SPTEs, which `mmuscope decode` explains.
    #[error("{}: text that holds SPTE values but no trace event; mmuscope decode FILE says what the values mean", path.display())]
    OnlyValues {
        /// The file.
        path: PathBuf,
    },
    /// A text with events whose heads were left out.
    #[error("{}: text with {events} without task, CPU and time, so that it cannot be replayed; {}", path.display(), if *values { "mmuscope decode FILE says what the values in it mean" } else { "give whole lines, as tracefs, trace-cmd report or perf script prints them" })]
    Headless {
        /// The file.
        path: PathBuf,
        /// How many lines of which events.
        events: String,
        /// Whether they hold values of SPTEs, which `mmuscope decode` explains.
        values: bool,
    },
    /// The head of the file is damaged, and nothing in the file can be read without it.
    #[error("{}: damaged at byte {offset}: expected {expected}; nothing before it can be read as events", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset in bytes.
        offset: u64,
        /// What should be at this offset.
        expected: String,
    },
    /// The caller asked to stop through [`Progress::cancel`](crate::Progress::cancel).
    #[error("stopped")]
    Cancelled,
}

impl Error {
    /// Adds the path to an I/O error and, where there is one, the remedy.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Permission { path },
            _ => Self::Io { path, source },
        }
    }
}
