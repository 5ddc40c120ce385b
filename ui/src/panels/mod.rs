//! The parts of the window, one module each. A panel draws from a [`Capture`] and changes the [`Doc`]; it never changes the program, but
//! asks for that with a [`Command`].

pub(crate) mod between;
pub(crate) mod chooser;
mod complete;
pub(crate) mod crumbs;
pub(crate) mod decode;
pub(crate) mod details;
pub(crate) mod dialogs;
mod event_menu;
pub(crate) mod events;
pub(crate) mod findings;
pub(crate) mod hot;
pub(crate) mod huge;
pub(crate) mod legend;
pub(crate) mod live;
pub(crate) mod notes;
pub(crate) mod page;
pub(crate) mod provenance;
pub(crate) mod recorder;
pub(crate) mod save;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tables;
pub(crate) mod there;
pub(crate) mod timeline;
pub(crate) mod topbar;
pub(crate) mod tree;

use crate::capture::Capture;
use crate::command::Command;
use crate::doc::Doc;
use crate::theme::Tokens;

/// What a panel draws from and may change.
pub(crate) struct Cx<'a> {
    /// The trace and its replay.
    pub(crate) cap: &'a Capture,
    /// The view of the trace and the state of the panels.
    pub(crate) doc: &'a mut Doc,
    /// Colours of the current theme.
    pub(crate) tokens: &'a Tokens,
    /// Commands that the panel asks for; they run at the end of the frame.
    pub(crate) out: &'a mut Vec<Command>,
}

impl Cx<'_> {
    /// A moment of the trace's clock as text: in seconds since the first event, or on the trace's clock if the user chose that.
    pub(crate) fn at(&self, ts: u64) -> String {
        self.when(self.cap.rel(ts) as u64)
    }

    /// A moment in nanoseconds since the first event as text, on the clock that the user chose.
    pub(crate) fn when(&self, rel: u64) -> String {
        when(self.cap, self.doc, rel)
    }
}

/// A moment in nanoseconds since the first event as text, on the clock that the user chose.
pub(crate) fn when(cap: &Capture, doc: &Doc, rel: u64) -> String {
    let base = if doc.absolute { cap.start() } else { 0 };
    crate::fmt::exact(base.saturating_add(rel))
}
