//! trace.dat, the file of trace-cmd. The main type is [`DatReader`]; the loaders open it. It never interprets events itself.
//!
//! ```text
//! 17 08 44 "tracing" "6\0"|"7\0"  u8 endian (0 little)  u8 bytes in a long  u32 page size
//! v6: formats block (see blob), u32 cpus, then 10-byte tags: "options  \0" {u16 id, u32 size, bytes}… 0;
//!     "flyrecord\0" cpus × {u64 offset, u64 size} of ring pages; or "latency  \0" and text
//! v7: compressor\0 version\0 u64 offset of the first options section;
//!     section = u16 id, u16 flags (1: compressed), u32 string id, u64 size, bytes; compressed bytes = u32 csize, u32 usize, data
//!     options section (id 0) = {u16 id, u32 size, bytes}…, DONE (id 0) holds the offset of the next options section
//!     BUFFER (id 3) = u64 offset, name\0, clock\0, u32 page size, u32 n, n × {u32 cpu, u64 offset, u64 size}
//!     ring pages compressed in chunks: u32 n, n × {u32 csize, u32 usize, data}
//! ```
//! The pages are read CPU by CPU ([`ring`](crate::ring)) and merged by time as they are read, so that memory holds only a part of each CPU.

mod head;
mod options;
mod pages;
mod rescue;
mod sync;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::blob::Meta;
use crate::error::Error;
use crate::event::{Body, Event, StrId};
use crate::format::Format;
use crate::info::{Clock, ClockUnit, Compression, FormatKind, RecordedEvents, TraceInfo};
use crate::input::Source;
use crate::raw::RawBatch;
use crate::reader::{BATCH, Cx, RawReader, Reader, damage, read_decoded};
use crate::records::{Broken, Formats, Kind, PageHead};
use crate::ring::{self, PageWalk};
use crate::store::Who;
pub(crate) use options::{Options, TscToNs, selected as selected_clock};
pub(crate) use pages::{Budget, Pages};
use sync::TimeShift;

/// The pages of one CPU while they are read.
pub(crate) struct Cpu {
    pub(crate) number: u16,
    pub(crate) pages: Pages,
    /// The place of the page in the file, or in its decompressed chunk.
    page_at: u64,
    /// The task of the last record and its number.
    task: (u32, u32),
    walk: PageWalk,
    /// The next record: its time, and where its data begin and end in the page.
    next: Option<(u64, usize, usize)>,
    last: u64,
    lost: Option<ring::Missed>,
    /// Damage that is to be reported before the next record.
    damaged: Option<Body>,
    /// Pages in a row that held nothing.
    ended: bool,
}

impl Cpu {
    pub(crate) fn new(number: u16, pages: Pages) -> Self {
        Self {
            number,
            pages,
            page_at: 0,
            task: (u32::MAX, 0),
            walk: PageWalk::default(),
            next: None,
            last: 0,
            lost: None,
            damaged: None,
            ended: false,
        }
    }

    /// Finds the next record, across pages and damage.
    fn advance(&mut self, path: &Path, head: &PageHead, time: &Time, cx: &mut Cx) {
        self.next = None;
        while !self.ended {
            match self.walk.next(self.pages.page()) {
                Ok(Some((ts, a, b))) => {
                    // Time stamps of one CPU never run back; where a clock does, the last time is kept.
                    self.last = time.ns(self.number, ts).max(self.last);
                    self.next = Some((self.last, a, b));
                    return;
                }
                Ok(None) => {}
                Err(bad) => self.note(path, bad, cx),
            }
            match self.pages.next() {
                Ok(Some(at)) => {
                    self.page_at = at;
                    match ring::open(self.pages.page(), head) {
                        Ok(start) => {
                            self.walk = start.walk;
                            self.lost = start.lost.or(self.lost);
                        }
                        Err(bad) => {
                            self.walk = PageWalk::default();
                            self.note(path, bad, cx);
                        }
                    }
                }
                Ok(None) => self.ended = true,
                Err(d) => {
                    self.ended = true;
                    let body = cx.damaged(damage(path, d.at, d.expected, d.message, false));
                    self.damaged = self.damaged.or(body);
                }
            }
        }
    }

