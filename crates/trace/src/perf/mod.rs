//! perf.data as a file, as a pipe, and as the data files of a `perf record --threads` directory. The main type is [`PerfReader`]; the
//! loaders and the follower use it.
//!
//! ```text
//! file    "PERFILE2" u64 head size (104)  u64 attr entry size  {u64 offset, u64 size} × attrs, data, event types  u64 × 4 feature bits
//!         attr entry = perf_event_attr, {u64 offset, u64 size} of its ids; feature sections' {offset, size} table behind the data
//! pipe    "PERFILE2" u64 16, then records only; attrs and features are records (64, 80), TRACING_DATA (66) has its bytes behind it
//! record  u32 type, u16 misc, u16 size, body
//! sample  (by sample_type) id, ip, pid tid, time, addr, id, stream, cpu, period, read, callchain, raw {u32 size, record}, …
//! others  end, if sample_id_all, with pid tid, time, id, stream, cpu, identifier (those of the sample_type)
//! 81, 83  compressed records: one zstd stream over all of them, whose content is records again, cut anywhere
//! ```
//! The events of one CPU are in order. Those of several CPUs are merged up to the time that FINISHED_ROUND (68) makes complete, so that memory
//! holds the events of one or two rounds.

mod attr;
mod features;
mod file;
pub(crate) mod probes;
mod queues;
mod records;
mod tasks;
mod unpack;

use mmuscope_units::counted;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::blob::{Blob, Meta};
use crate::error::Error;
use crate::event::{Body, Event, StrId};
use crate::info::{Clock, Compression, FormatKind, HostFacts, RecordedEvents, TaskInfo, TraceInfo};
use crate::raw::RawBatch;
use crate::reader::{BATCH, Cx, RawReader, Reader, damage, read_decoded};
use crate::records::Formats;
use attr::{Attr, Fixed};
use queues::{Queues, Stamp};
use tasks::Tasks;
use unpack::Unpacker;

pub(crate) use file::open as open_file;

/// The number of bytes that are read at once.
const WINDOW: usize = 1 << 20;

/// The reader of records.
pub(crate) struct PerfReader {
    path: PathBuf,
    kind: FormatKind,
    input: Box<dyn Read + Send>,
    buf: Vec<u8>,
    /// The start in `buf` of what is not used yet.
    at: usize,
    /// The offset of `buf[0]` in the file.
    offset: u64,
    ended: bool,
    growing: bool,
    unpacker: Unpacker,
    batch: RawBatch,
    pub(crate) state: State,
}

/// Everything that reading records needs and fills.
#[derive(Default)]
pub(crate) struct State {
    path: PathBuf,
    meta: Meta,
    pub(crate) formats: Arc<Formats>,
    /// The names of events without a typed body.
    names: Vec<StrId>,
    pub(crate) attrs: Vec<Attr>,
    /// The offsets of a sample's parts, where all samples have the same simple layout.
    fixed: Option<Fixed>,
    by_id: FxHashMap<u64, u32>,
    /// Whether all attrs have this sample_type and the same layout of records.
    uniform: bool,
    pub(crate) host: HostFacts,
    /// The probes that the recorder set.
    pub(crate) probes: Vec<probes::Probe>,
    clock: Option<Clock>,
    /// The clock that the head of the file names. A snapshot of a moment has no events that do.
    clock_data: Option<i32>,
    tasks: Tasks,
    queues: Queues,
    lost_moments: u64,
    /// The LOST_SAMPLES records, which count the losses of LOST records a second time: event name, CPU, count.
    lost_samples: Vec<(Option<StrId>, u16, u64)>,
    people: Vec<TaskInfo>,
    last_ts: u64,
    unknown: u64,
    reported: bool,
    /// Whether records came compressed.
    compressed: bool,
    no_formats: u64,
}

impl PerfReader {
    /// Opens the pipe form, whose head has been recognised but not read.
    pub(crate) fn pipe(mut input: Box<dyn Read + Send>, path: &Path, cx: &mut Cx) -> Result<Self, Error> {
        let mut head = [0; 16];
        input.read_exact(&mut head).map_err(|e| Error::io(path, e))?;
        let mut r = Self::records(input, path, FormatKind::PerfPipe, 16);
        // Attrs and formats come first. Everything up to the first event is read here, so that vendor and formats are known early.
        r.prime(cx)?;
        Ok(r)
    }

    /// Opens input that consists of records only.
    pub(crate) fn records(input: Box<dyn Read + Send>, path: &Path, kind: FormatKind, offset: u64) -> Self {
        let mut state = State { path: path.to_path_buf(), uniform: true, ..State::default() };
        // The limit of waiting bytes is set later, when events are read.
        state.queues.set_most(usize::MAX);
        Self {
            path: path.to_path_buf(),
            kind,
            input,
            buf: Vec::new(),
            at: 0,
            offset,
            ended: false,
            growing: false,
            unpacker: Unpacker::default(),
            batch: RawBatch::default(),
            state,
        }
    }

