//! What can go wrong before there is any event to show. Damage inside a readable file is not an error: see
//! [`Damage`](crate::info::Damage).

use std::io;
use std::path::{Path, PathBuf};

/// Why a trace could not be read. Each message is one sentence: what, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not there.
    #[error("{}: there is no such file: check the name", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be read.
    #[error("{}: permission denied: trace files are often written by root; run as root, or `sudo chmod a+r` it", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of the system.
    #[error("{}: cannot read it: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing in it.
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
    /// Not a trace, as far as its content tells.
    #[error("{}: not a trace: {found}; readable are perf.data, trace.dat (trace-cmd), raw ring pages with a formats folder, and the text of tracefs, `trace-cmd report` and `perf script`, also as .gz, .zst or .xz", path.display())]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What it looks like instead.
        found: String,
    },
    /// A trace of a kind that cannot be used, with the way out.
    #[error("{}: {what}; {next}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do instead.
        next: String,
    },
    /// The head of the file, without which nothing in it can be read, is damaged.
    #[error("{}: damaged at byte {offset}: expected {expected}; nothing before it can be read as events", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What should be there.
        expected: String,
    },
    /// The caller asked to stop through [`Progress::cancel`](crate::Progress::cancel).
    #[error("stopped")]
    Cancelled,
}

impl Error {
    /// Gives an I/O error its place and, where there is one, its remedy.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::Permission { path },
            _ => Self::Io { path, source },
        }
    }
}
