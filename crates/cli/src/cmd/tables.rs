//! [`TableArgs`] and [`Printer`]: the options of all commands that print a table, and how they print it.

use crate::output::{Output, format_for};
use anyhow::{Result, bail};
use mmuscope_analysis::Filter;
use mmuscope_analysis::table::{Chunk, Rows, Table};
use mmuscope_tables::{Format, TableWriter, WriteOptions};
use std::path::PathBuf;

/// The options of a command that prints a table.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub(crate) struct TableArgs {
    /// Output format: table (for people), md, csv, json, jsonl, parquet, arrow; without this option the ending of the output file decides, else it
    /// is table
    #[arg(long, short, value_parser = |s: &str| s.parse::<Format>())]
    format: Option<Format>,
    /// Write to a file instead of standard output; its ending decides the format: .txt .md .csv .json .jsonl .parquet .arrow
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print only rows for which an expression over the columns is true: 'level == 1 and new_spte != 0'
    #[arg(long = "where", value_name = "EXPR")]
    pub(crate) filter: Option<String>,
    /// Print only these columns, in this order
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// Print at most this many rows
    #[arg(long, short = 'n', value_name = "ROWS")]
    pub(crate) limit: Option<usize>,
    /// Show times on the trace's clock instead of since the first event
    #[arg(long)]
    pub(crate) absolute: bool,
    /// Leave out the line of column names
    #[arg(long)]
    pub(crate) no_header: bool,
}

impl TableArgs {
    /// The time on the trace's clock that times count from.
    pub(crate) fn base(&self, first_ts: u64) -> u64 {
        if self.absolute { 0 } else { first_ts }
    }

    /// Whether people are to read all of it: then a command may print more than the table.
    pub(crate) fn is_for_people(&self) -> Result<bool> {
        Ok(self.format()? == Format::Text && self.columns.is_empty() && self.filter.is_none())
    }

    fn format(&self) -> Result<Format> {
        format_for(
            self.format,
            self.output.as_deref(),
            Format::Text,
            Format::of_ending,
            ".txt, .md, .csv, .json, .jsonl, .parquet or .arrow",
        )
    }

    /// Checks the arguments and opens the output, before any work is done.
    pub(crate) fn open(&self, table: &'static Table) -> Result<Printer> {
        let filter = self.filter.as_deref().map(|f| Filter::new(f, table)).transpose()?;
        let printed = if self.columns.is_empty() { table } else { table.select(&self.columns)? };
        let format = self.format()?;
        let out = Output::new(self.output.as_deref(), format)?;
        let options = WriteOptions { no_header: self.no_header, absolute: self.absolute };
        let writer = Begun::Not(printed, format, options, out);
        Ok(Printer {
            rows: Rows::new(table),
            writer: Some(writer),
            filter,
            left: self.limit.unwrap_or(usize::MAX),
        })
    }
}

/// A table that is being printed, row by row.
pub(crate) struct Printer {
    /// The rows to add to. Call [`flush_full`](Self::flush_full) after each row.
    pub(crate) rows: Rows,
    writer: Option<Begun>,
    filter: Option<Filter>,
    left: usize,
}

/// The output before and after its first chunk. A command that fails before its first chunk prints no header.
enum Begun {
    Not(&'static Table, Format, WriteOptions, Output),
    Yes(Box<TableWriter<Output>>),
}

impl Printer {
    /// Writes the rows once they fill a chunk. It returns false when no more rows are wanted.
    pub(crate) fn flush_full(&mut self) -> Result<bool> {
        // Without a filter every row is printed, so that no more rows than wanted need be made.
        let enough = self.filter.is_none() && self.rows.len() >= self.left;
        if self.rows.is_full() || enough {
            self.flush()?;
        }
        Ok(self.left > 0)
    }

    fn flush(&mut self) -> Result<()> {
        let mut chunk: Chunk = self.rows.take();
        if let Some(f) = &self.filter {
            chunk = f.apply(chunk);
        }
        chunk = chunk.head(self.left);
        self.left -= chunk.height();
        let mut writer = self.begin()?;
        writer.write(&chunk)?;
        self.writer = Some(Begun::Yes(Box::new(writer)));
        Ok(())
    }

    fn begin(&mut self) -> Result<TableWriter<Output>> {
        match self.writer.take() {
            Some(Begun::Yes(w)) => Ok(*w),
            Some(Begun::Not(table, format, options, out)) => {
                Ok(TableWriter::new(table, format, options, out)?)
            }
            None => bail!("the output failed before"),
        }
    }

    /// Writes the remaining rows and completes the output.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.begin()?.finish()?.done()
    }
}
