//! Reading what the user named.

use crate::layout_args::LayoutArgs;
use crate::progress::{Watch, stopped};
use anyhow::{Context, Result, bail};
use mmuscope_analysis::time::Moment;
use mmuscope_analysis::words;
use mmuscope_replay::{ReplayOptions, Timeline};
use mmuscope_trace::{Event, ReadOptions, Strings, Trace, TraceInfo};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a trace.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct InputArgs {
    /// A trace: perf.data, trace.dat, tracefs or perf or trace-cmd text, compressed or not; `-` is standard input. Several files are one trace
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// For a file without its event formats (a cut perf.data, raw ring pages): a copy of /sys/kernel/tracing/events of the same kernel
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

/// Files up to this size are read once, into memory; larger ones are read twice, in bounded memory.
const IN_MEMORY: u64 = 32 << 20;

impl InputArgs {
    fn name(&self) -> String {
        match self.files.as_slice() {
            [one] if is_stdin(one) => "standard input".into(),
            [one] => one.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            many => format!("{} files", many.len()),
        }
    }

    fn options(&self, progress: Arc<mmuscope_trace::Progress>) -> ReadOptions {
        let formats = self.formats.clone();
        ReadOptions { progress: Some(progress), formats, ..ReadOptions::default() }
    }

    /// Reads the whole trace into memory.
    pub(crate) fn load(&self) -> Result<Trace> {
        let progress = Arc::new(mmuscope_trace::Progress::default());
        let watch = Watch::new(format!("reading {}", self.name()), Arc::clone(&progress));
        let trace = Trace::load(&self.files, &self.options(progress))?;
        drop(watch);
        tell_damage(&trace.info);
        Ok(trace)
    }

    /// Reads the trace and replays it meanwhile.
    pub(crate) fn replay(&self, layout: &LayoutArgs) -> Result<(Trace, Timeline)> {
        let mut options = layout.replay_options()?;
        let progress = Arc::new(mmuscope_trace::Progress::default());
        options.progress = Some(Arc::clone(&progress));
        let watch = Watch::new(format!("reading {}", self.name()), Arc::clone(&progress));
        let (trace, timeline) = mmuscope_replay::load(&self.files, &self.options(progress), &options, None)?;
        drop(watch);
        // A replay that was cancelled ends early; half an answer is none.
        if stopped() {
            bail!("stopped");
        }
        tell_damage(&trace.info);
        Ok((trace, timeline))
    }

    /// What is known about the trace, and a way to go through its events without holding them all where that would be too much.
    pub(crate) fn events(&self) -> Result<Events> {
        let mut input = self.clone();
        let mut spool = None;
        if let [one] = self.files.as_slice()
            && (is_stdin(one) || one.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()))
        {
            // What cannot be read twice is kept where it can.
            match Spool::new(one)? {
                Spool::Small(bytes) => {
                    let trace = Trace::from_bytes_with(bytes, self.name(), &self.options(Arc::default()))?;
                    tell_damage(&trace.info);
                    return Ok(Events::Held(Box::new(trace)));
                }
                Spool::Large(file) => {
                    input.files = vec![PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))];
                    spool = Some(file);
                }
            }
        }
        let small = |f: &PathBuf| {
            let most = if is_compressed(f) { IN_MEMORY / 8 } else { IN_MEMORY };
            f.metadata().is_ok_and(|m| m.is_file() && m.len() <= most)
        };
        if spool.is_none()
            && (self.files.iter().all(small)
                || self.files.iter().any(|f| !f.metadata().is_ok_and(|m| m.is_file())))
        {
            return Ok(Events::Held(Box::new(self.load()?)));
        }
        let mut marks = Vec::new();
        let mut info = input.stream("looking through", &mut |e, strings| {
            if let mmuscope_trace::Body::Marker { text } = e.body
                && marks.len() < MARKS
            {
                marks.push((strings.text(text).to_string(), e.ts));
            }
            ControlFlow::Continue(())
        })?;
        if spool.is_some() {
            for f in &mut info.files {
                f.path = self.name().into();
                f.size = 0;
            }
        }
        tell_damage(&info);
        Ok(Events::Streamed { input, info: Box::new(info), marks, _spool: spool })
    }

    fn stream(
        &self,
        doing: &str,
        sink: &mut dyn FnMut(&Event, &Strings) -> ControlFlow<()>,
    ) -> Result<TraceInfo> {
        let progress = Arc::new(mmuscope_trace::Progress::default());
        let _watch = Watch::new(format!("{doing} {}", self.name()), Arc::clone(&progress));
        Ok(mmuscope_trace::stream(&self.files, &self.options(progress), &mut |e: &Event, s: &Strings| {
            sink(e, s)
        })?)
    }
}