    fn note(&mut self, path: &Path, bad: ring::BadPage, cx: &mut Cx) {
        self.walk = PageWalk::default();
        let text = format!("the rest of a ring page of CPU {} was skipped", self.number);
        let body = cx.damaged(damage(path, self.page_at + bad.at as u64, bad.expected, text, true));
        self.damaged = self.damaged.or(body);
    }
}

/// The conversion from the time stamps in the pages to the times of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Time {
    pub(crate) shift: Option<Arc<TimeShift>>,
    pub(crate) tsc: Option<TscToNs>,
    pub(crate) offset: i64,
}

impl Time {
    #[inline]
    fn ns(&self, cpu: u16, ts: u64) -> u64 {
        let ts = self.shift.as_ref().map_or(ts, |s| s.host(cpu, ts));
        let ts = match self.tsc {
            Some(t) => t.ns(ts),
            None => ts,
        };
        ts.wrapping_add_signed(self.offset)
    }
}

/// The reader of ring pages, with the formats of their records.
pub(crate) struct DatReader {
    path: PathBuf,
    meta: Meta,
    formats: Arc<Formats>,
    /// The events whose formats the file has; no other event was recorded.
    recorded: Option<BTreeSet<String>>,
    /// The names of events without a typed body.
    names: Vec<StrId>,
    batch: RawBatch,
    cpus: Vec<Cpu>,
    time: Time,
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    started: bool,
    comms: FxHashMap<u32, StrId>,
    options: Options,
    kind: FormatKind,
    unknown: u64,
    broken: bool,
}

impl DatReader {
    /// Opens a trace.dat.
    pub(crate) fn open(source: &Source, path: &Path, cx: &mut Cx) -> Result<Box<dyn Reader>, Error> {
        Ok(match head::open(source, path, cx)? {
            head::Opened::Pages(r) => r,
            head::Opened::Text(r) => r,
        })
    }

    /// Opens a trace.dat for its raw records.
    pub(crate) fn open_raw(source: &Source, path: &Path, cx: &mut Cx) -> Result<Self, Error> {
        match head::open(source, path, cx)? {
            head::Opened::Pages(r) => Ok(*r),
            head::Opened::Text(_) => Err(Error::Unsupported {
                path: path.to_path_buf(),
                what: "a trace.dat that holds text".to_owned(),
                next: "record without a latency tracer".to_owned(),
            }),
        }
    }

    /// The formats of the file.
    pub(crate) fn formats(&self) -> Vec<Format> {
        self.formats.all()
    }

    /// The task names of the file.
    pub(crate) fn comms(&self) -> Vec<(u32, String)> {
        self.meta.cmdlines.clone()
    }

    /// Passes every record to `f`, one CPU after the other.
    pub(crate) fn each_raw(&mut self, cx: &mut Cx, mut f: impl FnMut(u16, u64, &[u8])) {
        for c in &mut self.cpus {
            loop {
                c.advance(&self.path, &self.meta.page_head, &self.time, cx);
                let Some((ts, a, b)) = c.next else { break };
                f(c.number, ts, &c.pages.page()[a..b]);
            }
        }
    }

