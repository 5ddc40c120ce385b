//! [`Second`]: another address space that is shown on the same time axis.

use mmuscope_replay::VmId;

use crate::picture::Pictures;
use crate::view::{Range, Selection};

/// What the document holds of the address space that is not the selected one.
pub(crate) struct Second {
    /// VM.
    pub(crate) vm: VmId,
    /// Address space.
    pub(crate) as_id: u8,
    /// Rows of its GFN axis that are shown.
    pub(crate) rows: Range,
    /// Its pictures.
    pub(crate) pictures: Pictures,
    /// What was selected in it.
    pub(crate) selection: Option<Selection>,
    /// Whether the selected address space is the lower one.
    pub(crate) below: bool,
}
