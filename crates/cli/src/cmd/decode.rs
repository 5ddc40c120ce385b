//! `mmuscope decode`: what SPTE values mean. It finds values in the input, the layout to read them under, and prints the explanation of
//! `mmuscope_spte`.

mod evidence;
mod files;
mod host;
mod json;
mod judged;
mod text;
mod walk;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mmuscope_replay::Gathered;
use mmuscope_spte::bugs::{Bug, Bugs, traits_of};
use mmuscope_spte::infer::{self, Evidence, Judgement};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{LayoutSpec, Resolved};
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
    /// Values in hex, optionally with their levels (`0x8aa111e025 level 1`), text that contains values, or files of text or traces; without an
    /// argument, or with `-`, standard input is read
    #[arg(value_name = "VALUE|TEXT|FILE")]
    values: Vec<String>,
    /// Level of the entries: 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB, 4, 5 (a level in the text takes precedence)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    level: Option<u8>,
    /// Take kernel, host and masks from a trace
    #[arg(long, value_name = "CAPTURE", conflicts_with = "host")]
    from: Option<PathBuf>,
    /// Take kernel, host and masks from this machine, as far as they can be read
    #[arg(long)]
    host: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Output formats of `decode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text for people
    Text,
    /// One JSON array
    Json,
    /// One JSON object per line
    Jsonl,
}

/// Most bytes of text that are read.
const MOST_INPUT: u64 = 64 << 20;

/// The values to explain and what the input says about them.
struct Question {
    pasted: Pasted,
    level: Option<u8>,
    /// Whether the values are arguments, which are explained one by one however many they are.
    bare: bool,
    /// Evidence of the events in the text, where it has some.
    events: Option<Gathered>,
    /// Known bugs that the values and events look like.
    bugs: Vec<Bug>,
    /// A layout that fits the values much better than the one given.
    better: Option<String>,
}

impl Question {
    /// Whether a value of a dump stands in a slot above the root of its walk.
    fn is_slot(&self, found: &Found, level: u8, resolved: &Resolved) -> bool {
        let kind = self.pasted.groups.get(found.group).map(|g| g.kind);
        kind == Some(paste::Kind::ReservedDump) && level > infer::walk_start(&resolved.layout)
    }
}

/// The layout under which the values are read.
enum Answer {
    /// The layout is known from options, a capture or the host.
    Known(Box<Resolved>),
    /// The layout was inferred from the values.
    Judged(Box<Judgement>),
}

impl Answer {
    fn resolved(&self) -> Result<&Resolved> {
        match self {
            Answer::Known(resolved) => Ok(resolved),
            Answer::Judged(judgement) => {
                let best = judgement.best().context("no layout was tried")?;
                Ok(&best.resolved)
            }
        }
    }
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let (pasted, events) = input(&a.values)?;
    let mut question =
        Question { bare: is_bare(&a.values), pasted, level: a.level, events, bugs: Vec::new(), better: None };
    let library = Library::new();
    let spec = spec(a)?;
    let evidence = evidence::gather(&question.pasted, question.level, question.events.as_ref());
    let mut out = io::BufWriter::new(io::stdout().lock());
    if question.pasted.values.is_empty() {
        for note in &question.pasted.left_alone {
            eprintln!("mmuscope: {note}");
        }
        // Events without values may still look like a known bug.
        if question.events.is_some() {
            let judgement = infer::judge(&spec, &evidence, &library)?;
            question.bugs = bugs(&question, &evidence, &judgement)?;
        }
        if a.format == Format::Text && !question.bugs.is_empty() {
            writeln!(out, "This text has no SPTE value; its events show:")?;
            text::Printer::new(&mut out).bugs(&question)?;
            out.flush()?;
            return Ok(Outcome::Fine);
        }
        bail!(
            "no SPTE value found: give hex numbers, or text with `spte = 0x…`, trace lines or debugger output"
        );
    }
    let answer = answer(&spec, &mut question, &evidence, &library)?;
    match a.format {
        Format::Text => text::Printer::new(&mut out).answer(&question, &answer)?,
        Format::Json => json::array(&mut out, &question, &answer)?,
        Format::Jsonl => json::lines(&mut out, &question, &answer)?,
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

/// Reads an argument that is a value: hex digits, with or without 0x, of any length.
fn argument(word: &str) -> Option<u64> {
    let digits = word.strip_prefix("0x").or(word.strip_prefix("0X")).unwrap_or(word);
    let digits = digits.replace('_', "");
    let fits = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(&digits, 16).ok()).flatten()
}

fn is_bare(values: &[String]) -> bool {
    !values.is_empty() && values.iter().all(|v| argument(v).is_some())
}

/// The values of the input, and the evidence of its events where it has some.
fn input(values: &[String]) -> Result<(Pasted, Option<Gathered>)> {
    if is_bare(values) {
        let found = |v: &String| argument(v).map(|value| Found { value, line: 1, ..Found::default() });
        let groups = vec![paste::Group { kind: paste::Kind::Bare, line: 1, address: None, event: None }];
        let values = values.iter().filter_map(found).collect();
        return Ok((Pasted { values, groups, ..Pasted::default() }, None));
    }
    if let Some(files) = files::read(values)? {
        let events = files.events.or_else(|| evidence::events(&files.text));
        return Ok((paste::scan(&files.text), events));
    }
    let stdin = values.is_empty() || values == ["-"];
    if !stdin {
        let text = values.join(" ");
        let mut pasted = paste::scan(text.as_bytes());
        if pasted.values.is_empty() {
            // In `decode gfn 2 level 1 0x…` the numbers with 0x are the values.
            let words = text.split(|c: char| c.is_whitespace() || c == ',');
            let hex = words.filter(|w| w.starts_with("0x")).filter_map(paste::number);
            let found = hex.map(|value| Found { value, line: 1, ..Found::default() });
            pasted.values.extend(found);
            pasted.groups.push(paste::Group { kind: paste::Kind::Bare, line: 1, address: None, event: None });
            for value in &mut pasted.values {
                value.group = pasted.groups.len() - 1;
            }
        }
        return Ok((pasted, evidence::events(text.as_bytes())));
    }
    if values.is_empty() && io::stdin().is_terminal() {
        bail!(
            "no value given: name one (`mmuscope decode 0x600000123456b77`), or pipe text in (`dmesg | mmuscope decode`)"
        );
    }
    let mut text = Vec::new();
    io::stdin().lock().take(MOST_INPUT).read_to_end(&mut text).context("cannot read standard input")?;
    Ok((paste::scan(&text), evidence::events(&text)))
}

/// The known parts of the layout: those of the options, else those of the capture or host. What the text says is evidence, not knowledge.
fn spec(a: &Args) -> Result<LayoutSpec> {
    let mut spec = a.layout.spec()?;
    if let Some(path) = &a.from {
        host::fill(&mut spec, host::of_capture(path)?);
    }
    if a.host {
        host::fill(&mut spec, host::of_this_machine());
    }
    Ok(spec)
}

/// Points by which another layout must fit better before the one given is called wrong: more than one misfit.
const DOUBT: i32 = 90;

fn answer(
    spec: &LayoutSpec,
    question: &mut Question,
    evidence: &Evidence,
    library: &Library,
) -> Result<Answer> {
    let dated =
        spec.kernel.is_some() || spec.era.is_some() || spec.file.is_some() || spec.era_of_masks().is_some();
    let has_mode = spec.mode.is_some() || spec.file.is_some() || spec.mode_of_masks().is_some();
    let judgement = judgement(spec, question, evidence, library)?;
    question.bugs = bugs(question, evidence, &judgement)?;
    let given =
        spec.kernel.is_some() || spec.era.is_some() || spec.mode.is_some() || spec.host.vendor.is_some();
    if given && spec.file.is_none() && evidence.values.iter().any(|v| v.raw != 0) {
        let free = LayoutSpec {
            kernel: None,
            era: None,
            mode: None,
            host: mmuscope_spte::HostSpec { vendor: None, ..spec.host },
            ..spec.clone()
        };
        let free = infer::judge(&free, evidence, library)?;
        if let (Some(ours), Some(best), Some(reading)) =
            (judgement.best(), free.best(), free.plausible.first())
            && best.score - best.prior > ours.score - ours.prior + DOUBT
        {
            question.better = Some(reading.whose.clone());
        }
    }
    if dated && has_mode {
        return Ok(Answer::Known(Box::new(spec.resolve_in(library)?)));
    }
    Ok(Answer::Judged(Box::new(judgement)))
}

fn judgement(
    spec: &LayoutSpec,
    question: &Question,
    evidence: &Evidence,
    library: &Library,
) -> Result<Judgement> {
    let memory = question.pasted.groups.iter().any(|g| g.kind == paste::Kind::Memory);
    if !memory || question.level.is_some() {
        return Ok(infer::judge(spec, evidence, library)?);
    }
    // All entries of one table have the same level, so each level is tried for all of them.
    let mut best: Option<Judgement> = None;
    for level in 1..=4 {
        let mut at = evidence.clone();
        for value in &mut at.values {
            value.level = value.level.or(Some(level));
        }
        let judgement = infer::judge(spec, &at, library)?;
        let score = |j: &Judgement| j.best().map_or(i32::MIN, |c| c.score);
        if best.as_ref().is_none_or(|b| score(&judgement) > score(b)) {
            best = Some(judgement);
        }
    }
    best.context("no layout was tried")
}

/// The known bugs that the values and events look like.
fn bugs(question: &Question, evidence: &Evidence, judgement: &Judgement) -> Result<Vec<Bug>> {
    let known = Bugs::known().map_err(mmuscope_spte::Error::from)?;
    let mut traits = traits_of(evidence, judgement);
    traits.extend(question.events.iter().flat_map(|e| e.traits.iter().copied()));
    if question.pasted.groups.iter().any(|g| g.kind == paste::Kind::VeDump) {
        traits.push(mmuscope_spte::bugs::Trait::VeDump);
    }
    Ok(known.like(&traits, judgement.releases()).into_iter().cloned().collect())
}

/// The values of each group.
fn by_group(pasted: &Pasted) -> Vec<Vec<&Found>> {
    let mut groups = vec![Vec::new(); pasted.groups.len()];
    for value in &pasted.values {
        if let Some(group) = groups.get_mut(value.group) {
            group.push(value);
        }
    }
    groups
}

/// The level that a value is read at, and whether the input or an option gave it.
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