    pub(crate) fn new(
        path: &Path,
        kind: FormatKind,
        mut meta: Meta,
        mut cpus: Vec<Cpu>,
        options: Options,
        cx: &mut Cx,
    ) -> Self {
        let comms = meta.cmdlines.iter().map(|(pid, comm)| (*pid, cx.strings.intern(comm))).collect();
        let time = Time {
            shift: options.shift.clone(),
            tsc: options.tsc.filter(|_| options.clock.as_deref() == Some("x86-tsc")),
            offset: options.offset,
        };
        let n = cpus.len();
        for c in &mut cpus {
            c.pages.share(n);
        }
        let mut formats = Arc::new(std::mem::take(&mut meta.formats));
        // Formats that come from elsewhere do not show what was recorded.
        let recorded = formats.all().into_iter().map(|f| f.name).collect::<BTreeSet<_>>();
        let recorded = recorded.iter().any(|n| n.starts_with("kvm_")).then_some(recorded);
        cx.given_formats(path, &mut formats);
        Self {
            path: path.to_path_buf(),
            formats,
            recorded,
            meta,
            names: Vec::new(),
            batch: RawBatch::default(),
            cpus,
            time,
            heap: BinaryHeap::new(),
            started: false,
            comms,
            options,
            kind,
            unknown: 0,
            broken: false,
        }
    }

    #[inline]
    fn emit(&mut self, i: usize, out: &mut RawBatch, cx: &mut Cx) {
        let c = &mut self.cpus[i];
        let Some((ts, a, b)) = c.next else { return };
        if c.damaged.is_some() || c.lost.is_some() {
            let who = cx.whos.id(Who { cpu: c.number, ..Who::default() });
            if let Some(body) = c.damaged.take() {
                out.note(ts, who, body);
            }
            if let Some(ring::Missed { count }) = c.lost.take() {
                out.note(ts, who, Body::Lost { count, event: None });
            }
        }
        let record = &c.pages.page()[a..b];
        match self.formats.classify(record, &mut self.names, &mut cx.strings) {
            Ok(kind) => {
                let tid = self.formats.tid(record);
                // No task has the number -1, so it can mean that there is none.
                if tid.unwrap_or(u32::MAX) != c.task.0 || tid.is_none() {
                    let comm = tid.and_then(|t| self.comms.get(&t)).copied().unwrap_or_default();
                    let who = cx.whos.id(Who { cpu: c.number, tid, pid: None, comm });
                    c.task = (tid.unwrap_or(u32::MAX), who);
                }
                match kind {
                    Kind::Typed(how) => out.record(ts, c.task.1, how, record),
                    Kind::Body(body) => out.note(ts, c.task.1, body),
                }
            }
            Err(broken) => {
                self.unknown += 1;
                if !self.broken {
                    self.broken = true;
                    let at = c.page_at + a as u64;
                    let text = "this event and any like it were left out".to_owned();
                    if let Some(body) =
                        cx.damaged(damage(&self.path, at, Broken::expected(broken), text, true))
                    {
                        out.note(ts, cx.whos.id(Who { cpu: c.number, ..Who::default() }), body);
                    }
                }
            }
        }
    }
}

impl RawReader for DatReader {
    fn batch(&mut self) -> &mut RawBatch {
        &mut self.batch
    }

    fn read_raw(&mut self, out: &mut RawBatch, cx: &mut Cx) -> Result<bool, Error> {
        out.formats = Arc::clone(&self.formats);
        out.exits = cx.strings.all_exit_names();
        if !self.started {
            self.started = true;
            for i in 0..self.cpus.len() {
                self.cpus[i].advance(&self.path, &self.meta.page_head, &self.time, cx);
                if let Some((ts, ..)) = self.cpus[i].next {
                    self.heap.push(Reverse((ts, i as u32)));
                }
            }
        }
        let mut steps = 0;
        while out.len() < BATCH {
            let Some(Reverse((_, i))) = self.heap.pop() else {
                // Damage and losses after the last event of a CPU.
                let mut last: Vec<(u64, u16, Body)> = Vec::new();
                for c in &mut self.cpus {
                    last.extend(c.damaged.take().map(|body| (c.last, c.number, body)));
                }
                last.sort_by_key(|l| l.0);
                for (ts, cpu, body) in last {
                    out.note(ts, cx.whos.id(Who { cpu, ..Who::default() }), body);
                }
                return Ok(false);
            };
            let limit = self.heap.peek().map_or((u64::MAX, u32::MAX), |r| r.0);
            let i = i as usize;
            // Take the events of this CPU until an event of another CPU is earlier.
            loop {
                self.emit(i, out, cx);
                self.cpus[i].advance(&self.path, &self.meta.page_head, &self.time, cx);
                let Some((ts, ..)) = self.cpus[i].next else { break };
                steps += 1;
                if (ts, i as u32) > limit || out.len() >= BATCH || steps > 16 * BATCH {
                    self.heap.push(Reverse((ts, i as u32)));
                    break;
                }
            }
            if steps > 16 * BATCH {
                break;
            }
        }
        let read: u64 = self.cpus.iter_mut().map(|c| c.pages.take_progress()).sum();
        cx.advance(read)?;
        Ok(true)
    }
}

