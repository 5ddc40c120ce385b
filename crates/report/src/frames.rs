//! [`FrameRange`]: a range of guest frames, as every part of a report has it.

use serde::Serialize;

use crate::{json, words};

/// A range of guest frames.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FrameRange {
    /// First guest frame of the range.
    #[serde(serialize_with = "json::hex")]
    pub gfn_start: u64,
    /// Last guest frame of the range, included.
    #[serde(serialize_with = "json::hex")]
    pub gfn_last: u64,
    /// Guest-physical address of the first frame.
    #[serde(serialize_with = "json::hex")]
    pub gpa: u64,
    /// Size of the range.
    pub bytes: u64,
}

impl FrameRange {
    /// The range from frame `start` to the one before `end`.
    pub(crate) fn new(start: u64, end: u64) -> Self {
        Self {
            gfn_start: start,
            gfn_last: end.saturating_sub(1).max(start),
            gpa: gpa_of(start),
            bytes: end.saturating_sub(start).saturating_mul(4096),
        }
    }

    /// The frames as text: `0x100–0x1ff`, or one frame alone.
    pub(crate) fn text(self) -> String {
        words::gfn_range(self.gfn_start, self.gfn_last.saturating_add(1))
    }
}

/// The guest-physical address of a guest frame.
pub(crate) fn gpa_of(gfn: u64) -> u64 {
    gfn.wrapping_shl(12)
}