/// A pipe that was read to its end.
enum Spool {
    Small(Vec<u8>),
    /// A temporary file without a name: it goes when this program does.
    Large(File),
}

impl Spool {
    fn new(path: &Path) -> Result<Self> {
        let name = || if is_stdin(path) { "standard input".into() } else { path.display().to_string() };
        let mut from: Box<dyn Read> = if is_stdin(path) {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("{}: cannot open it", name()))?)
        };
        let mut bytes = Vec::new();
        from.by_ref()
            .take(IN_MEMORY)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{}: cannot read it", name()))?;
        if (bytes.len() as u64) < IN_MEMORY {
            return Ok(Self::Small(bytes));
        }
        let full = || {
            format!(
                "{}: cannot be kept in {}: name a folder with room in TMPDIR",
                name(),
                tempfile::env::temp_dir().display()
            )
        };
        let mut file = tempfile::tempfile().with_context(full)?;
        file.write_all(&bytes).with_context(full)?;
        drop(bytes);
        std::io::copy(&mut from, &mut file).with_context(full)?;
        Ok(Self::Large(file))
    }
}

/// Whether a file begins like a gzip, zstd or xz file: it holds several times what it takes.
fn is_compressed(path: &Path) -> bool {
    let mut head = [0; 4];
    let read = File::open(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_ok()
        && (head == [0x28, 0xb5, 0x2f, 0xfd]
            || head.starts_with(&[0x1f, 0x8b])
            || head.starts_with(b"\xfd7zX"))
}

/// Marks kept of a streamed trace, to name moments by.
const MARKS: usize = 10_000;

/// Replays a trace.
pub(crate) fn replay(trace: &Trace, mut options: ReplayOptions) -> Result<Timeline> {
    let progress = Arc::new(mmuscope_trace::Progress::default());
    options.progress = Some(Arc::clone(&progress));
    let _watch = Watch::new("replaying", progress);
    let timeline = mmuscope_replay::replay(trace, &options);
    // A replay that was cancelled ends early; half an answer is none.
    if stopped() {
        bail!("stopped");
    }
    Ok(timeline)
}

/// Whether the path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Says once, on standard error, what of the input could not be read and that results are partial.
fn tell_damage(info: &TraceInfo) {
    const SHOWN: usize = 5;
    let lines = info.damage_lines();
    for line in lines.iter().take(SHOWN) {
        eprintln!("mmuscope: {}", words::printable(line));
    }
    if lines.len() > SHOWN {
        eprintln!("mmuscope: and {} more kinds of damage", lines.len() - SHOWN);
    }
    if !info.damage.is_empty() {
        eprintln!("mmuscope: what could be read is shown; the result is partial");
    }
}

/// The events of a trace, held or read anew.
pub(crate) enum Events {
    /// In memory.
    Held(Box<Trace>),
    /// Larger than is wise to hold.
    Streamed {
        /// To read it again.
        input: InputArgs,
        /// What the first reading found out.
        info: Box<TraceInfo>,
        /// Markers and when they were written.
        marks: Vec<(String, u64)>,
        /// The file that `input` names, where it has no name of its own.
        _spool: Option<File>,
    },
}

impl Events {
    pub(crate) fn info(&self) -> &TraceInfo {
        match self {
            Self::Held(t) => &t.info,
            Self::Streamed { info, .. } => info,
        }
    }

    /// Calls `sink` with every event in order, until it breaks.
    pub(crate) fn each(&self, mut sink: impl FnMut(&Event, &Strings) -> ControlFlow<()>) -> Result<()> {
        match self {
            Self::Held(t) => {
                for e in &t.events {
                    if sink(&e, &t.strings).is_break() {
                        break;
                    }
                }
            }
            Self::Streamed { input, .. } => {
                input.stream("reading", &mut sink)?;
            }
        }
        Ok(())
    }

    /// The marks of the trace, in time order.
    pub(crate) fn marks(&self) -> Vec<(String, u64)> {
        match self {
            Self::Held(t) => marks(t),
            Self::Streamed { marks, .. } => marks.clone(),
        }
    }

    pub(crate) fn clock(&self, absolute: bool) -> Clock {
        let info = self.info();
        Clock { first: info.first_ts, last: info.last_ts, absolute, marks: self.marks() }
    }
}

fn marks(trace: &Trace) -> Vec<(String, u64)> {
    let text = |e: Event| match e.body {
        mmuscope_trace::Body::Marker { text } => Some((trace.strings.get(text).to_string(), e.ts)),
        _ => None,
    };
    trace.events.iter().filter_map(text).collect()
}

/// Turns moments as typed into the trace's clock.
pub(crate) struct Clock {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) absolute: bool,
    marks: Vec<(String, u64)>,
}

