//! `mmuscope report`: the report of a trace as HTML, Markdown or JSON.

use super::input::InputArgs;
use super::part::PartArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::{Output, format_for};
use anyhow::Result;
use clap::ValueEnum;
use mmuscope_analysis::session::Session;
use mmuscope_report::{
    Options, Report, render_html, render_html_of, render_json, render_json_of, render_markdown,
    render_markdown_of,
};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// The whole story of a trace on one self-contained page
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope report trace.dat -o boot.html
  mmuscope report perf.data -o boot.md             Markdown, by the name of the file
  mmuscope report trace.dat --format json | jq .vms
  mmuscope report trace.dat --from 1.5s --to 2s --vm 1 -o part.html
  mmuscope report --each before.dat after.dat -o both.html         several traces on one page")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Write to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format; without this option the ending of the output file decides, else it is html
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// Title of the page
    #[arg(long)]
    title: Option<String>,
    /// Number of pages in the lists of the busiest pages
    #[arg(long, value_name = "N", default_value_t = 10)]
    pages: usize,
    /// Each file is a trace of its own: one report of all, which begins with a table that puts them side by side
    #[arg(long)]
    each: bool,
    #[command(flatten)]
    part: PartArgs,
    /// Print the notes of this file, which `mmuscope view` keeps beside a trace (Save session…)
    #[arg(long, value_name = "FILE", conflicts_with = "each")]
    session: Option<PathBuf>,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One HTML file without scripts or links to anywhere
    Html,
    /// Markdown, without pictures
    Md,
    /// JSON, without pictures
    Json,
}

impl Format {
    fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "html" | "htm" => Some(Self::Html),
            "md" | "markdown" => Some(Self::Md),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Html => "html",
            Self::Md => "md",
            Self::Json => "json",
        })
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let known = ".html, .md or .json";
    let format = format_for(a.format, a.output.as_deref(), Format::Html, Format::of_ending, known)?;
    let session = a.session.as_deref().map(Session::read).transpose().map_err(anyhow::Error::msg)?;
    let mut out = Output::text(a.output.as_deref())?;
    let text = if a.each {
        let of = |file: &PathBuf| {
            report(a, &InputArgs { files: vec![file.clone()], ..a.input.clone() }, None, format)
        };
        let mut reports = a.input.files.iter().map(of).collect::<Result<Vec<_>>>()?;
        match format {
            Format::Html => render_html_of(&mut reports),
            Format::Md => render_markdown_of(&reports),
            Format::Json => render_json_of(&reports)?,
        }
    } else {
        let report = report(a, &a.input, session, format)?;
        match format {
            Format::Html => render_html(&report),
            Format::Md => render_markdown(&report),
            Format::Json => render_json(&report)?,
        }
    };
    out.write_all(text.as_bytes())?;
    out.done()?;
    if let Some(path) = &a.output
        && std::io::stderr().is_terminal()
    {
        eprintln!("wrote {} ({})", path.display(), mmuscope_units::bytes(text.len() as u64));
    }
    Ok(Outcome::Fine)
}

/// The report of one trace, with the notes of a session.
fn report(a: &Args, input: &InputArgs, session: Option<Session>, format: Format) -> Result<Report> {
    let (trace, timeline) = input.replay(&a.layout)?;
    let options = Options {
        title: a.title.clone(),
        pages: a.pages,
        pictures: format == Format::Html,
        part: a.part.of(&trace, &timeline, false)?,
        notes: session.map_or_else(Vec::new, |s| s.notes),
        ..Options::default()
    };
    Ok(Report::new(&trace, &timeline, &options))
}
