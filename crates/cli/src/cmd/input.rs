//! Reading what the user named.

use crate::layout_args::LayoutArgs;
use crate::progress::{Watch, stopped};
use anyhow::{Result, bail};
use mmuscope_analysis::time::Moment;
use mmuscope_analysis::words;
use mmuscope_replay::{ReplayOptions, Timeline};
use mmuscope_trace::{Event, ReadOptions, Strings, Trace, TraceInfo};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a trace.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct InputArgs {
    /// A trace: perf.data, trace.dat, tracefs or perf or trace-cmd text, compressed or not; `-` is standard input. Several files are one trace
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
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

    /// Reads the whole trace into memory.
    pub(crate) fn load(&self) -> Result<Trace> {
        let progress = Arc::new(mmuscope_trace::Progress::default());
        let watch = Watch::new(format!("reading {}", self.name()), Arc::clone(&progress));
        let trace =
            Trace::load(&self.files, &ReadOptions { progress: Some(progress), ..ReadOptions::default() })?;
        drop(watch);
        tell_damage(&trace.info);
        Ok(trace)
    }

    /// Reads and replays the trace.
    pub(crate) fn replay(&self, layout: &LayoutArgs) -> Result<(Trace, Timeline)> {
        let options = layout.replay_options()?;
        let trace = self.load()?;
        let timeline = replay(&trace, options)?;
        Ok((trace, timeline))
    }

    /// What is known about the trace, and a way to go through its events without holding them all where that would be too much.
    pub(crate) fn events(&self) -> Result<Events> {
        let small =
            self.files.iter().all(|f| f.metadata().is_ok_and(|m| m.is_file() && m.len() <= IN_MEMORY));
        // What cannot be read twice is kept.
        if small || self.files.iter().any(|f| !f.metadata().is_ok_and(|m| m.is_file())) {
            return Ok(Events::Held(Box::new(self.load()?)));
        }
        let mut marks = Vec::new();
        let info = self.stream("looking through", &mut |e, strings| {
            if let mmuscope_trace::Body::Marker { text } = e.body
                && marks.len() < MARKS
            {
                marks.push((strings.text(text).to_string(), e.ts));
            }
            ControlFlow::Continue(())
        })?;
        tell_damage(&info);
        Ok(Events::Streamed { input: self.clone(), info: Box::new(info), marks })
    }

    fn stream(
        &self,
        doing: &str,
        sink: &mut dyn FnMut(&Event, &Strings) -> ControlFlow<()>,
    ) -> Result<TraceInfo> {
        let progress = Arc::new(mmuscope_trace::Progress::default());
        let _watch = Watch::new(format!("{doing} {}", self.name()), Arc::clone(&progress));
        let options = ReadOptions { progress: Some(progress), ..ReadOptions::default() };
        Ok(mmuscope_trace::stream(&self.files, &options, &mut |e: &Event, s: &Strings| sink(e, s))?)
    }
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
    for d in info.damage.iter().take(SHOWN) {
        eprintln!("mmuscope: {}", words::printable(&d.to_string()));
    }
    if info.damage.len() > SHOWN {
        eprintln!("mmuscope: and {} more places that could not be read", info.damage.len() - SHOWN);
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
