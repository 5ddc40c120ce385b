//! A [`Chunk`]: some rows of a table in memory, column by column.
//!
//! [`Rows`](super::Rows) makes chunks, filters thin them out, and `mmuscope-tables` writes them. A chunk never holds a column that
//! its table does not have, and never more than one type in a column.

use super::{Kind, Table};

/// Rows of a [`Table`], column by column.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub(super) of: &'static Table,
    pub(super) columns: Vec<Cells>,
    pub(super) rows: usize,
}

/// The cells of one column. Rows beyond the last cell that was set are null: most columns of most events have no cell at all.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    U64(Vec<Option<u64>>),
    U32(Vec<Option<u32>>),
    I32(Vec<Option<i32>>),
    Bool(Vec<Option<bool>>),
    // Ranges of `all`, so that a chunk of text is two allocations.
    Text { ends: Vec<(usize, usize)>, all: String },
}

/// The range of a null text cell.
pub(super) const NO_TEXT: (usize, usize) = (usize::MAX, usize::MAX);

/// One cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// The column does not apply to this row, or the value is not known.
    Null,
    /// A number without a sign, in the unit of its column.
    U64(u64),
    /// A number that can be negative.
    I32(i32),
    /// True or false.
    Bool(bool),
    /// Words.
    Text(&'a str),
}

impl Cells {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Time | Kind::Duration | Kind::Hex | Kind::Count | Kind::Bytes => Self::U64(Vec::new()),
            Kind::Number => Self::U32(Vec::new()),
            Kind::Signed => Self::I32(Vec::new()),
            Kind::Flag => Self::Bool(Vec::new()),
            Kind::Text => Self::Text { ends: Vec::new(), all: String::new() },
        }
    }

    /// Rows up to the last cell that was set.
    fn len(&self) -> usize {
        match self {
            Self::U64(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Text { ends, .. } => ends.len(),
        }
    }

    /// Makes it as long as `rows`: cells beyond are dropped, missing ones become null.
    pub(super) fn resize(&mut self, rows: usize) {
        match self {
            Self::U64(v) => v.resize(rows, None),
            Self::U32(v) => v.resize(rows, None),
            Self::I32(v) => v.resize(rows, None),
            Self::Bool(v) => v.resize(rows, None),
            Self::Text { ends, .. } => ends.resize(rows, NO_TEXT),
        }
    }

    /// Bytes of text in it.
    pub(super) fn text_len(&self) -> usize {
        if let Self::Text { all, .. } = self { all.len() } else { 0 }
    }

    #[inline]
    pub(super) fn get(&self, row: usize) -> Cell<'_> {
        let cell = match self {
            Self::U64(v) => v.get(row).copied().flatten().map(Cell::U64),
            Self::U32(v) => v.get(row).copied().flatten().map(|v| Cell::U64(v.into())),
            Self::I32(v) => v.get(row).copied().flatten().map(Cell::I32),
            Self::Bool(v) => v.get(row).copied().flatten().map(Cell::Bool),
            Self::Text { ends, all } => ends.get(row).and_then(|&(a, b)| all.get(a..b)).map(Cell::Text),
        };
        cell.unwrap_or(Cell::Null)
    }

    /// Drops the cells whose row is not kept.
    fn keep(&mut self, rows: &[bool]) {
        fn only<T>(v: &mut Vec<T>, rows: &[bool]) {
            let mut kept = rows.iter();
            v.retain(|_| kept.next().copied().unwrap_or(false));
        }
        match self {
            Self::U64(v) => only(v, rows),
            Self::U32(v) => only(v, rows),
            Self::I32(v) => only(v, rows),
            Self::Bool(v) => only(v, rows),
            Self::Text { ends, .. } => only(ends, rows),
        }
    }
}

impl Chunk {
    /// The table whose rows these are.
    pub fn table(&self) -> &'static Table {
        self.of
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.rows
    }

    /// One cell; null outside of the chunk.
    #[inline]
    pub fn cell(&self, row: usize, column: impl Into<usize>) -> Cell<'_> {
        self.columns.get(column.into()).filter(|_| row < self.rows).map_or(Cell::Null, |c| c.get(row))
    }

    /// Whether every cell of a column is null.
    pub fn is_null(&self, column: usize) -> bool {
        self.columns.get(column).is_none_or(|c| (0..c.len()).all(|row| c.get(row) == Cell::Null))
    }

    /// The first `rows` rows, or all if there are fewer.
    #[must_use]
    pub fn head(mut self, rows: usize) -> Self {
        self.rows = self.rows.min(rows);
        for c in &mut self.columns {
            if c.len() > self.rows {
                c.resize(self.rows);
            }
        }
        self
    }

    /// Only the rows that `keep` is true for; rows beyond its end are dropped.
    #[must_use]
    pub fn filter(mut self, keep: &[bool]) -> Self {
        self.rows = keep.iter().take(self.rows).filter(|k| **k).count();
        for c in &mut self.columns {
            c.keep(keep);
        }
        self
    }
}
