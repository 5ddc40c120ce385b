//! Writing chunks in a format.

use crate::Error;
use crate::binary::{ArrowWriter, ParquetWriter};
use crate::markdown::MarkdownWriter;
use crate::text::TextWriter;
use mmuscope_analysis::table::{Cell, Chunk, Column, Kind, Table};
use rayon::prelude::*;
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

/// The formats of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// Aligned columns with units, for people.
    #[default]
    Text,
    /// Comma-separated values with a line of column names.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line, without the keys whose value is null.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC file (Feather v2).
    Arrow,
    /// A Markdown table with the columns and units of the aligned one.
    Markdown,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Text, Self::Csv, Self::Json, Self::Jsonl, Self::Parquet, Self::Arrow, Self::Markdown];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Markdown => "md",
        }
    }

    /// The format that a file's name asks for by its ending.
    pub fn of_ending(ending: &str) -> Option<Self> {
        match ending.to_ascii_lowercase().as_str() {
            "txt" | "text" => Some(Self::Text),
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" | "pq" => Some(Self::Parquet),
            "arrow" | "ipc" | "feather" => Some(Self::Arrow),
            "md" | "markdown" => Some(Self::Markdown),
            _ => None,
        }
    }

    /// Whether it is not text: nothing to write to a terminal.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "text" | "txt" => Ok(Self::Text),
            "markdown" => Ok(Self::Markdown),
            "ndjson" => Ok(Self::Jsonl),
            "ipc" | "feather" => Ok(Self::Arrow),
            _ => Self::ALL
                .into_iter()
                .find(|f| f.name() == s)
                .ok_or_else(|| format!("no format `{s}`: one of {}", Self::ALL.map(Self::name).join(", "))),
        }
    }
}

/// How to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Leave out the line of column names (text and CSV).
    pub no_header: bool,
    /// Times of the trace's clock instead of since the first event; text then shows them as they are.
    pub absolute: bool,
}

/// Writes a table chunk by chunk. Call [`finish`](Self::finish): formats with a footer are unreadable without it.
pub struct TableWriter<W: Write> {
    table: &'static Table,
    kind: Writer<W>,
}

impl<W: Write> fmt::Debug for TableWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableWriter").field("table", &self.table.name).finish_non_exhaustive()
    }
}

enum Writer<W: Write> {
    Text(TextWriter<W>),
    Markdown(MarkdownWriter<W>),
    Csv(W),
    Json { out: W, rows: u64, lines: bool },
    Parquet(Box<ParquetWriter<W>>),
    Arrow(Box<ArrowWriter<W>>),
}

impl<W: Write> TableWriter<W> {
    /// Begins the output.
    pub fn new(table: &'static Table, format: Format, options: WriteOptions, out: W) -> Result<Self, Error> {
        let kind = match format {
            Format::Text => Writer::Text(TextWriter::new(table, options, out)),
            Format::Markdown => Writer::Markdown(MarkdownWriter::new(table, options, out)?),
            Format::Csv => {
                let mut w = csv::Writer::from_writer(out);
                if !options.no_header {
                    w.write_record(table.columns.iter().map(|c| c.name))?;
                }
                Writer::Csv(w.into_inner().map_err(|e| io::Error::from(e.error().kind()))?)
            }
            Format::Json | Format::Jsonl => Writer::Json { out, rows: 0, lines: format == Format::Jsonl },
            Format::Parquet => Writer::Parquet(Box::new(ParquetWriter::new(table, out)?)),
            Format::Arrow => Writer::Arrow(Box::new(ArrowWriter::new(table, out)?)),
        };
        Ok(Self { table, kind })
    }

    /// Writes a chunk.
    pub fn write(&mut self, chunk: &Chunk) -> Result<(), Error> {
        if chunk.height() == 0 {
            return Ok(());
        }
        let view = View::new(self.table, chunk);
        match &mut self.kind {
            Writer::Text(w) => w.write(&view)?,
            Writer::Markdown(w) => w.write(&view)?,
            Writer::Csv(out) => {
                for part in view.in_parts(|row, to| csv_row(to, &view, row)) {
                    out.write_all(&part)?;
                }
            }
            Writer::Json { out, rows, lines } => {
                let (lines, before) = (*lines, *rows);
                let parts = view.in_parts(|row, to| {
                    match (lines, before + row as u64) {
                        (true, _) => {}
                        (false, 0) => to.push(b'['),
                        (false, _) => to.extend(b",\n "),
                    }
                    json_row(to, &view, row, lines);
                    if lines {
                        to.push(b'\n');
                    }
                });
                for part in parts {
                    out.write_all(&part)?;
                }
                *rows += view.rows as u64;
            }
            Writer::Parquet(w) => w.write(&view)?,
            Writer::Arrow(w) => w.write(&view)?,
        }
        Ok(())
    }

