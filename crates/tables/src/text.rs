//! Aligned columns for people.

use crate::write::{ColumnView, View, WriteOptions};
use mmuscope_analysis::table::{Cell, Column, Kind, Table, human};
use std::io::{self, Write};

/// Rows from which the widths of the columns are taken when a chunk is longer: enough to be right almost always.
const LOOK_AHEAD: usize = 4096;

pub(crate) struct TextWriter<W> {
    table: &'static Table,
    options: WriteOptions,
    out: W,
    /// Width of each lead column; empty until the first chunk came.
    widths: Vec<usize>,
}

impl<W: Write> TextWriter<W> {
    pub(crate) fn new(table: &'static Table, options: WriteOptions, out: W) -> Self {
        Self { table, options, out, widths: Vec::new() }
    }

    pub(crate) fn write(&mut self, view: &View<'_>) -> io::Result<()> {
        let lead = self.table.lead.min(view.columns.len());
        let absolute = self.options.absolute;
        if self.widths.is_empty() {
            self.widths = self.table.columns[..lead].iter().map(|c| c.name.len()).collect();
            for row in 0..view.rows.min(LOOK_AHEAD) {
                for (width, column) in self.widths.iter_mut().zip(&view.columns) {
                    *width = (*width).max(human(column.spec, column.get(row), absolute).chars().count());
                }
            }
            self.header(lead)?;
        }
        let mut line = String::new();
        for row in 0..view.rows {
            line.clear();
            for (n, column) in view.columns[..lead].iter().enumerate() {
                let text = human(column.spec, column.get(row), absolute);
                self.cell(&mut line, n, column.spec, &text);
            }
            rest(&mut line, &view.columns[lead..], row, absolute);
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        // A table without rows still says what its columns are.
        if self.widths.is_empty() {
            let lead = self.table.lead.min(self.table.columns.len());
            self.widths = self.table.columns[..lead].iter().map(|c| c.name.len()).collect();
            self.header(lead)?;
        }
        Ok(self.out)
    }

    fn header(&mut self, lead: usize) -> io::Result<()> {
        if self.options.no_header {
            return Ok(());
        }
        let mut line = String::new();
        for (n, c) in self.table.columns[..lead].iter().enumerate() {
            self.cell(&mut line, n, c, &c.name.to_uppercase());
        }
        writeln!(self.out, "{}", line.trim_end())
    }

    /// Appends a lead cell: words to the left, numbers to the right.
    fn cell(&self, line: &mut String, n: usize, column: &Column, text: &str) {
        let width = self.widths.get(n).copied().unwrap_or_default();
        let pad = width.saturating_sub(text.chars().count());
        if n > 0 {
            line.push_str("  ");
        }
        let left = matches!(column.kind, Kind::Text | Kind::Flag);
        if !left {
            line.extend(std::iter::repeat_n(' ', pad));
        }
        line.push_str(text);
        if left {
            line.extend(std::iter::repeat_n(' ', pad));
        }
    }
}

/// Appends what the other columns hold, as `name=value`. The number of an event is for joins: people see it where they ask for the column.
pub(crate) fn rest(line: &mut String, columns: &[ColumnView<'_>], row: usize, absolute: bool) {
    for column in columns.iter().filter(|c| c.spec.name != "event_id") {
        let cell = column.get(row);
        if cell != Cell::Null {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(column.spec.name);
            line.push('=');
            line.push_str(&human(column.spec, cell, absolute));
        }
    }
}