impl Reader for DatReader {
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error> {
        read_decoded(self, out, cx)
    }

    fn raw(&mut self) -> Option<&mut dyn RawReader> {
        Some(self)
    }

    fn inside(&self, out: &mut Vec<Compression>) {
        // In a folder of pages, each file counts as one.
        let files = if self.kind == FormatKind::RawPages { self.cpus.len() } else { 1 };
        let one = self.cpus.iter().find_map(|c| c.pages.compressor());
        out.extend(std::iter::repeat_n(
            match one {
                Some(pages::Compressor::Zstd) => Compression::Zstd,
                Some(pages::Compressor::Zlib) => Compression::Zlib,
                None => Compression::None,
            },
            files,
        ));
    }

    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx) {
        self.describe_early(info);
        info.resolution_ns = 1;
        self.formats.describe(info);
        info.recorded = self.recorded.clone().map(|names| RecordedEvents { names, all: false });
        let clock = self.options.clock.clone().unwrap_or_default();
        let unit =
            if self.time.tsc.is_some() { ClockUnit::Nanoseconds } else { ClockUnit::of_ftrace(&clock) };
        if unit == ClockUnit::Ordinal {
            info.notes.push(format!(
                "The clock {clock:?} gives an order, not times. Record with: trace-cmd record -C mono"
            ));
        } else if unit == ClockUnit::Cycles {
            info.notes.push(format!(
                "The clock {clock:?} counts cycles, not nanoseconds. Record with: trace-cmd record -C mono"
            ));
        }
        info.clock = Clock { name: clock, unit };
        if self.time.shift.is_some() {
            info.notes.push(
                "The times of this guest's trace were converted to its host's clock, by the samples that trace-cmd took of the difference"
                    .to_owned(),
            );
        }
        info.lost.known = true;
        for (cpu, n) in &self.options.lost {
            if *n > 0 {
                info.lost.per_cpu.insert(*cpu, *n);
            }
        }
        self.options.people(info);
        for (pid, comm) in &self.meta.cmdlines {
            if !info.tasks.iter().any(|t| t.tid == *pid) {
                let comm = cx.strings.intern(comm);
                info.tasks.push(crate::info::TaskInfo {
                    tid: *pid,
                    comm,
                    ..crate::info::TaskInfo::default()
                });
            }
        }
        if self.unknown > 0 {
            info.notes.push(format!(
                "{} records of {} could not be read and were left out",
                self.unknown, self.kind
            ));
        }
        if self.meta.unread > 0 {
            info.notes.push(format!(
                "{} format texts could not be read; their events were left out",
                self.meta.unread
            ));
        }
    }

    fn describe_early(&mut self, info: &mut TraceInfo) {
        let host = &mut info.host;
        host.fill_from(self.options.host.clone());
        host.long_size = host.long_size.or((self.meta.long_size > 0).then_some(self.meta.long_size));
        if host.nr_cpus.is_none() && !self.cpus.is_empty() {
            host.nr_cpus = Some(self.cpus.iter().map(|c| u32::from(c.number) + 1).max().unwrap_or(0));
        }
    }
}