    /// Ends the output and gives it back.
    pub fn finish(self) -> Result<W, Error> {
        Ok(match self.kind {
            Writer::Text(w) => w.finish()?,
            Writer::Markdown(w) => w.finish(),
            Writer::Csv(out) => out,
            Writer::Json { mut out, rows, lines } => {
                match (lines, rows) {
                    (true, _) => {}
                    (false, 0) => out.write_all(b"[]\n")?,
                    (false, _) => out.write_all(b"]\n")?,
                }
                out
            }
            Writer::Parquet(w) => w.finish()?,
            Writer::Arrow(w) => w.finish()?,
        })
    }
}

/// The columns of a chunk that are written, in the order in which they are.
pub(crate) struct View<'a> {
    pub(crate) columns: Vec<ColumnView<'a>>,
    pub(crate) rows: usize,
}

pub(crate) struct ColumnView<'a> {
    pub(crate) spec: &'static Column,
    chunk: &'a Chunk,
    /// The column's place in the chunk; `None` where every cell is null.
    pub(crate) at: Option<usize>,
}

impl<'a> View<'a> {
    /// The columns of `table`, which may be fewer than the chunk's ([`Table::select`]) and in another order.
    fn new(table: &'static Table, chunk: &'a Chunk) -> Self {
        let columns = table.columns.iter().map(|spec| {
            let at = chunk.table().position(spec.name).filter(|n| !chunk.is_null(*n));
            ColumnView { spec, chunk, at }
        });
        Self { columns: columns.collect(), rows: chunk.height() }
    }
}

impl View<'_> {
    /// Each row as bytes, made on all threads; the parts in order.
    fn in_parts(&self, row: impl Fn(usize, &mut Vec<u8>) + Sync) -> Vec<Vec<u8>> {
        let parts = self.rows.div_ceil(PART).max(1);
        (0..parts)
            .into_par_iter()
            .map(|n| {
                let mut out = Vec::with_capacity(PART * 160);
                for r in n * PART..((n + 1) * PART).min(self.rows) {
                    row(r, &mut out);
                }
                out
            })
            .collect()
    }
}

/// Rows that a thread writes at a time.
const PART: usize = 4096;

impl<'a> ColumnView<'a> {
    pub(crate) fn get(&self, row: usize) -> Cell<'a> {
        self.at.map_or(Cell::Null, |n| self.chunk.cell(row, n))
    }
}

fn integer(out: &mut Vec<u8>, v: impl itoa::Integer) {
    out.extend(itoa::Buffer::new().format(v).bytes());
}

/// `0x…`, without leading zeros.
fn hex(out: &mut Vec<u8>, v: u64) {
    out.extend(b"0x");
    let digits = (64 - v.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|d| b"0123456789abcdef"[(v >> (4 * d) & 15) as usize]));
}

/// A row as scripts read it: nothing for null, text quoted where it has to be (RFC 4180).
fn csv_row(out: &mut Vec<u8>, view: &View<'_>, row: usize) {
    for (n, column) in view.columns.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        match column.get(row) {
            Cell::Null => {}
            Cell::U64(v) if column.spec.kind == Kind::Hex => hex(out, v),
            Cell::U64(v) => integer(out, v),
            Cell::I32(v) => integer(out, v),
            Cell::Bool(v) => out.extend(if v { &b"true"[..] } else { b"false" }),
            Cell::Text(v) if v.bytes().any(|b| matches!(b, b'"' | b',' | b'\n' | b'\r')) => {
                out.push(b'"');
                for b in v.bytes() {
                    if b == b'"' {
                        out.push(b'"');
                    }
                    out.push(b);
                }
                out.push(b'"');
            }
            Cell::Text(v) => out.extend(v.bytes()),
        }
    }
    out.push(b'\n');
}

/// A row as an object. With `sparse`, an absent key is what null is otherwise: most columns of an event do not apply to it, and would be nine
/// tenths of the output.
fn json_row(out: &mut Vec<u8>, view: &View<'_>, row: usize, sparse: bool) {
    out.push(b'{');
    let mut first = true;
    for column in &view.columns {
        let cell = column.get(row);
        if sparse && cell == Cell::Null {
            continue;
        }
        out.extend(if std::mem::take(&mut first) { &b"\""[..] } else { b",\"" });
        out.extend(column.spec.name.bytes());
        out.extend(b"\":");
        match cell {
            Cell::Null => out.extend(b"null"),
            Cell::U64(v) if column.spec.kind == Kind::Hex => {
                out.push(b'"');
                hex(out, v);
                out.push(b'"');
            }
            Cell::U64(v) => integer(out, v),
            Cell::I32(v) => integer(out, v),
            Cell::Bool(v) => out.extend(if v { &b"true"[..] } else { b"false" }),
            // Writing a string to memory cannot fail.
            Cell::Text(v) => drop(serde_json::to_writer(&mut *out, v)),
        }
    }
    out.push(b'}');
}
