//! A table in Markdown, for a mail or a bug report: what people see as columns, and the rest as one column of `name=value`.

use crate::text::rest;
use crate::write::{View, WriteOptions};
use mmuscope_analysis::table::{Kind, Table, human};
use std::fmt::Write as _;
use std::io::{self, Write};

pub(crate) struct MarkdownWriter<W> {
    table: &'static Table,
    options: WriteOptions,
    out: W,
}

impl<W: Write> MarkdownWriter<W> {
    pub(crate) fn new(table: &'static Table, options: WriteOptions, mut out: W) -> io::Result<Self> {
        let lead = table.lead.min(table.columns.len());
        let mut names = String::from("|");
        let mut rule = String::from("|");
        for c in &table.columns[..lead] {
            // Writing to a string cannot fail.
            let _ = write!(names, " {} |", c.name);
            rule.push_str(if matches!(c.kind, Kind::Text | Kind::Flag) { " --- |" } else { " ---: |" });
        }
        if lead < table.columns.len() {
            names.push_str(" fields |");
            rule.push_str(" --- |");
        }
        writeln!(out, "{names}\n{rule}")?;
        Ok(Self { table, options, out })
    }

    pub(crate) fn write(&mut self, view: &View<'_>) -> io::Result<()> {
        let lead = self.table.lead.min(view.columns.len());
        let absolute = self.options.absolute;
        for row in 0..view.rows {
            let mut line = String::from("|");
            for column in &view.columns[..lead] {
                let _ = write!(line, " {} |", cell(&human(column.spec, column.get(row), absolute)));
            }
            if lead < view.columns.len() {
                let mut fields = String::new();
                rest(&mut fields, &view.columns[lead..], row, absolute);
                let _ = write!(line, " {} |", cell(&fields));
            }
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> W {
        self.out
    }
}

/// Text from a trace ends no cell and is no markup.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '[' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}
