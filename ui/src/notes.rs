//! [`Notes`]: the notes on the open trace, and the file that keeps them once the user has named it.

use std::path::PathBuf;
use std::time::Instant;

use mmuscope_analysis::session::{Note, Session};

/// The notes, and where they are kept.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The notes, in the order of their moments.
    pub(crate) list: Vec<Note>,
    /// The file that keeps them, once the user has named it.
    pub(crate) file: Option<PathBuf>,
    /// What was written or read last.
    pub(crate) saved: Session,
    /// When it was compared with what is shown.
    pub(crate) looked: Option<Instant>,
}

impl Notes {
    /// Whether there are notes that no file has.
    pub(crate) fn unsaved(&self) -> bool {
        self.list != self.saved.notes
    }

    /// Adds a note, or puts it in the place of another.
    pub(crate) fn put(&mut self, note: Note, instead: Option<usize>) {
        if let Some(i) = instead.filter(|i| *i < self.list.len()) {
            self.list.remove(i);
        }
        let at = self.list.partition_point(|n| n.at <= note.at);
        self.list.insert(at, note);
    }
}
