//! The notes of a reader, which `mmuscope report --session` takes from the file that the viewer keeps beside a trace.

use mmuscope_analysis::session::Note;
use serde::Serialize;

use crate::words;

/// A note of a reader on a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NoteReport {
    /// The moment, in nanoseconds since the first event.
    pub at: u64,
    /// Number of the VM.
    pub vm: u16,
    /// Guest frame, where the note is on one.
    pub gfn: Option<u64>,
    /// What it says.
    pub text: String,
}

impl From<&Note> for NoteReport {
    fn from(n: &Note) -> Self {
        Self { at: n.at, vm: n.vm, gfn: n.gfn, text: n.text.clone() }
    }
}

impl NoteReport {
    /// What the note is on: a frame, or else a moment of the trace.
    pub(crate) fn place(&self, several: bool) -> String {
        let vm = if several { format!("VM {} ", self.vm) } else { String::new() };
        self.gfn.map_or_else(|| vm.trim_end().to_owned(), |g| format!("{vm}gfn {}", words::gfn(g)))
    }
}
