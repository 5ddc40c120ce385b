//! Building chunks row by row.

use super::chunk::{Cells, Chunk};
use super::{CHUNK_ROWS, Table};

/// Rows of a [`Table`] being put together. A cell that is not set is null.
#[derive(Debug)]
pub struct Rows {
    of: &'static Table,
    cells: Vec<Cells>,
    len: usize,
}

/// Bytes of text that fill a chunk however few its rows are: traces can hold strings of any length.
const CHUNK_TEXT: usize = 32 << 20;

/// A value for a cell.
pub trait Value {
    /// Puts it into the column's last row.
    fn put(self, column: &mut CellSlot<'_>);
}

/// Where a [`Value`] goes.
#[derive(Debug)]
pub struct CellSlot<'a>(&'a mut Cells, usize);

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Value for $t {
            fn put(self, c: &mut CellSlot<'_>) {
                c.0.resize(c.1);
                match c.0 {
                    Cells::U64(v) => v.push(Some(self as u64)),
                    Cells::U32(v) => v.push(u32::try_from(self).ok()),
                    Cells::I32(v) => v.push(i32::try_from(self).ok()),
                    Cells::Bool(v) => v.push(Some(self != 0)),
                    Cells::Text { .. } => self.to_string().as_str().put(c),
                }
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i32, usize);

impl Value for bool {
    fn put(self, c: &mut CellSlot<'_>) {
        match c.0 {
            Cells::Bool(v) => {
                v.resize(c.1, None);
                v.push(Some(self));
            }
            _ => u8::from(self).put(c),
        }
    }
}

impl Value for &str {
    fn put(self, c: &mut CellSlot<'_>) {
        c.0.resize(c.1);
        // A column of numbers takes no words: the cell stays null.
        if let Cells::Text { ends, all } = c.0 {
            let start = all.len();
            all.push_str(self);
            ends.push((start, all.len()));
        }
    }
}

impl Value for &String {
    fn put(self, c: &mut CellSlot<'_>) {
        self.as_str().put(c);
    }
}

impl<T: Value> Value for Option<T> {
    fn put(self, c: &mut CellSlot<'_>) {
        if let Some(v) = self {
            v.put(c);
        }
    }
}

impl Rows {
    /// No rows yet.
    pub fn new(table: &'static Table) -> Self {
        let cells = table.columns.iter().map(|c| Cells::new(c.kind)).collect();
        Self { of: table, cells, len: 0 }
    }

    /// Begins the next row: what follows is set in it.
    pub fn row(&mut self) {
        self.len += 1;
    }

    /// Sets a cell of the current row. Each cell at most once a row.
    pub fn set(&mut self, column: impl Into<usize>, value: impl Value) {
        let above = self.len.saturating_sub(1);
        if let Some(cells) = self.cells.get_mut(column.into()) {
            value.put(&mut CellSlot(cells, above));
        }
    }

    /// Whether it is time to [`take`](Self::take) the rows, so that memory stays bounded.
    pub fn is_full(&self) -> bool {
        let text = || self.cells.iter().map(Cells::text_len).sum::<usize>();
        self.len >= CHUNK_ROWS || (self.len.is_multiple_of(1024) && text() > CHUNK_TEXT)
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows as a chunk; none are left.
    pub fn take(&mut self) -> Chunk {
        let empty = self.of.columns.iter().map(|c| Cells::new(c.kind)).collect();
        let columns = std::mem::replace(&mut self.cells, empty);
        Chunk { of: self.of, columns, rows: std::mem::take(&mut self.len) }
    }
}
