//! [`InputArgs`]: the trace files of a command, and the ways to read them: whole, replayed, or streamed in bounded memory.

use crate::layout_args::LayoutArgs;
use crate::progress::{Watch, stopped};
use crate::room;
use anyhow::{Context, Result, bail};
use mmuscope_analysis::time::{Clock, Moment};
use mmuscope_analysis::words;
use mmuscope_replay::{Attribution, ReplayOptions, Timeline, VmSearch};
use mmuscope_trace::{Body, Event, ReadOptions, Strings, Trace, TraceInfo, event_name};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The arguments that name a trace.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct InputArgs {
    /// A trace: perf.data, trace.dat, or text of tracefs, perf or trace-cmd, compressed or not; `-` is standard input. Several files are read as
    /// one trace
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Event formats for a file that lacks them (a truncated perf.data, raw ring pages): a copy of /sys/kernel/tracing/events of the same kernel
    #[arg(long, value_name = "DIR")]
    pub(crate) formats: Option<PathBuf>,
}

/// A pipe of up to this many bytes is read into memory; a longer one is copied to a temporary file.
const IN_MEMORY: u64 = 32 << 20;

/// A trace that needs at most this many bytes of memory is read once, into memory. Commands that stream read a larger one twice, in bounded
/// memory.
pub(crate) const HELD: u64 = 256 << 20;

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
        report_damage(&trace.info);
        Ok(trace)
    }

    /// Reads and replays the trace at the same time, and fails where it has no KVM event.
    pub(crate) fn replay(&self, layout: &LayoutArgs) -> Result<(Trace, Timeline)> {
        let (trace, timeline) = self.read(layout.replay_options()?)?;
        report_damage(&trace.info);
        if trace.info.snapshots.is_empty() && !trace.events.iter().any(|e| is_of_kvm(&e, &trace.strings)) {
            bail!("{}: {}", self.name(), no_kvm_event(&trace.info, trace.info.events));
        }
        Ok((trace, timeline))
    }

    /// Reads and replays the trace at the same time, without reporting damage.
    fn read(&self, mut options: ReplayOptions) -> Result<(Trace, Timeline)> {
        let progress = Arc::new(mmuscope_trace::Progress::default());
        options.progress = Some(Arc::clone(&progress));
        let watch = Watch::new(format!("reading {}", self.name()), Arc::clone(&progress));
        let (trace, timeline) = mmuscope_replay::load(&self.files, &self.options(progress), &options, None)?;
        drop(watch);
        // A replay that was cancelled is incomplete and must not be shown.
        if stopped() {
            bail!("stopped");
        }
        Ok((trace, timeline))
    }

    /// The trace as a sequence of events, which are not all held in memory where that would need more than `room` bytes.
    pub(crate) fn events(&self, room: u64) -> Result<Events> {
        let mut input = self.clone();
        let mut spool = None;
        if let [one] = self.files.as_slice()
            && (is_stdin(one) || one.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()))
        {
            // A pipe cannot be read twice, so it is kept in memory or in a temporary file.
            match Spool::new(one)? {
                Spool::Small(bytes) => {
                    let trace = Trace::from_bytes_with(bytes, self.name(), &self.options(Arc::default()))?;
                    report_damage(&trace.info);
                    return Ok(Events::Held(Box::new(trace)));
                }
                Spool::Large(file) => {
                    input.files = vec![PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))];
                    spool = Some(file);
                }
            }
        }
        if spool.is_none()
            && (room::of_files(&self.files) <= room.max(HELD)
                || self.files.iter().any(|f| !f.metadata().is_ok_and(|m| m.is_file())))
        {
            return Ok(Events::Held(Box::new(self.load()?)));
        }
        let mut marks = Vec::new();
        let mut names = Names::default();
        let mut vms = VmSearch::default();
        let mut info = input.stream("looking through", &mut |e, strings| {
            names.add(e, strings);
            vms.event(e, strings);
            if let Body::Marker { text } = e.body
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
        report_damage(&info);
        let whose = vms.finish(&info);
        Ok(Events::Streamed(Box::new(Streamed { input, info, marks, names, whose, _spool: spool })))
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

/// The contents of a pipe that was read to its end.
enum Spool {
    Small(Vec<u8>),
    /// The contents are in a temporary file without a name, which vanishes when this program ends.
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

/// Most markers that are kept of a streamed trace, as names of moments.
const MARKS: usize = 10_000;

/// Replays a trace that is in memory.
pub(crate) fn replay(trace: &Trace, mut options: ReplayOptions) -> Result<Timeline> {
    let progress = Arc::new(mmuscope_trace::Progress::default());
    options.progress = Some(Arc::clone(&progress));
    let _watch = Watch::new("replaying", progress);
    let timeline = mmuscope_replay::replay(trace, &options);
    // A replay that was cancelled is incomplete and must not be shown.
    if stopped() {
        bail!("stopped");
    }
    Ok(timeline)
}

/// Whether the path means standard input.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reports on standard error which parts of the input could not be read, and that results are partial.
fn report_damage(info: &TraceInfo) {
    const SHOWN: usize = 5;
    let lines = info.damage_lines();
    for line in lines.iter().take(SHOWN) {
        eprintln!("mmuscope: {}", words::printable(line));
    }
    if lines.len() > SHOWN {
        eprintln!("mmuscope: and {} more kinds of damage", lines.len() - SHOWN);
    }
    if !info.damage.is_empty() {
        eprintln!("mmuscope: the rest of the input was read; the result is partial");
    }
}

/// Whether an event is one of KVM's.
fn is_of_kvm(e: &Event, strings: &Strings) -> bool {
    match e.body {
        Body::Marker { .. }
        | Body::Lost { .. }
        | Body::Damage { .. }
        | Body::Snapshot { .. }
        | Body::Task { .. } => false,
        Body::Other { .. } => {
            let name = event_name(&e.body, strings);
            name.rsplit(':').next().is_some_and(|n| n.starts_with("kvm"))
        }
        _ => true,
    }
}

/// The message about a trace that has no KVM event.
pub(crate) fn no_kvm_event(info: &TraceInfo, events: u64) -> String {
    if events == 0 && !info.damage.is_empty() {
        return "no event could be read: the recording was not finished, or only a part of the file is here"
            .to_owned();
    }
    let none = if events == 0 { "no event at all" } else { "no event of KVM" };
    format!(
        "the trace has {none}. Record kvmmmu and kvm events while the guest runs: `mmuscope record`, `trace-cmd record -e kvmmmu -e kvm` or `perf record -a -e 'kvmmmu:*' -e 'kvm:*'`"
    )
}

/// The event names of a trace and the CPUs that recorded events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) events: BTreeSet<String>,
    pub(crate) cpus: BTreeSet<u16>,
    last: Option<u16>,
}

impl Names {
    fn add(&mut self, e: &Event, strings: &Strings) {
        let name = event_name(&e.body, strings);
        if !self.events.contains(name) {
            self.events.insert(name.to_owned());
        }
        if self.last != Some(e.cpu) {
            self.last = Some(e.cpu);
            self.cpus.insert(e.cpu);
        }
    }
}

/// The events of a trace, held in memory or read again each time.
pub(crate) enum Events {
    /// The trace is in memory.
    Held(Box<Trace>),
    /// The trace needs more memory than is wise to use.
    Streamed(Box<Streamed>),
}

/// A trace that was read once for its facts and is read again for its events.
pub(crate) struct Streamed {
    /// The files to read again.
    input: InputArgs,
    /// The facts that the first reading found.
    info: TraceInfo,
    /// Texts of the markers and the times they were written.
    marks: Vec<(String, u64)>,
    names: Names,
    whose: Attribution,
    /// Keeps the temporary file open that `input` names by its descriptor.
    _spool: Option<File>,
}

impl Events {
    pub(crate) fn info(&self) -> &TraceInfo {
        match self {
            Self::Held(t) => &t.info,
            Self::Streamed(s) => &s.info,
        }
    }

    /// Calls `sink` with every event in time order, until it breaks.
    pub(crate) fn each(&self, mut sink: impl FnMut(&Event, &Strings) -> ControlFlow<()>) -> Result<()> {
        match self {
            Self::Held(t) => {
                for e in &t.events {
                    if sink(&e, &t.strings).is_break() {
                        break;
                    }
                }
            }
            Self::Streamed(s) => {
                s.input.stream("reading", &mut sink)?;
            }
        }
        Ok(())
    }

    /// Texts of the markers and the times they were written, in time order.
    pub(crate) fn marks(&self) -> Vec<(String, u64)> {
        match self {
            Self::Held(t) => marks(t),
            Self::Streamed(s) => s.marks.clone(),
        }
    }

    /// Which VM and vCPU each event belongs to.
    pub(crate) fn whose(&self) -> Attribution {
        match self {
            Self::Held(t) => Attribution::of(t),
            Self::Streamed(s) => s.whose.clone(),
        }
    }

    /// The event names of the trace and the CPUs that recorded events.
    pub(crate) fn names(&self) -> Names {
        match self {
            Self::Held(t) => {
                let mut names = Names::default();
                t.events.iter().for_each(|e| names.add(&e, &t.strings));
                names
            }
            Self::Streamed(s) => s.names.clone(),
        }
    }

    /// Replays a streamed trace where that needs at most `room` bytes of memory; `None` where it would need more.
    pub(crate) fn replay(&self, options: ReplayOptions, room: u64) -> Result<Option<(Trace, Timeline)>> {
        let Self::Streamed(s) = self else { return Ok(None) };
        if room::of_events(s.info.events) > room {
            return Ok(None);
        }
        // Damage was reported after the first reading.
        s.input.read(options).map(Some)
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

/// The options that bound a stretch of time.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TimeArgs {
    /// Only from this moment on: 1.5s, 20ms, 1.5 (seconds), or the name of a phase (NAME#2: the second of that name)
    #[arg(long, value_name = "TIME")]
    from: Option<Moment>,
    /// Only up to this moment, included; NAME:end is the end of a phase
    #[arg(long, value_name = "TIME")]
    to: Option<Moment>,
}

impl TimeArgs {
    /// The two moments as times on the trace's clock, as far as they were given.
    pub(crate) fn on(&self, clock: &Clock) -> Result<(Option<u64>, Option<u64>)> {
        remark(clock, self.from.iter().chain(&self.to));
        Ok(clock.between(self.from.as_ref(), self.to.as_ref())?)
    }
}

/// The option that names one moment.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AtArg {
    /// The moment to show: end, 1.5s, 20ms, 1.5 (seconds), or the name of a phase (NAME:end for its end, NAME#2 for the second of that name)
    #[arg(long, value_name = "TIME", default_value = "end")]
    at: Moment,
}

impl AtArg {
    /// The moment as a time on the trace's clock.
    pub(crate) fn on(&self, clock: &Clock) -> Result<u64> {
        remark(clock, [&self.at]);
        Ok(clock.at(&self.at)?)
    }
}

fn remark<'a>(clock: &Clock, moments: impl IntoIterator<Item = &'a Moment>) {
    for remark in moments.into_iter().filter_map(|m| clock.remark(m)) {
        eprintln!("mmuscope: {remark}");
    }
}

/// The clock of a trace in memory.
pub(crate) fn clock_of(trace: &Trace, absolute: bool) -> Clock {
    Clock { first: trace.info.first_ts, last: trace.info.last_ts, absolute, marks: marks(trace) }
}
