//! The parts of the window, one module each. A panel draws from a [`Capture`] and changes the [`Doc`]; it never changes the program, but
//! asks for that with a [`Command`].

pub(crate) mod between;
pub(crate) mod chooser;
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
pub(crate) mod page;
pub(crate) mod provenance;
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
