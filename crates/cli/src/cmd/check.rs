//! `mmuscope check`: all findings of a trace in a stable order, with an exit status for scripts.

mod formats;
mod judged;

use super::input::InputArgs;
use super::part::PartArgs;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::{Output, format_for};
use anyhow::{Context, Result, bail};
use judged::{Judged, Verdict, judge, known};
use mmuscope_analysis::findings::{RULES, Severity, find};
use mmuscope_analysis::snapshots::sentence;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

/// All findings of a trace: trouble, cost, broken rules of KVM; exit status 1 if one of them is denied
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope check trace.dat                                errors are denied
  mmuscope check trace.dat --deny warning --allow ram-to-mmio
  mmuscope check trace.dat --from 1s --to 2s --vm 1       the whole trace's findings that show in this part
  mmuscope check trace.dat --only snapshot-differs        does the replay equal the kernel's memory?
  mmuscope check before.dat --format json -o known.json   what is known …
  mmuscope check after.dat --baseline known.json          … is not denied
  mmuscope check trace.dat --format sarif -o mmu.sarif    for a forge; junit for a CI

The catalogue of findings is docs/guide/findings.md.
Exit status: 0 nothing is denied, 1 something is, 2 the trace could not be checked.")]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Deny findings of this severity and above
    #[arg(long, value_enum, default_value_t = Level::Error)]
    deny: Level,
    /// Look for the findings of this id only, and deny them whatever their severity; may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "deny")]
    only: Vec<String>,
    /// Do not deny the findings of this id; may be given several times
    #[arg(long, value_name = "ID")]
    allow: Vec<String>,
    /// Do not deny what the JSON of an earlier check holds: findings of the same id, VM and frame that were not less severe
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Say of each finding in text why it happens, what to do, how sure the cause is, and what would refute it
    #[arg(long)]
    explain: bool,
    /// Output format; without this option the ending of the output file decides, else it is text
    #[arg(long, short, value_enum)]
    format: Option<Format>,
    /// Write to a file instead of standard output; its ending decides the format: .txt .json .xml (JUnit) .sarif
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// The severities, as options name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Level {
    Info,
    #[value(alias = "warn")]
    Warning,
    Error,
}

impl Level {
    const fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

/// Formats of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
    Sarif,
}

impl Format {
    fn of(asked: Option<Self>, output: Option<&Path>) -> Result<Self> {
        let of_ending = |e: &str| match e {
            "txt" | "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            "xml" => Some(Self::Junit),
            "sarif" => Some(Self::Sarif),
            _ => None,
        };
        format_for(asked, output, Self::Text, of_ending, ".txt, .json, .xml or .sarif")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Junit => "junit",
            Self::Sarif => "sarif",
        })
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    for (option, id) in a.allow.iter().map(|id| ("--allow", id)).chain(a.only.iter().map(|id| ("--only", id)))
    {
        if !RULES.iter().any(|r| r.id == id) {
            let ids: Vec<&str> = RULES.iter().map(|r| r.id).collect();
            bail!("{option} {id}: no finding has this id; there are {}", ids.join(", "));
        }
    }
    let format = Format::of(a.format, a.output.as_deref())?;
    let before = match &a.baseline {
        Some(path) => known(path).with_context(|| format!("--baseline {}", path.display()))?,
        None => Vec::new(),
    };
    let (trace, timeline) = a.input.replay(&a.layout)?;
    // Where nothing was read, nothing can agree.
    if a.only.iter().any(|id| id == SNAPSHOTS) && timeline.snapshots().iter().all(|s| s.tables == 0) {
        bail!(
            "--only {SNAPSHOTS}: the trace has no snapshot of KVM's page tables that it could be held against (`mmuscope doctor` says what `mmuscope record` needs for one)"
        );
    }
    let mut found = find(&trace, &timeline);
    let part = a.part.of(&trace, &timeline, false)?;
    found.retain(|f| part.is_all() || part.finding(&trace, f));
    found.retain(|f| a.only.is_empty() || a.only.iter().any(|id| id == f.id));
    let deny = if a.only.is_empty() { a.deny.severity() } else { Severity::Info };
    let all = judge(found, deny, &a.allow, &before);
    let denied = all.iter().filter(|j| j.verdict == Verdict::Denied).count();
    let mut out = Output::text(a.output.as_deref())?;
    match format {
        Format::Text => {
            if a.only.iter().any(|id| id == SNAPSHOTS) {
                timeline.snapshots().iter().try_for_each(|s| writeln!(out, "{}", sentence(s)))?;
            }
            write!(out, "{}", formats::text(&trace.info, &all, deny, a.explain))?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &formats::json(&trace.info, &all))?;
            writeln!(out)?;
        }
        Format::Junit => write!(out, "{}", formats::junit(&trace.info, &all))?,
        Format::Sarif => {
            serde_json::to_writer_pretty(&mut out, &formats::sarif(&trace.info, &all))?;
            writeln!(out)?;
        }
    }
    out.done()?;
    Ok(if denied > 0 { Outcome::No } else { Outcome::Fine })
}

/// The finding of entries that are otherwise in KVM's memory than the events had shown.
const SNAPSHOTS: &str = "snapshot-differs";

/// The findings that were judged, for the formats.
type All = [Judged];
