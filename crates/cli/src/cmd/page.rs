//! `mmuscope page`: the stories of guest pages.

use super::input::InputArgs;
use super::which::{DecimalArg, check_vm};
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::{Output, format_for};
use anyhow::{Result, bail};
use mmuscope_analysis::words::{clock, count, gfn_range, printable, seconds};
use mmuscope_replay::{PageStory, Timeline, VmId};
use mmuscope_units::Frames;
use serde_json::Value;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

/// The life of one guest page, or of several: faults, installs, write-protects, zaps, with who and how long
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope page trace.dat 7c00
  mmuscope page trace.dat 7c00 fee00 100-10f          several pages
  mmuscope page trace.dat 0d31744                     the same as 7c00
  mmuscope page trace.dat fee00 --vm 0 --as-id 0")]
pub(crate) struct Args {
    /// A trace; `-` is standard input
    file: PathBuf,
    /// Guest frames (hex) and ranges of them: 7c00, 100-1ff, 100+16
    #[arg(required = true, value_name = "GFN")]
    gfns: Vec<Frames>,
    #[command(flatten)]
    decimal: DecimalArg,
    /// VM of the pages (its number in `mmuscope summary`)
    #[arg(long, default_value_t = 0)]
    vm: u16,
    /// Address space of the pages (1 is SMM)
    #[arg(long, default_value_t = 0)]
    as_id: u8,
    /// Show times on the trace's clock instead of since the first event
    #[arg(long)]
    absolute: bool,
    /// Output format: text or json; without this option the ending of the output file decides, else it is text
    #[arg(long, short, value_enum)]
    format: Option<TextOrJson>,
    /// Write to a file instead of standard output; its ending decides the format: .txt .json
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Formats of `page` and `summary`: for people or for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TextOrJson {
    Text,
    Json,
}

impl TextOrJson {
    /// The format of an output, from `--format` and the ending of the file.
    pub(crate) fn of(asked: Option<Self>, output: Option<&std::path::Path>) -> Result<Self> {
        let of_ending = |e: &str| match e {
            "txt" | "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        };
        format_for(asked, output, Self::Text, of_ending, ".txt or .json")
    }
}

impl fmt::Display for TextOrJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Text { "text" } else { "json" })
    }
}

/// Most pages in one call: each story is a list of its own, and nobody reads more of them.
const MOST: u64 = 4096;

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let ranges: Vec<(u64, u64)> = a.gfns.iter().map(|g| a.decimal.frames(g)).collect::<Result<_>>()?;
    let pages = ranges.iter().map(|(first, end)| end - first).fold(0, u64::saturating_add);
    if pages > MOST {
        bail!(
            "{} pages were asked for, and `mmuscope page` prints at most {} at a time: for long ranges use `mmuscope spans --gfn {}`",
            count(pages),
            count(MOST),
            a.gfns[0]
        );
    }
    let format = TextOrJson::of(a.format, a.output.as_deref())?;
    let mut out = Output::text(a.output.as_deref())?;
    let input = InputArgs { files: vec![a.file.clone()], formats: None };
    let (trace, timeline) = input.replay(&a.layout)?;
    check_vm(&timeline, Some(a.vm), None)?;
    let places: Vec<(u8, u64)> =
        ranges.iter().flat_map(|(first, end)| *first..*end).map(|gfn| (a.as_id, gfn)).collect();
    let stories = timeline.page_stories(&trace, VmId(a.vm), &places, (usize::MAX, 0));
    let stories = stories.into_iter().map(|(story, _)| story);
    let base = if a.absolute { 0 } else { trace.info.first_ts };
    match format {
        // The contract is an object for one page and a list for several.
        TextOrJson::Json => {
            let mut all: Vec<Value> = stories.map(|s| json(&timeline, &s, base)).collect();
            let value = if pages == 1 { all.swap_remove(0) } else { Value::Array(all) };
            serde_json::to_writer_pretty(&mut out, &value)?;
            writeln!(out)?;
        }
        TextOrJson::Text if pages == 1 => {
            for story in stories {
                text(&mut out, &story, base, a.absolute)?;
            }
        }
        TextOrJson::Text => several(&mut out, stories, base, a.absolute)?,
    }
    out.done()?;
    Ok(Outcome::Fine)
}

/// Prints the stories of several pages. Pages that no event names are listed together at the end.
fn several(
    out: &mut impl Write,
    stories: impl Iterator<Item = PageStory>,
    base: u64,
    absolute: bool,
) -> Result<()> {
    let mut nothing: Vec<(u64, u64)> = Vec::new();
    let mut printed = false;
    for story in stories {
        if story.lines.is_empty() {
            match nothing.last_mut() {
                Some((_, end)) if *end == story.gfn => *end += 1,
                _ => nothing.push((story.gfn, story.gfn.saturating_add(1))),
            }
            continue;
        }
        if printed {
            writeln!(out)?;
        }
        printed = true;
        text(out, &story, base, absolute)?;
    }
    if !nothing.is_empty() {
        let ranges: Vec<String> = nothing.iter().map(|(a, b)| gfn_range(*a, *b)).collect();
        writeln!(out, "{}no event names {}", if printed { "\n" } else { "" }, ranges.join(", "))?;
    }
    Ok(())
}

fn text(out: &mut impl Write, story: &PageStory, base: u64, absolute: bool) -> Result<()> {
    writeln!(out, "{}", printable(&story.headline))?;
    if !story.lines.is_empty() {
        writeln!(out)?;
    }
    let when = |ts: u64| if absolute { clock(ts) } else { seconds(ts.saturating_sub(base)) };
    let widest = |f: fn(&mmuscope_replay::StoryLine) -> usize| story.lines.iter().map(f).max().unwrap_or(0);
    let who = widest(|l| l.who.chars().count()).min(44);
    for l in &story.lines {
        let certainty = l.certainty.filter(|c| *c > mmuscope_replay::Certainty::Observed);
        let doubt = certainty.map_or(String::new(), |c| format!("  [{}]", c.name()));
        writeln!(out, "{:>14}  {:<who$}  {}{doubt}", when(l.ts), printable(&l.who), printable(&l.text))?;
    }
    if !story.notes.is_empty() {
        writeln!(out)?;
    }
    for n in &story.notes {
        writeln!(out, "{}", printable(n))?;
    }
    Ok(())
}

fn json(timeline: &Timeline, story: &PageStory, base: u64) -> Value {
    let lines: Vec<_> = story
        .lines
        .iter()
        .map(|l| {
            serde_json::json!({
                "ts": l.ts.saturating_sub(base),
                "who": l.who,
                "text": l.text,
                "state": l.shade.map(|s| s.state().name()),
                "certainty": l.certainty.map(mmuscope_replay::Certainty::name),
                "event": l.event,
            })
        })
        .collect();
    serde_json::json!({
        "vm": story.vm.0,
        "as_id": story.as_id,
        "gfn": format!("{:#x}", story.gfn),
        "headline": story.headline,
        "lines": lines,
        "faults": story.faults.len(),
        "notes": story.notes,
        "vms": timeline.vms().len(),
    })
}
