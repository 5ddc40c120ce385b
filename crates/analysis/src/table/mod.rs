//! Tables: named, typed columns, built in chunks.
//!
//! A [`Chunk`] holds some rows of a [`Table`], column by column. Tables that stream are made and written chunk by chunk, so that memory stays
//! bounded however long the input is. `mmuscope-tables` writes them; the viewer and filters read cells.

use crate::words;
use std::borrow::Cow;
use std::fmt::Write as _;

mod build;
mod chunk;

pub use build::Rows;
pub use chunk::{Cell, Chunk};

/// Rows in a chunk: enough for good compression, small enough to stream.
pub const CHUNK_ROWS: usize = 64 * 1024;

/// What the values of a column are. It decides the type in Parquet and Arrow and the notation in text, CSV and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A moment: u64 nanoseconds since the first event (or on the trace's clock). People see seconds.
    Time,
    /// A length of time: u64 nanoseconds. People see a unit.
    Duration,
    /// An address, a frame number, a raw value: u64, `0x…` in text, CSV and JSON.
    Hex,
    /// A count or a number: u64.
    Count,
    /// A small number: u32.
    Number,
    /// A small number that can be negative: i32.
    Signed,
    /// A number of bytes: u64. People see 4K, 2M, 1G.
    Bytes,
    /// true or false.
    Flag,
    /// Words.
    Text,
}

impl Kind {
    /// The type of such a column in Parquet and Arrow.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Time | Self::Duration | Self::Hex | Self::Count | Self::Bytes => "u64",
            Self::Number => "u32",
            Self::Signed => "i32",
            Self::Flag => "bool",
            Self::Text => "string",
        }
    }
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: part of the contract with scripts.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What it says, for people.
    pub doc: &'static str,
}

/// A kind of table: its name and columns.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Name, as in the command that prints it.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// The columns, in order.
    pub columns: &'static [Column],
    /// How many of the first columns people see as columns; what the others hold goes into one line of `name=value` at the end. Equal to the
    /// number of columns where all are shown.
    pub lead: usize,
}

impl Table {
    /// The place of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The same table with some of its columns only, in the order they are asked for, all of them shown as columns to people.
    ///
    /// Tables live as long as the program: what is selected is as well, so this is for what a user asks for once.
    pub fn select(&self, names: &[String]) -> Result<&'static Self, NoColumn> {
        let mut columns: Vec<Column> = Vec::with_capacity(names.len());
        for name in names.iter().map(|n| n.trim()) {
            let wrong = |what: &str| {
                NoColumn(format!("{what}; the columns of `{}` are: {}", self.name, self.names()))
            };
            let at = self.position(name).ok_or_else(|| wrong(&format!("there is no column `{name}`")))?;
            if columns.iter().any(|c| c.name == name) {
                return Err(wrong(&format!("column `{name}` is asked for twice")));
            }
            columns.push(self.columns[at]);
        }
        let lead = columns.len();
        Ok(Box::leak(Box::new(Self { columns: columns.leak(), lead, ..*self })))
    }

    /// The names of the columns, in order.
    fn names(&self) -> String {
        self.columns.iter().map(|c| c.name).collect::<Vec<_>>().join(", ")
    }
}

/// A column that a table does not have, with those that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoColumn(String);

/// Declares a table and an enum whose variants are its columns' places.
macro_rules! table {
    ($(#[$m:meta])* $vis:vis $Columns:ident $([$c:meta])? / $TABLE:ident = $name:literal, lead $lead:expr, $doc:literal { $($col:ident: $kind:ident, $cdoc:literal;)* }) => {
        #[allow(non_camel_case_types, reason = "the variants are column names")]
        $(#[$c])?
        #[derive(Clone, Copy)]
        enum $Columns { $($col),* }
        $(#[$m])*
        $vis const $TABLE: $crate::table::Table = $crate::table::Table {
            name: $name,
            doc: $doc,
            columns: &[$($crate::table::Column {
                // A column called `type` would need this too: raw identifiers do not print their mark.
                name: stringify!($col),
                kind: $crate::table::Kind::$kind,
                doc: $cdoc,
            }),*],
            lead: $lead,
        };
        impl From<$Columns> for usize {
            fn from(c: $Columns) -> usize { c as usize }
        }
    };
}
pub(crate) use table;

/// What people see of a cell, in the unit of its column: `-` where it is null. Times count from the first event, or are those of the trace's
/// clock where `absolute` is set.
pub fn human<'a>(column: &Column, cell: Cell<'a>, absolute: bool) -> Cow<'a, str> {
    match cell {
        Cell::Null => Cow::Borrowed("-"),
        Cell::U64(v) => Cow::Owned(match column.kind {
            Kind::Time if absolute => words::clock(v),
            Kind::Time => words::seconds(v),
            Kind::Duration => words::duration(v),
            Kind::Hex => format!("{v:#x}"),
            Kind::Bytes => words::bytes(v),
            _ => v.to_string(),
        }),
        Cell::I32(v) => Cow::Owned(v.to_string()),
        Cell::Bool(v) => Cow::Borrowed(if v { "yes" } else { "no" }),
        Cell::Text(v) => words::printable(v),
    }
}

/// A Markdown table of a table's columns, for the documentation.
pub fn describe(table: &Table) -> String {
    let mut out = format!("{}\n\n| column | type | what it says |\n| --- | --- | --- |\n", table.doc);
    for c in table.columns {
        let kind = match c.kind {
            Kind::Time => "time, u64",
            Kind::Duration => "duration, u64",
            Kind::Hex => "hex, u64",
            Kind::Bytes => "bytes, u64",
            other => other.type_name(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| `{}` | {kind} | {} |", c.name, c.doc);
    }
    out
}
