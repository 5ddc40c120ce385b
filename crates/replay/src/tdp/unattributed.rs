//! [`Unattributed`]: where changes were made in entries that were not found. What an entry is said to have held before its first event rests on
//! every change of it being an event of it; where one at its place was not attributed to any entry, it may have been to this one.

use rustc_hash::FxHashSet;

/// Places of changes whose entry is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unattributed {
    /// Level and first frame, divided by the frames of an entry of that level.
    at: FxHashSet<(u8, u64)>,
    /// Places above those.
    above: FxHashSet<(u8, u64)>,
}

/// The greatest level of an entry.
const TOP: u8 = 5;

fn place(level: u8, gfn: u64) -> (u8, u64) {
    (level, gfn >> (9 * (u32::from(level.clamp(1, 6)) - 1)))
}

impl Unattributed {
    /// Notes a change.
    pub(super) fn insert(&mut self, level: u8, gfn: u64) {
        if self.at.insert(place(level, gfn)) {
            self.above.extend((level + 1..=TOP).map(|l| place(l, gfn)));
        }
    }

    /// Whether an entry may have been changed, or made part of another table, by such a change; a `leaf` also by one below it, because it was no
    /// leaf then.
    pub(super) fn may_be_of(&self, level: u8, gfn: u64, leaf: bool) -> bool {
        if self.at.is_empty() {
            return false;
        }
        (level..=TOP).any(|l| self.at.contains(&place(l, gfn)))
            || leaf && self.above.contains(&place(level, gfn))
    }
}
