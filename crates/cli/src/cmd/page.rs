//! `mmuscope page`.

use super::input::{InputArgs, parse_gfns};
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::{Result, bail};
use mmuscope_analysis::words::{clock, printable, seconds};
use mmuscope_replay::{PageStory, Timeline, VmId};
use std::io::Write;
use std::path::PathBuf;

/// The life of one guest page: faults, installs, write-protects, zaps, with who and how long
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope page trace.dat 0x7c00
  mmuscope page trace.dat 0xfee00 --vm 0 --as-id 0")]
pub(crate) struct Args {
    /// A trace; `-` is standard input
    file: PathBuf,
    /// The guest frame: 0x7c00, or decimal
    gfn: String,
    /// Of this VM (its number in `mmuscope summary`)
    #[arg(long, default_value_t = 0)]
    vm: u16,
    /// Of this address space (1 is SMM)
    #[arg(long, default_value_t = 0)]
    as_id: u8,
    /// Times on the trace's clock instead of since the first event
    #[arg(long)]
    absolute: bool,
    /// text or json
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    #[command(flatten)]
    layout: LayoutArgs,
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let (gfn, end) = parse_gfns(&a.gfn).map_err(anyhow::Error::msg)?;
    if end != gfn + 1 {
        bail!(
            "`{}` is a range: a story is of one page; for a range use `mmuscope spans --gfn {}`",
            a.gfn,
            a.gfn
        );
    }
    let input = InputArgs { files: vec![a.file.clone()], formats: None };
    let (trace, timeline) = input.replay(&a.layout)?;
    if !timeline.vms().iter().any(|v| v.id.0 == a.vm) {
        bail!("there is no VM {}: the trace has {}", a.vm, timeline.vms().len());
    }
    let story = timeline.page_story(&trace, VmId(a.vm), a.as_id, gfn);
    let base = if a.absolute { 0 } else { trace.info.first_ts };
    let out = &mut std::io::stdout().lock();
    if a.format == "json" {
        json(out, &timeline, &story, base)?;
    } else {
        text(out, &story, base, a.absolute)?;
    }
    Ok(Outcome::Fine)
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

fn json(out: &mut impl Write, timeline: &Timeline, story: &PageStory, base: u64) -> Result<()> {
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
    let value = serde_json::json!({
        "vm": story.vm.0,
        "as_id": story.as_id,
        "gfn": format!("{:#x}", story.gfn),
        "headline": story.headline,
        "lines": lines,
        "faults": story.faults.len(),
        "notes": story.notes,
        "vms": timeline.vms().len(),
    });
    serde_json::to_writer_pretty(&mut *out, &value)?;
    writeln!(out)?;
    Ok(())
}
