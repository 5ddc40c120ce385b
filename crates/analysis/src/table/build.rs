//! Building chunks row by row.

use super::{CHUNK_ROWS, Chunk, Kind, Table};
use crate::Error;
use polars::prelude::{Column, DataFrame, IntoColumn, NamedFrom, Series};

/// Rows of a [`Table`] being put together. A cell that is not set is null.
#[derive(Debug)]
pub struct Rows {
    of: &'static Table,
    cells: Vec<Cells>,
    len: usize,
}

#[derive(Debug)]
enum Cells {
    U64(Vec<Option<u64>>),
    U32(Vec<Option<u32>>),
    I32(Vec<Option<i32>>),
    Bool(Vec<Option<bool>>),
    // Ranges of `all`, so that a chunk of text is two allocations.
    Text { ends: Vec<(usize, usize)>, all: String },
}

/// Bytes of text that fill a chunk however few its rows are: traces can hold strings of any length.
const CHUNK_TEXT: usize = 32 << 20;

/// A null text cell.
const NO_TEXT: (usize, usize) = (usize::MAX, usize::MAX);

impl Cells {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Time | Kind::Duration | Kind::Hex | Kind::Count | Kind::Bytes => Self::U64(Vec::new()),
            Kind::Number => Self::U32(Vec::new()),
            Kind::Signed => Self::I32(Vec::new()),
            Kind::Flag => Self::Bool(Vec::new()),
            Kind::Text => Self::Text { ends: Vec::new(), all: String::new() },
        }
    }

    /// Whether no cell was set.
    fn is_empty(&self) -> bool {
        match self {
            Self::U64(v) => v.is_empty(),
            Self::U32(v) => v.is_empty(),
            Self::I32(v) => v.is_empty(),
            Self::Bool(v) => v.is_empty(),
            Self::Text { ends, .. } => ends.is_empty(),
        }
    }

    /// Nulls up to `rows`. Most columns of an event are null: they are filled up only when a cell is set and at the end.
    fn pad(&mut self, rows: usize) {
        match self {
            Self::U64(v) => v.resize(rows, None),
            Self::U32(v) => v.resize(rows, None),
            Self::I32(v) => v.resize(rows, None),
            Self::Bool(v) => v.resize(rows, None),
            Self::Text { ends, .. } => ends.resize(rows, NO_TEXT),
        }
    }
}

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
                c.0.pad(c.1);
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
        c.0.pad(c.1);
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
        let texts = self.cells.iter().map(|c| if let Cells::Text { all, .. } = c { all.len() } else { 0 });
        self.len >= CHUNK_ROWS || (self.len.is_multiple_of(1024) && texts.sum::<usize>() > CHUNK_TEXT)
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
    pub fn take(&mut self) -> Result<Chunk, Error> {
        let rows = std::mem::take(&mut self.len);
        let mut columns: Vec<Column> = Vec::with_capacity(self.cells.len());
        for (cells, spec) in self.cells.iter_mut().zip(self.of.columns) {
            let name = spec.name.into();
            // Most columns of most chunks: nothing to fill up and copy.
            if cells.is_empty() {
                columns.push(Series::full_null(name, rows, &spec.kind.data_type()).into_column());
                continue;
            }
            cells.pad(rows);
            let series = match cells {
                Cells::U64(v) => Series::new(name, v.as_slice()),
                Cells::U32(v) => Series::new(name, v.as_slice()),
                Cells::I32(v) => Series::new(name, v.as_slice()),
                Cells::Bool(v) => Series::new(name, v.as_slice()),
                Cells::Text { ends, all } => {
                    let texts: Vec<Option<&str>> = ends.iter().map(|&(a, b)| all.get(a..b)).collect();
                    Series::new(name, texts.as_slice())
                }
            };
            columns.push(series.into_column());
            *cells = Cells::new(spec.kind);
        }
        Ok(DataFrame::new(rows, columns)?)
    }
}
