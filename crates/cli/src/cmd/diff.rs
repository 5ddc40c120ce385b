//! `mmuscope diff`: two runs, or several on each side, of one guest, compared.

use super::input::{InputArgs, TimeArgs, clock_of};
use super::which::check_vm;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::{Output, format_for};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mmuscope_analysis::diff::{Align, Diff, Run};
use mmuscope_analysis::stat::Query;
use mmuscope_report::diff::{render_html, render_json, render_markdown, render_text};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Two runs of one guest, or several on each side: what changed, and what is no more than chance
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope diff before.dat after.dat
  mmuscope diff before1.dat before2.dat before3.dat -- after1.dat after2.dat after3.dat
  mmuscope diff old.data new.data --align marker -o diff.html
  mmuscope diff old.data new.data --fail-on-change

Each file is a run; options stand before `--`. Exit status: 0, or with --fail-on-change 1 if something changed; 2 the runs could not be compared.")]
pub(crate) struct Args {
    /// The runs of side A; without `--`, one run of each side
    #[arg(required = true, value_name = "A")]
    a: Vec<PathBuf>,
    /// The runs of side B, after `--`
    #[arg(last = true, value_name = "B")]
    b: Vec<PathBuf>,
    /// How the courses of the runs are put beside each other
    #[arg(long, value_enum, default_value_t = By::Progress)]
    align: By,
    /// Exit with status 1 if something changed
    #[arg(long)]
    fail_on_change: bool,
    /// List what is the same, too (text)
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    time: TimeArgs,
    /// Only of this VM (its number in `mmuscope summary`)
    #[arg(long)]
    vm: Option<u16>,
    /// Only of this vCPU
    #[arg(long)]
    vcpu: Option<u32>,
    /// Output format; without this option the ending of the output file decides, else it is text
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// Write to a file instead of standard output; its ending decides the format: .txt .md .html .json
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Event formats for files that lack them: a copy of /sys/kernel/tracing/events of the same kernel
    #[arg(long, value_name = "DIR")]
    formats: Option<PathBuf>,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// How courses are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Where the same share of a run's faults had happened
    Progress,
    /// At the ends of the phases (trace_marker) that all runs have
    Marker,
    /// After the same time
    Time,
}

/// Formats of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Md,
    Html,
    Json,
}

impl Format {
    fn of_ending(ending: &str) -> Option<Self> {
        match ending {
            "txt" | "text" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Md),
            "html" | "htm" => Some(Self::Html),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Md => "md",
            Self::Html => "html",
            Self::Json => "json",
        })
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let known = ".txt, .md, .html or .json";
    let format = format_for(a.format, a.output.as_deref(), Format::Text, Format::of_ending, known)?;
    let (of_a, of_b): (&[PathBuf], &[PathBuf]) = match (a.a.as_slice(), a.b.as_slice()) {
        ([one, other], []) => (std::slice::from_ref(one), std::slice::from_ref(other)),
        ([_], []) => bail!("one run alone: name a run of each side, or several of each with `--` between"),
        (_, []) => bail!("which of the {} runs are of which side? Put `--` between them", a.a.len()),
        sides => sides,
    };
    if let Some(option) =
        of_b.iter().find(|f| f.as_os_str().as_encoded_bytes().starts_with(b"-") && !f.exists())
    {
        bail!("{}: what follows `--` are files of side B; options stand before it", option.display());
    }
    let align = match a.align {
        By::Progress => Align::Progress,
        By::Marker => Align::Marker,
        By::Time => Align::Time,
    };
    let mut out = Output::text(a.output.as_deref())?;
    let runs = |files: &[PathBuf]| files.iter().map(|f| gather(a, f, align)).collect::<Result<Vec<Run>>>();
    let diff = Diff::new(&runs(of_a)?, &runs(of_b)?, align);
    let text = match format {
        Format::Text => render_text(&diff, a.all),
        Format::Md => render_markdown(&diff),
        Format::Html => render_html(&diff),
        Format::Json => render_json(&diff)?,
    };
    out.write_all(text.as_bytes())?;
    out.done()?;
    Ok(if a.fail_on_change && diff.changes > 0 { Outcome::No } else { Outcome::Fine })
}

/// Reads one run; its trace is not kept.
fn gather(a: &Args, file: &Path, align: Align) -> Result<Run> {
    let input = InputArgs { files: vec![file.to_path_buf()], formats: a.formats.clone() };
    let of = || file.display().to_string();
    let (trace, timeline) = input.replay(&a.layout)?;
    check_vm(&timeline, a.vm, None).with_context(of)?;
    let (from, to) = a.time.on(&clock_of(&trace, false)).with_context(of)?;
    let query = Query { from, to, vm: a.vm, vcpu: a.vcpu, ..Query::default() };
    Ok(Run::new(&trace, &timeline, &query, align))
}
