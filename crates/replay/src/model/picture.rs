//! The time x GFN picture.

use super::{Shade, SpanId, VmId};

/// What a picture is asked for: one address space, a time window and a window of axis units ([`GfnAxis`](crate::GfnAxis)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapQuery {
    /// VM.
    pub vm: VmId,
    /// Address space.
    pub as_id: u8,
    /// First moment.
    pub t0: u64,
    /// One past the last moment.
    pub t1: u64,
    /// First axis unit.
    pub y0: f64,
    /// One past the last axis unit.
    pub y1: f64,
    /// Cells across.
    pub cols: usize,
    /// Cells up.
    pub rows: usize,
}

/// One cell of a [`MapImage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Cell {
    /// Entries of each shade that the cell shows, 255 meaning that many or more (index: `Shade as usize`).
    pub counts: [u8; 8],
    /// Changes that fall into the cell (saturating).
    pub changes: u16,
    /// [`Cell::STALE`] and [`Cell::ASSUMED`].
    pub flags: u8,
    /// The shade most entries of the cell hold; removed and mmio win over others so that a short one does not vanish.
    pub shade: u8,
    /// One span of the cell plus one (0: none): see [`Cell::span`].
    pub rep: u32,
    /// How much of the cell's frames is present, MMIO or removed, in 255ths: 0 for none, 255 for all, and at least 1 for any. Frames that
    /// entries of two trees map count twice.
    pub cover: u8,
}

impl Cell {
    /// Something in the cell is stale.
    pub const STALE: u8 = 1;
    /// Something in the cell is assumed or implied.
    pub const ASSUMED: u8 = 2;
    /// Something in the cell is a huge page.
    pub const HUGE: u8 = 4;

    /// Most of the frames that are not covered are known to be nonpresent, rather than unknown.
    pub const EMPTY: u8 = 8;

    /// What most of the frames hold that are neither present nor MMIO nor removed: nonpresent or unknown.
    pub fn rest(&self) -> Shade {
        if self.flags & Self::EMPTY != 0 { Shade::Nonpresent } else { Shade::Unknown }
    }
    /// Entries that the cell stands for.
    pub fn merged(&self) -> u32 {
        self.counts.iter().map(|c| u32::from(*c)).sum()
    }
    /// Nothing is known here.
    pub fn is_unknown(&self) -> bool {
        self.counts == [0; 8]
    }
    /// The dominant shade.
    pub fn shade(&self) -> Shade {
        Shade::ALL[usize::from(self.shade & 7)]
    }
    /// Whether anything is stale.
    pub fn stale(&self) -> bool {
        self.flags & Self::STALE != 0
    }
    /// Whether anything is assumed or implied.
    pub fn assumed(&self) -> bool {
        self.flags & Self::ASSUMED != 0
    }
    /// Whether anything is a huge page.
    pub fn huge(&self) -> bool {
        self.flags & Self::HUGE != 0
    }
    /// A span that the cell shows.
    pub fn span(&self) -> Option<SpanId> {
        self.rep.checked_sub(1).map(SpanId)
    }
}

/// The time x GFN picture as cells, row 0 at the lowest axis unit.
#[derive(Clone, Debug, PartialEq)]
pub struct MapImage {
    /// What was asked.
    pub query: MapQuery,
    /// Cells across.
    pub cols: usize,
    /// Cells up.
    pub rows: usize,
    /// `rows * cols` cells, row by row.
    pub cells: Vec<Cell>,
    /// Every cell is at the resolution asked for; `false` where a coarser level of the pyramid was used.
    pub exact: bool,
}

impl MapImage {
    /// The cell at a column and row.
    pub fn at(&self, col: usize, row: usize) -> Option<&Cell> {
        if col < self.cols { self.cells.get(row.checked_mul(self.cols)?.checked_add(col)?) } else { None }
    }
}
