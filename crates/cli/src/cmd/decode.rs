//! `mmuscope decode`: what SPTE values mean. It finds values in the input, the layout to read them under, and prints the explanation of
//! `mmuscope_spte`.

mod files;
mod host;
mod json;
mod judged;
mod printer;
mod text;
mod walk;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use mmuscope_analysis::pasted::{self, by_group};
use mmuscope_analysis::words::printable;
use mmuscope_replay::Gathered;
use mmuscope_spte::bugs::{Bug, Bugs, traits_of};
use mmuscope_spte::infer::{self, Evidence, Judgement};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{Decoded, LayoutSpec, Resolved};
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

/// Most findings that are printed of a text without values.
const FINDINGS: usize = 3;

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
    /// What options, a capture or this machine say of the layout, in words.
    given: Vec<String>,
    /// A layout that fits the values much better than the one given.
    better: Option<String>,
    /// Whether the layout fits: no other one does much better, and KVM would write most of the values, or something explains them.
    fits: bool,
}

impl Question {
    /// Whether a value of a dump stands in the slot above its walk that nothing wrote.
    fn is_slot(&self, found: &Found, level: u8, resolved: &Resolved) -> bool {
        let group = self.pasted.groups.get(found.group);
        let unwritten_slots = group.is_some_and(|g| pasted::has_unwritten_slot(&self.pasted, g));
        infer::Walk { unwritten_slots, ..infer::Walk::default() }.is_slot(level, &resolved.layout)
    }

    /// The known bug that alone explains what is wrong with an entry.
    fn cause(&self, resolved: &Resolved, d: &Decoded) -> Option<&Bug> {
        self.bugs.iter().find(|b| b.explains(&resolved.layout, d))
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
    let (pasted, events, text) = input(&a.values)?;
    let library = Library::new();
    let spec = spec(a)?;
    let mut question = Question {
        bare: is_bare(&a.values),
        pasted,
        level: a.level,
        events,
        bugs: Vec::new(),
        given: given(&spec),
        better: None,
        fits: true,
    };
    let evidence = pasted::gather(&question.pasted, question.level, question.events.as_ref());
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
        let shown = if a.format == Format::Text { pasted::shown(&text) } else { Vec::new() };
        if a.format == Format::Text && !(question.bugs.is_empty() && shown.is_empty()) {
            writeln!(out, "This text has no SPTE value; its events show:")?;
            for f in shown.iter().take(FINDINGS) {
                writeln!(out, "  {}: {}", f.id, printable(&f.title))?;
            }
            printer::Printer::new(&mut out).bugs(&question)?;
            out.flush()?;
            return Ok(Outcome::Fine);
        }
        if question.events.is_some() {
            bail!(
                "no SPTE value found: the text has trace events that carry none; `mmuscope summary` and `mmuscope events` read them"
            );
        }
        if let Some(events) = question.pasted.headless() {
            bail!(
                "no SPTE value found: the text has {events} without task, CPU and time, and none is in them"
            );
        }
        bail!(
            "no SPTE value found: give hex numbers, or text with `spte = 0x…`, trace lines or debugger output"
        );
    }
    let answer = answer(&spec, &mut question, &evidence, &library)?;
    match a.format {
        Format::Text => printer::Printer::new(&mut out).answer(&question, &answer)?,
        Format::Json => json::array(&mut out, &question, &answer)?,
        Format::Jsonl => json::lines(&mut out, &question, &answer)?,
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

/// Explains the values in a file as text, for `mmuscope summary`.
pub(crate) fn file(file: &Path, layout: &LayoutArgs) -> Result<Outcome> {
    let name = file.to_str().with_context(|| format!("{}: this name is not UTF-8", file.display()))?;
    let (values, layout) = (vec![name.to_owned()], layout.clone());
    run(&Args { values, level: None, from: None, host: false, format: Format::Text, layout })
}

fn is_bare(values: &[String]) -> bool {
    pasted::bare(values.iter().map(String::as_str)).is_some()
}

/// The values of the input, the evidence of its events where it has some, and its text.
fn input(values: &[String]) -> Result<(Pasted, Option<Gathered>, Vec<u8>)> {
    if let Some(bare) = pasted::bare(values.iter().map(String::as_str)) {
        return Ok((bare, None, Vec::new()));
    }
    if let Some(files) = files::read(values)? {
        let events = files.events.or_else(|| pasted::events(&files.text));
        return Ok((paste::scan(&files.text), events, files.text));
    }
    let stdin = values.is_empty() || values == ["-"];
    if !stdin {
        let text = values.join(" ");
        let (pasted, events) = pasted::read(&text);
        return Ok((pasted, events, text.into_bytes()));
    }
    if values.is_empty() && io::stdin().is_terminal() {
        bail!(
            "no value given: name one (`mmuscope decode 0x600000123456b77`), or pipe text in (`dmesg | mmuscope decode`)"
        );
    }
    let mut text = Vec::new();
    io::stdin().lock().take(MOST_INPUT).read_to_end(&mut text).context("cannot read standard input")?;
    Ok((paste::scan(&text), pasted::events(&text), text))
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

/// What is known of the layout before the values are looked at, in words.
fn given(spec: &LayoutSpec) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(spec.era.as_ref().map(|e| format!("layout {}", e.value)));
    words.extend(spec.kernel.filter(|_| spec.era.is_none()).map(|k| format!("kernel {}", k.value)));
    words.extend(spec.mode.map(|m| m.value.words().to_owned()));
    words.extend(spec.host.vendor.map(|v| format!("vendor {}", v.value.name())));
    words.extend((!spec.masks.is_empty()).then(|| "masks of the host".to_owned()));
    words
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
    let judgement = pasted::judge(spec, &question.pasted, question.level, evidence, library)?;
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
    question.fits = question.better.is_none() && has_fit(question, &judgement);
    if dated && has_mode {
        return Ok(Answer::Known(Box::new(spec.resolve_in(library)?)));
    }
    Ok(Answer::Judged(Box::new(judgement)))
}

/// Whether KVM would write most of the values under the best layout, or something explains why not.
fn has_fit(question: &Question, judgement: &Judgement) -> bool {
    // What the kernel itself complains about need not be a word that it writes.
    let complains = question.pasted.groups.iter().any(|g| {
        use paste::Kind::{Bare, Event, Memory, Walk};
        !matches!(g.kind, Bare | Event | Memory | Walk)
    });
    let misfits = judgement.best().map_or(0, |best| best.misfits);
    let values = question.pasted.values.iter().filter(|v| v.value != 0).count();
    complains || !question.bugs.is_empty() || misfits * 2 <= values
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

/// The level that a value is read at, and whether the input or an option gave it.
fn level_of(found: &Found, question: &Question, answer: &Answer, resolved: &Resolved) -> (u8, bool) {
    let judgement = match answer {
        Answer::Judged(judgement) => Some(&**judgement),
        Answer::Known(_) => None,
    };
    pasted::level_of(found, question.level, judgement, &resolved.layout)
}
