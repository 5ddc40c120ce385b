//! Where an entry lies: the [`Key`] of its table and its index there, which follow from level and frame. Whoever looks a table up by place
//! asks here; nothing here knows what a table holds.

/// Where tables of a moment are found: address space, level, first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) as_id: u8,
    pub(crate) level: u8,
    pub(crate) gfn: u64,
}

/// The table an entry at `gfn` lies in.
pub(crate) fn key_of(as_id: u8, level: u8, gfn: u64) -> Key {
    let span = 9 * u32::from(level.clamp(1, 6));
    Key { as_id, level, gfn: if span >= 64 { 0 } else { gfn >> span << span } }
}

/// Index of an entry in its table.
pub(crate) fn index_of(level: u8, gfn: u64) -> u16 {
    (gfn >> (9 * (u32::from(level.clamp(1, 6)) - 1)) & 511) as u16
}

/// Number of a table among all tables of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct TableIx(pub(crate) u32);

impl TableIx {
    /// No table.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

impl Default for TableIx {
    fn default() -> Self {
        Self::NONE
    }
}
