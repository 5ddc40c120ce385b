//! `mmuscope decode`: what SPTE values mean.

mod files;
mod host;
mod json;
mod text;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mmuscope_spte::infer::{self, Evidence, Judgement, Letters, Role};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{Kernel, Known, LayoutSpec, Resolved, Vendor};
use mmuscope_trace::paste::{self, Found, Pasted};

use crate::Outcome;
use crate::layout_args::LayoutArgs;

/// What SPTE values mean: from arguments, or pasted text (dmesg dumps, trace lines, debugger output) as argument or on standard input
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  mmuscope decode 0x600000123456b77 --kernel 6.1 --paging ept
  mmuscope decode 0x600000123456b77 0x200000123456975      what changed, and who changes it so
  mmuscope decode 0x8aa3a9d027 level 4 0x8aa111e025 level 1
  dmesg | mmuscope decode --host
  mmuscope decode dmesg.txt
  mmuscope decode --from trace.dat 8600000123456b77")]
pub(crate) struct Args {
    /// Values in hex, perhaps with their levels (`0x8aa111e025 level 1`), text that holds some, or files of text or traces; none or `-`:
    /// standard input
    #[arg(value_name = "VALUE|TEXT|FILE")]
    values: Vec<String>,
    /// Level of the entries: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB, 4, 5 (what the text says about a value wins)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    level: Option<u8>,
    /// Take kernel, host and masks from a trace
    #[arg(long, value_name = "CAPTURE", conflicts_with = "host")]
    from: Option<PathBuf>,
    /// Take kernel, host and masks from this machine, as far as they can be read
    #[arg(long)]
    host: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One array
    Json,
    /// One object a line
    Jsonl,
}

/// Text is read up to this many bytes.
const MOST_INPUT: u64 = 64 << 20;

/// Values and how to read them.
struct Question {
    pasted: Pasted,
    level: Option<u8>,
    /// Values from arguments: explained one by one however many there are.
    bare: bool,
}

/// The layout to read them under.
enum Answer {
    /// It is known.
    Known(Box<Resolved>),
    /// It was concluded from the values.
    Judged(Box<Judgement>),
}