    /// Declares that the input may grow after its present end.
    pub(crate) fn growing(mut self) -> Self {
        self.growing = true;
        self
    }

    /// Reads everything into the queues, for the small main file of a directory.
    pub(crate) fn read_ahead(&mut self, cx: &mut Cx) -> Result<(), Error> {
        while self.step(cx)? {}
        Ok(())
    }

    fn prime(&mut self, cx: &mut Cx) -> Result<(), Error> {
        while self.state.queues.is_empty() && (self.state.formats.is_empty() || self.state.attrs.is_empty()) {
            if !self.step(cx)? {
                break;
            }
        }
        Ok(())
    }

    /// Makes at least `n` bytes available, if there are that many.
    fn fill(&mut self, n: usize) -> Result<bool, Error> {
        if self.buf.len() - self.at >= n {
            return Ok(true);
        }
        self.buf.drain(..self.at);
        self.offset += self.at as u64;
        self.at = 0;
        while self.buf.len() < n {
            let have = self.buf.len();
            self.buf.resize(have + if self.growing { 64 << 10 } else { WINDOW }, 0);
            let got = match self.input.read(&mut self.buf[have..]) {
                Ok(k) => k,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    self.buf.truncate(have);
                    continue;
                }
                Err(e) if self.offset == 0 && have == 0 && e.kind() != io::ErrorKind::WouldBlock => {
                    self.buf.clear();
                    return Err(Error::io(&self.path, e));
                }
                // The compressed file is damaged, or the pipe is empty so far; what came before is used.
                Err(_) => 0,
            };
            self.buf.truncate(have + got);
            if got == 0 {
                self.ended = true;
                return Ok(false);
            }
        }
        self.ended = false;
        Ok(true)
    }

    /// Takes the events that are in order, and reads on where there are not enough.
    fn take(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error> {
        loop {
            let State { queues, tasks, .. } = &mut self.state;
            if queues.is_due() {
                queues.take(out, BATCH, tasks, &mut cx.whos);
                if out.len() >= BATCH {
                    return Ok(true);
                }
            }
            let mut more = true;
            while more && !self.state.queues.is_due() && !self.state.queues.is_full() {
                more = self.step(cx)?;
            }
            if !more {
                if !self.growing {
                    self.state.finish();
                    self.state.queues.end();
                }
                let State { queues, tasks, .. } = &mut self.state;
                let max = if self.growing { usize::MAX } else { BATCH };
                queues.take(out, max, tasks, &mut cx.whos);
                return Ok(!self.growing && !queues.is_empty());
            }
        }
    }

    /// Reads one record of the file; the result is `false` at the end.
    fn step(&mut self, cx: &mut Cx) -> Result<bool, Error> {
        if !self.fill(8)? {
            let left = self.buf.len() - self.at;
            if left > 0 && !self.growing {
                self.cut(cx);
            }
            return Ok(false);
        }
        let Some((kind, misc, size)) = header(&self.buf[self.at..]) else { return Ok(false) };
        if size < 8 {
            return self.resync(cx);
        }
        if !self.fill(size)? {
            // A record size that exceeds the rest of the file may be damage rather than the end.
            if !self.growing {
                self.cut(cx);
            }
            return Ok(false);
        }
        // Types 66 and 71 are followed by bytes that their size does not include.
        let behind = match kind {
            66 => u64::from(u32_at(&self.buf, self.at + 8)),
            71 => u64_at(&self.buf, self.at + 8),
            _ => 0,
        };
        if behind > 0 {
            return self.with_bytes_behind(kind, size, behind, cx);
        }
        let offset = self.offset + self.at as u64;
        let record = &self.buf[self.at..self.at + size];
        match kind {
            81 | 83 => {
                self.state.compressed = true;
                self.unpacker.record(kind, record, offset, &mut self.state, cx);
            }
            68 => self.state.queues.round(),
            _ => self.state.record(kind, misc, record, offset, cx),
        }
        self.at += size;
        Ok(true)
    }

    fn with_bytes_behind(&mut self, kind: u32, size: usize, behind: u64, cx: &mut Cx) -> Result<bool, Error> {
        if kind == 66 {
            // The formats are needed as a whole. perf writes a few hundred KB at most; those of a whole kernel are a few MB.
            let n = behind as usize;
            if n > 256 << 20 || !self.fill(size + n)? {
                if self.growing {
                    return Ok(false);
                }
                self.cut(cx);
                self.at = self.buf.len();
                return Ok(false);
            }
            let blob = &self.buf[self.at + size..self.at + size + n];
            self.state.tracing_data(blob, self.offset + (self.at + size) as u64, cx);
            self.at += size + n;
            return Ok(true);
        }
        self.at += size;
        let mut left = behind;
        while left > 0 {
            if !self.fill(1)? {
                return Ok(false);
            }
            let n = left.min((self.buf.len() - self.at) as u64);
            self.at += n as usize;
            left -= n;
        }
        Ok(true)
    }

    fn cut(&mut self, cx: &mut Cx) {
        let at = self.offset + self.at as u64;
        let left = self.buf.len() - self.at;
        let text = format!("the file ends {left} bytes into a record: the recording was cut off");
        if let Some(body) = cx.damaged(damage(&self.path, at, "the rest of a record", text, false)) {
            self.state.note(body);
        }
        self.at = self.buf.len();
    }

    /// Finds the next offset at which several records in a row are valid.
    fn resync(&mut self, cx: &mut Cx) -> Result<bool, Error> {
        let from = self.offset + self.at as u64;
        let mut skipped = 0u64;
        loop {
            self.fill(256 << 10)?;
            let data = &self.buf[self.at..];
            let found = (8..data.len().saturating_sub(7)).step_by(8).find(|at| plausible(data, *at));
            let n = found.unwrap_or(data.len() & !7);
            self.at += n;
            skipped += n as u64;
            let more = found.is_some();
            if more || n == 0 || self.ended {
                if !more {
                    self.at = self.buf.len();
                }
                let text = format!("{skipped} bytes were skipped");
                if let Some(body) =
                    cx.damaged(damage(&self.path, from, "a record of at least 8 bytes", text, more))
                {
                    self.state.note(body);
                }
                return Ok(more);
            }
        }
    }
}