/// Between two moments.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TimeArgs {
    /// From this moment: 1.5s, 20ms, nanoseconds, or the name of a phase
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Up to this moment, included; NAME:end is the end of a phase
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
}

impl TimeArgs {
    /// The two moments on the trace's clock, as far as they were given.
    pub(crate) fn on(&self, clock: &Clock) -> Result<(Option<u64>, Option<u64>)> {
        let at = |m: &Option<Moment>| m.as_ref().map(|m| clock.at(m)).transpose();
        Ok((at(&self.from)?, at(&self.to)?))
    }
}

impl Clock {
    /// Of a trace in memory.
    pub(crate) fn of(trace: &Trace, absolute: bool) -> Self {
        Self { first: trace.info.first_ts, last: trace.info.last_ts, absolute, marks: marks(trace) }
    }

    /// The moment on the trace's clock.
    pub(crate) fn at(&self, m: &Moment) -> Result<u64> {
        Ok(match m {
            Moment::Start => self.first,
            Moment::End => self.last,
            Moment::At(ns) if self.absolute => *ns,
            Moment::At(ns) => self.first.saturating_add(*ns),
            Moment::Phase { name, end } => {
                let Some(n) = self.marks.iter().position(|(text, _)| text == name) else {
                    let known: Vec<&str> = self.marks.iter().map(|(t, _)| t.as_str()).collect();
                    if known.is_empty() {
                        bail!(
                            "there is no phase `{name}`: the trace has no markers; a time is 1.5s, 20ms, a number of nanoseconds, start or end"
                        );
                    }
                    bail!("there is no phase `{name}`; the trace has {}", known.join(", "));
                };
                match self.marks.get(n + 1) {
                    Some((_, next)) if *end => next.saturating_sub(1),
                    None if *end => self.last,
                    _ => self.marks[n].1,
                }
            }
        })
    }
}

/// A guest frame or a range of them: `0x7c00`, `0x100-0x1ff`, `0x100+16`.
pub(crate) fn parse_gfns(s: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("`{s}` is no frame: write 0x7c00, a range 0x100-0x1ff, or 0x100+16");
    let number = |s: &str| {
        let s = s.trim().replace('_', "");
        match s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => s.parse().ok(),
        }
    };
    if let Some((a, n)) = s.split_once('+') {
        let (a, n) = (number(a).ok_or_else(wrong)?, number(n).ok_or_else(wrong)?);
        return a.checked_add(n).filter(|end| *end > a).map(|end| (a, end)).ok_or_else(wrong);
    }
    let (first, last) = s.split_once('-').unwrap_or((s, s));
    let (a, b) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
    if b < a {
        return Err(wrong());
    }
    Ok((a, b.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::parse_gfns;

    #[test]
    fn frames_are_hex_or_decimal_and_ranges_include_their_end() {
        assert_eq!(parse_gfns("0x7c00"), Ok((0x7c00, 0x7c01)));
        assert_eq!(parse_gfns("16"), Ok((16, 17)));
        assert_eq!(parse_gfns("0x100-0x1ff"), Ok((0x100, 0x200)));
        assert_eq!(parse_gfns("0x100+16"), Ok((0x100, 0x110)));
        for wrong in ["", "7c00", "0x", "5-4", "1+0", "0xffffffffffffffff+1"] {
            assert!(parse_gfns(wrong).is_err(), "{wrong}");
        }
    }
}