impl Answer {
    fn resolved(&self) -> Result<&Resolved> {
        match self {
            Answer::Known(resolved) => Ok(resolved),
            Answer::Judged(judgement) => {
                let best = judgement.best().context("no layout fits the options given")?;
                Ok(&best.resolved)
            }
        }
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let question = Question { bare: is_bare(&a.values), pasted: input(&a.values)?, level: a.level };
    if question.pasted.values.is_empty() {
        for note in &question.pasted.left_alone {
            eprintln!("mmuscope: {note}");
        }
        bail!(
            "no SPTE value found: give hex numbers, or text with `spte = 0x…`, trace lines or debugger output"
        );
    }
    let library = Library::new();
    let spec = spec(a, &question.pasted)?;
    let answer = answer(&spec, &question, &library)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match a.format {
        Format::Text => text::Printer::new(&mut out).answer(&question, &answer)?,
        Format::Json => json::array(&mut out, &question, &answer)?,
        Format::Jsonl => json::lines(&mut out, &question, &answer)?,
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

/// `0x…` or hex digits alone; as an argument any length counts.
fn argument(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word);
    let digits = digits.replace('_', "");
    let fits = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(&digits, 16).ok()).flatten()
}

fn is_bare(values: &[String]) -> bool {
    !values.is_empty() && values.iter().all(|v| argument(v).is_some())
}

fn input(values: &[String]) -> Result<Pasted> {
    if is_bare(values) {
        let found = |v: &String| argument(v).map(|value| Found { value, line: 1, ..Found::default() });
        let groups = vec![paste::Group { kind: paste::Kind::Bare, line: 1, address: None, event: None }];
        return Ok(Pasted { values: values.iter().filter_map(found).collect(), groups, ..Pasted::default() });
    }
    if let Some(text) = files::text(values)? {
        return Ok(paste::scan(&text));
    }
    let stdin = values.is_empty() || values == ["-"];
    if !stdin {
        let text = values.join(" ");
        let mut pasted = paste::scan(text.as_bytes());
        if pasted.values.is_empty() {
            // `decode gfn 2 level 1 0x…`: the numbers among words are meant.
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            let hex = words.filter(|w| w.starts_with("0x")).filter_map(paste::number);
            let found = hex.map(|value| Found { value, line: 1, ..Found::default() });
            pasted.values.extend(found);
            pasted.groups.push(paste::Group { kind: paste::Kind::Bare, line: 1, address: None, event: None });
            for value in &mut pasted.values {
                value.group = pasted.groups.len() - 1;
            }
        }
        return Ok(pasted);
    }
    if values.is_empty() && io::stdin().is_terminal() {
        bail!(
            "no value given: name one (`mmuscope decode 0x600000123456b77`), or pipe text in (`dmesg | mmuscope decode`)"
        );
    }
    let mut text = Vec::new();
    io::stdin().lock().take(MOST_INPUT).read_to_end(&mut text).context("cannot read standard input")?;
    Ok(paste::scan(&text))
}

/// Everything known about the layout: options over capture or host over what the text says.
fn spec(a: &Args, pasted: &Pasted) -> Result<LayoutSpec> {
    let mut spec = a.layout.spec()?;
    if let Some(path) = &a.from {
        host::fill(&mut spec, host::of_capture(path)?);
    }
    if a.host {
        host::fill(&mut spec, host::of_this_machine());
    }
    if spec.kernel.is_none() && spec.era.is_none() && spec.file.is_none() {
        spec.kernel = pasted.kernel.as_deref().and_then(Kernel::parse).map(Known::inferred);
        spec.releases = pasted.releases().map(|r| (*r.start(), *r.end()));
    }
    if spec.host.vendor.is_none() && spec.mode.is_none() {
        spec.host.vendor = pasted.vendor.and_then(Vendor::parse).map(Known::inferred);
    }
    // The reserved mask the kernel printed tells the host's width: its bits below 52.
    if spec.host.maxphyaddr.is_none() {
        let printed = pasted.values.iter().filter_map(|v| v.rsvd_mask).find(|m| m >> 51 & 1 == 1);
        if let Some(mask) = printed {
            let width = 52 - (mask << 12).leading_ones() as u8;
            spec.host.maxphyaddr = Some(Known::inferred(width));
        }
    }
    Ok(spec)
}

fn evidence(question: &Question) -> Vec<Evidence> {
    let one = |v: &Found| Evidence {
        raw: v.value,
        level: v.level.or(question.level),
        role: match v.role {
            paste::Role::Leaf => Role::Leaf,
            paste::Role::Mmio => Role::Mmio { gfn: v.gfn, generation: v.generation },
            _ => Role::Unknown,
        },
        letters: v.letters.map(|l| Letters { r: l.r, w: l.w, x: l.x, u: l.u }),
    };
    question.pasted.values.iter().map(one).collect()
}

/// Values judged to find a layout; more of them only cost time.
const MOST_JUDGED: usize = 256;

fn answer(spec: &LayoutSpec, question: &Question, library: &Library) -> Result<Answer> {
    let dated =
        spec.kernel.is_some() || spec.era.is_some() || spec.file.is_some() || spec.era_of_masks().is_some();
    let has_mode = spec.mode.is_some() || spec.file.is_some() || spec.mode_of_masks().is_some();
    if dated && has_mode {
        return Ok(Answer::Known(Box::new(spec.resolve_in(library)?)));
    }
    let mut values = evidence(question);
    // Zeroes of a page table say nothing, and there may be hundreds.
    if values.iter().any(|v| v.raw != 0) {
        values.retain(|v| v.raw != 0 || question.pasted.values.len() < 8);
    }
    values.truncate(MOST_JUDGED);
    let memory = question.pasted.groups.iter().any(|g| g.kind == paste::Kind::Memory);
    if memory && question.level.is_none() {
        // All words of one table have one level.
        let mut best: Option<Judgement> = None;
        for level in 1..=4 {
            let at: Vec<_> =
                values.iter().map(|v| Evidence { level: v.level.or(Some(level)), ..*v }).collect();
            let judgement = infer::judge(spec, &at, library)?;
            let score = |j: &Judgement| j.best().map_or(i32::MIN, |c| c.score);
            if best.as_ref().is_none_or(|b| score(&judgement) > score(b)) {
                best = Some(judgement);
            }
        }
        return best.map(|j| Answer::Judged(Box::new(j))).context("no layout fits the options given");
    }
    Ok(Answer::Judged(Box::new(infer::judge(spec, &values, library)?)))
}

/// The level a value is read at, and whether that was told.
fn level_of(found: &Found, question: &Question, answer: &Answer, resolved: &Resolved) -> (u8, bool) {
    if let Some(level) = found.level.or(question.level) {
        return (level, true);
    }
    if found.role == paste::Role::Word
        && let Answer::Judged(judgement) = answer
        && let Some(best) = judgement.best()
        && let Some(first) = best.readings.first()
    {
        return (first.level, false);
    }
    (infer::likely_level(&resolved.layout, found.value), false)
}