fn plausible(data: &[u8], mut at: usize) -> bool {
    for _ in 0..4 {
        let Some((kind, _, size)) = data.get(at..).and_then(header) else { return true };
        if !matches!(kind, 1..=21 | 64..=84) || size < 16 && kind != 68 || size < 8 || size % 8 != 0 {
            return false;
        }
        at += size;
    }
    true
}

fn header(d: &[u8]) -> Option<(u32, u16, usize)> {
    let h: &[u8; 8] = d.first_chunk()?;
    Some((
        u32::from_le_bytes([h[0], h[1], h[2], h[3]]),
        u16::from_le_bytes([h[4], h[5]]),
        usize::from(u16::from_le_bytes([h[6], h[7]])),
    ))
}

#[inline]
fn u32_at(d: &[u8], at: usize) -> u32 {
    d.get(at..).and_then(|d| d.first_chunk()).map_or(0, |c| u32::from_le_bytes(*c))
}

#[inline]
fn u64_at(d: &[u8], at: usize) -> u64 {
    d.get(at..).and_then(|d| d.first_chunk()).map_or(0, |c| u64::from_le_bytes(*c))
}

impl RawReader for PerfReader {
    fn batch(&mut self) -> &mut RawBatch {
        &mut self.batch
    }

    fn read_raw(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error> {
        let before = self.offset + self.at as u64;
        self.state.queues.set_most(cx.most_waiting);
        let more = self.take(out, cx);
        out.formats = Arc::clone(&self.state.formats);
        out.exits = cx.strings.all_exit_names();
        let more = more?;
        cx.advance(self.offset + self.at as u64 - before)?;
        Ok(more)
    }
}

impl Reader for PerfReader {
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error> {
        read_decoded(self, out, cx)
    }

    fn raw(&mut self) -> Option<&mut dyn RawReader> {
        Some(self)
    }

    fn inside(&self, out: &mut Vec<Compression>) {
        out.push(if self.state.compressed { Compression::Zstd } else { Compression::None });
    }

    fn end(&mut self) {
        self.growing = false;
    }

    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx) {
        self.describe_early(info);
        self.state.describe(info, cx, self.kind);
    }

    fn describe_early(&mut self, info: &mut TraceInfo) {
        info.host.fill_from(self.state.host.clone());
    }
}

impl State {
    /// Takes over the events and tasks that another file of the same recording describes.
    pub(crate) fn share(&mut self, main: &Self) {
        self.meta.long_size = main.meta.long_size;
        self.formats = Arc::clone(&main.formats);
        self.fixed = main.fixed;
        self.attrs.clone_from(&main.attrs);
        self.by_id.clone_from(&main.by_id);
        self.uniform = main.uniform;
        self.host = main.host.clone();
        self.clock.clone_from(&main.clock);
        self.tasks.clone_from(&main.tasks);
    }

