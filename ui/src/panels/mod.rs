//! The parts of the window, one module each. A panel draws from a [`Capture`] and changes the [`Doc`]; what concerns the whole program
//! it asks for with a [`Command`].

pub(crate) mod details;
pub(crate) mod dialogs;
pub(crate) mod events;
pub(crate) mod legend;
pub(crate) mod page;
pub(crate) mod provenance;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tables;
pub(crate) mod timeline;
pub(crate) mod topbar;

use crate::capture::Capture;
use crate::command::Command;
use crate::doc::Doc;
use crate::theme::Tokens;

/// What a panel draws from and changes.
pub(crate) struct Cx<'a> {
    /// The trace; only read.
    pub(crate) cap: &'a Capture,
    /// How it is looked at.
    pub(crate) doc: &'a mut Doc,
    /// Colours.
    pub(crate) tokens: &'a Tokens,
    /// Commands asked for.
    pub(crate) out: &'a mut Vec<Command>,
}