    /// Reads TRACING_DATA: its head, then the block of formats.
    pub(crate) fn tracing_data(&mut self, data: &[u8], offset: u64, cx: &mut Cx) {
        let mut b = Blob::new(data);
        let mut parse = || -> Result<(), &'static str> {
            if b.take(10) != Some(b"\x17\x08\x44tracing") {
                return Err("tracing data");
            }
            b.cstr().ok_or("the version of tracing data")?;
            let endian = b.u8().ok_or("the byte order")?;
            if endian != 0 {
                return Err("little-endian tracing data");
            }
            self.meta.long_size = b.u8().ok_or("the size of a long")?;
            self.meta.page_size = b.u32().ok_or("the page size")?;
            self.meta.block(&mut b, false)
        };
        let result = parse();
        if let Err(expected) = result {
            let _ = cx.damaged(damage(
                &self.path,
                offset + b.at as u64,
                expected,
                "the formats of some events are missing",
                true,
            ));
        }
        for (pid, comm) in std::mem::take(&mut self.meta.cmdlines) {
            let id = cx.strings.intern(&comm);
            self.tasks.comms.entry(pid).or_insert(id);
        }
        let new = std::mem::take(&mut self.meta.formats);
        if self.formats.is_empty() {
            self.formats = Arc::new(new);
        } else {
            let all = Arc::make_mut(&mut self.formats);
            for f in new.all() {
                all.add(f);
            }
        }
    }

    /// Adds a note of the reader itself, at the time reached so far.
    fn note(&mut self, body: Body) {
        self.queues.push_note(Stamp { ts: self.last_ts, cpu: 0, tid: None, pid: None }, body);
    }

    /// Runs after the last record, and adds the losses that only the exact counts show.
    fn finish(&mut self) {
        if self.lost_moments == 0 {
            for (event, cpu, count) in std::mem::take(&mut self.lost_samples) {
                self.lost_moments += 1;
                let stamp = Stamp { ts: self.last_ts, cpu, tid: None, pid: None };
                self.queues.push_note(stamp, Body::Lost { count: Some(count), event });
            }
        }
    }

    /// The tracepoints among the attributes; `None` where one has no name.
    fn recorded(&self) -> Option<RecordedEvents> {
        const TRACEPOINT: u32 = 2;
        let name = |a: &Attr| self.formats.name_of(a.config).or_else(|| a.name.clone());
        let bare = |n: String| n.rsplit(':').next().map(str::to_owned);
        let points = self.attrs.iter().filter(|a| a.kind == TRACEPOINT);
        let names: Option<BTreeSet<String>> = points.map(|a| name(a).and_then(bare)).collect();
        Some(RecordedEvents { names: names.filter(|n| !n.is_empty())?, all: true })
    }

    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx, kind: FormatKind) {
        info.resolution_ns = 1;
        self.formats.describe(info);
        info.recorded = self.recorded();
        if self.meta.long_size > 0 {
            info.host.long_size = Some(self.meta.long_size);
        }
        info.clock = self.clock.clone().unwrap_or_else(|| attr::clock(self.clock_data));
        // A kernel before 6.0 does not count losses per event, but every loss leaves a record when there is room again. A ring that overwrites never
        // has room for one.
        info.lost.known = !self.attrs.iter().any(|a| a.overwrites);
        for (event, _, n) in &self.lost_samples {
            if let Some(ev) = event {
                let c = info.lost.per_event.entry(cx.strings.get(*ev).to_owned()).or_default();
                *c = c.saturating_add(*n);
            }
        }
        info.tasks.append(&mut self.people.clone());
        for (tid, comm) in &self.tasks.comms {
            if !info.tasks.iter().any(|t| t.tid == *tid) {
                info.tasks.push(TaskInfo {
                    tid: *tid,
                    pid: self.tasks.pids.get(tid).copied(),
                    comm: *comm,
                    provenance: "process by task records".to_owned(),
                    ..TaskInfo::default()
                });
            }
        }
        if self.queues.clamped() > 0 {
            info.notes.push(format!(
                "{} a time before that of the previous event on the same CPU (recorded in an interrupt), and got its time",
                counted(self.queues.clamped(), "event had", "events had")
            ));
        }
        if self.no_formats > 0 {
            let _ = cx.damaged(damage(
                &self.path,
                0,
                "the formats of the tracepoints (TRACING_DATA)",
                format!(
                    "{} could not be read without them (the recording was not finished, or the file was cut). Such events can be read with \
                     the formats of the same kernel: copy /sys/kernel/tracing/events of the host, and give it with --formats",
                    counted(self.no_formats, "event", "events")
                ),
                false,
            ));
        }
        if self.unknown > 0 {
            info.notes
                .push(format!("{} records of {kind} could not be read and were left out", self.unknown));
        }
    }
}
