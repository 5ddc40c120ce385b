//! The records that are not part of the file's structure: samples, tasks, losses, and the attrs and features of pipe mode.

use mmuscope_snapshot::Piece;

use crate::blob::Blob;
use crate::event::{Body, StrId, TaskKind};
use crate::perf::attr::{self, Attr, Fixed, Sample};
use crate::perf::features;
use crate::perf::queues::{Key, Stamp};
use crate::perf::{State, header};
use crate::reader::{Cx, damage};
use crate::records::{Broken, Kind};

/// The most attrs and ids that are stored; all tracepoints of a kernel on a thousand CPUs have three million ids.
const MAX_ATTRS: usize = 8192;
const MAX_IDS: usize = 16 << 20;

impl State {
    /// Adds an attr with its ids.
    pub(crate) fn add_attr(&mut self, a: Attr, ids: impl Iterator<Item = u64>) {
        if self.attrs.len() >= MAX_ATTRS {
            return;
        }
        if let Some(first) = self.attrs.first() {
            self.uniform &= first.same_layout(&a);
        }
        if self.clock.is_none() || a.clockid.is_some() {
            self.clock = Some(a.clock());
        }
        let i = self.attrs.len() as u32;
        if i == 0 {
            self.fixed = Fixed::of(&a);
        }
        self.attrs.push(a);
        for id in ids {
            if self.by_id.len() < MAX_IDS {
                self.by_id.insert(id, i);
            }
        }
    }

    /// Names the attrs that have these ids.
    pub(crate) fn name_attr(&mut self, id: Option<u64>, name: &str) {
        if let Some(a) = id.and_then(|id| self.by_id.get(&id)).and_then(|i| self.attrs.get_mut(*i as usize)) {
            a.name = Some(name.to_owned());
        }
    }

    fn attr_of(&self, id: Option<u64>) -> Option<&Attr> {
        match id.and_then(|id| self.by_id.get(&id)) {
            Some(i) => self.attrs.get(*i as usize),
            None => self.attrs.first(),
        }
    }

    /// The attr that describes a sample.
    #[inline]
    fn layout_of_sample(&self, body: &[u8]) -> Option<&Attr> {
        let first = self.attrs.first()?;
        if self.uniform || self.attrs.len() == 1 {
            return Some(first);
        }
        // The layouts differ, so the id decides; with IDENTIFIER it is the first word.
        if first.sample_type & attr::IDENTIFIER != 0 {
            return self.attr_of(Blob::new(body).u64());
        }
        // Otherwise the id is at the same place in all layouts, if it is there at all.
        self.attr_of(attr::sample(first, body).and_then(|s| s.id))
    }

    fn trailer<'a>(&self, body: &'a [u8]) -> Sample<'a> {
        let Some(first) = self.attrs.first() else { return Sample::default() };
        if self.uniform || first.sample_type & attr::IDENTIFIER == 0 {
            return attr::trailer(first, body);
        }
        let id = body.len().checked_sub(8).and_then(|at| Blob { data: body, at }.u64());
        self.attr_of(id).map_or_else(Sample::default, |a| attr::trailer(a, body))
    }

    /// Reads one record, including its head.
    #[inline]
    pub(crate) fn record(&mut self, kind: u32, misc: u16, record: &[u8], offset: u64, cx: &mut Cx) {
        let body = &record[8..];
        match kind {
            9 => self.sample(body, offset, cx),
            2 => self.lost(body),
            3 => self.comm(misc, body, cx),
            4 | 7 => self.task(kind, body),
            13 => self.lost_samples(body, cx),
            64 => self.attr_record(body),
            65 => {
                if let Some(text) = body.strip_prefix(b"MMUSCOPE") {
                    features::facts(&String::from_utf8_lossy(text), self, cx);
                } else if body.starts_with(mmuscope_snapshot::MAGIC) {
                    self.snapshot(body, offset, cx);
                }
            }
            68 => self.queues.round(),
            78 => self.event_update(body),
            80 => {
                let mut b = Blob::new(body);
                if let Some(id) = b.u64() {
                    features::feature(id, b.rest(), self, cx);
                }
            }
            _ => {}
        }
    }

    /// Takes in a part of a snapshot. Each piece becomes an event at the time when it was read.
    fn snapshot(&mut self, body: &[u8], offset: u64, cx: &mut Cx) {
        let Ok(pieces) = mmuscope_snapshot::unpack(body) else {
            return self.broken(offset, "a whole part of a snapshot", None, cx);
        };
        for piece in pieces {
            let ts = match &piece {
                Piece::Begin { at, .. }
                | Piece::VmEnd { at, .. }
                | Piece::End { at, .. }
                | Piece::Stopped { at, .. } => *at,
                Piece::Vm(vm) => vm.at,
                Piece::Table(t) => t.to,
                Piece::Slots(s) => s.at,
            };
            let body = cx.snapshot(piece);
            // They are in a queue of their own, because no CPU recorded them.
            self.queues.note(Key::Other(u64::MAX - 2), Stamp { ts, cpu: 0, tid: None, pid: None }, body);
        }
    }

    #[inline]
    fn sample(&mut self, body: &[u8], offset: u64, cx: &mut Cx) {
        let sample = match &self.fixed {
            Some(f) if self.uniform => f.sample(body),
            _ => self.layout_of_sample(body).and_then(|a| attr::sample(a, body)),
        };
        let Some(s) = sample else {
            self.broken(offset, "a sample as its attributes say", None, cx);
            return;
        };
        let (Some(ts), cpu) = (s.time.or(Some(self.last_ts)).filter(|t| *t != u64::MAX), s.cpu) else {
            return;
        };
        let key = match cpu {
            Some(c) => match u16::try_from(c) {
                Ok(c) => Key::Cpu(c),
                Err(_) => return self.broken(offset, "a CPU that a machine can have", Some(ts), cx),
            },
            None => Key::Other(s.tid.unwrap_or(0).into()),
        };
        self.last_ts = self.last_ts.max(ts);
        let tid = s.tid.or_else(|| s.raw.and_then(|r| self.formats.tid(r)));
        // The task's name is added when the record is taken in order of time.
        let stamp = Stamp { ts, cpu: cpu.unwrap_or(0) as u16, tid, pid: s.pid };
        if let Some(registers) = s.registers
            && let Some(body) = self.probed(s.id, registers, cx)
        {
            self.queues.note(key, stamp, body);
            return;
        }
        let Some(raw) = s.raw else {
            // This is an event of another kind (a counter) that was sampled with the tracepoints.
            let name =
                self.attr_of(s.id).and_then(|a| a.name.clone()).unwrap_or_else(|| "perf event".to_owned());
            let body = Body::Other { name: cx.strings.intern(&name), fields: StrId::default() };
            self.queues.note(key, stamp, body);
            return;
        };
        if self.formats.is_empty() {
            let State { formats, path, .. } = self;
            cx.given_formats(path, formats);
        }
        match self.formats.classify(raw, &mut self.names, &mut cx.strings) {
            Ok(Kind::Typed(how)) => self.queues.record(key, stamp, how, raw),
            Ok(Kind::Body(body)) => self.queues.note(key, stamp, body),
            Err(Broken::Unknown) if self.formats.is_empty() => self.no_formats += 1,
            Err(b) => self.broken(offset, b.expected(), Some(ts), cx),
        }
    }

    /// The event of a probe whose arguments were sampled in registers, where the recording says which holds what.
    fn probed(&self, id: Option<u64>, registers: &[u8], cx: &mut Cx) -> Option<Body> {
        let attr = self.attr_of(id)?;
        let name = attr.name.as_deref()?;
        let probe = self.probes.iter().find(|p| name.rsplit(':').next() == Some(p.function.as_str()))?;
        probe.read(attr.registers, registers, &mut cx.strings)
    }

    /// Counts an unreadable record, and reports the first one.
    fn broken(&mut self, offset: u64, expected: &str, ts: Option<u64>, cx: &mut Cx) {
        self.unknown += 1;
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let text = "this record and any like it were left out";
        if let Some(body) = cx.damaged(damage(&self.path, offset, expected, text, true)) {
            self.last_ts = self.last_ts.max(ts.unwrap_or(0));
            self.note(body);
        }
    }

    fn key(s: &Sample<'_>) -> (Key, u16) {
        match s.cpu.and_then(|c| u16::try_from(c).ok()) {
            Some(c) => (Key::Cpu(c), c),
            None => (Key::Other(u64::MAX - 1), 0),
        }
    }

    /// Reads LOST: u64 id, u64 count. The count is of the whole ring; the id is of the event that came through, so not of the lost ones.
    fn lost(&mut self, body: &[u8]) {
        let mut b = Blob::new(body);
        let (Some(_), Some(count)) = (b.u64(), b.u64()) else { return };
        let s = self.trailer(body);
        let (key, cpu) = Self::key(&s);
        let ts = s.time.filter(|t| *t > 0).unwrap_or(self.last_ts);
        self.lost_moments += 1;
        let stamp = Stamp { ts, cpu, tid: None, pid: None };
        self.queues.note(key, stamp, Body::Lost { count: Some(count), event: None });
    }

    /// Reads LOST_SAMPLES: u64 count, exact for its event. These are the same losses that LOST counts by ring.
    fn lost_samples(&mut self, body: &[u8], cx: &mut Cx) {
        let Some(count) = Blob::new(body).u64().filter(|n| *n > 0) else { return };
        let s = self.trailer(body);
        let name = self.attr_of(s.id).and_then(|a| a.name.clone().or_else(|| self.formats.name_of(a.config)));
        let event = name.map(|n| cx.strings.intern(&n));
        if self.lost_samples.len() < 1 << 20 {
            self.lost_samples.push((event, s.cpu.and_then(|c| u16::try_from(c).ok()).unwrap_or(0), count));
        }
    }

    /// Reads COMM: u32 pid, u32 tid, name.
    fn comm(&mut self, misc: u16, body: &[u8], cx: &mut Cx) {
        let trail = self.attrs.first().map_or(0, attr::trailer_len);
        let mut b = Blob::new(body);
        let (Some(pid), Some(tid)) = (b.u32(), b.u32()) else { return };
        let name = &b.rest()[..b.rest().len().saturating_sub(trail)];
        let end = name.iter().position(|c| *c == 0).unwrap_or(name.len());
        let comm = cx.strings.intern(&String::from_utf8_lossy(&name[..end]));
        self.tasks.pids.insert(tid, pid);
        self.task_event(body, TaskKind::Comm { exec: misc >> 13 & 1 != 0 }, tid, pid, comm);
    }

    /// Reads EXIT (4) or FORK (7): u32 pid, ppid, tid, ptid, u64 time.
    fn task(&mut self, kind: u32, body: &[u8]) {
        let mut b = Blob::new(body);
        let (Some(pid), Some(_), Some(tid), Some(ptid)) = (b.u32(), b.u32(), b.u32(), b.u32()) else {
            return;
        };
        self.tasks.pids.insert(tid, pid);
        if kind == 7 {
            self.tasks.fork(tid, ptid);
            self.task_event(body, TaskKind::Fork, tid, pid, StrId::default());
        } else {
            self.task_event(body, TaskKind::Exit, tid, pid, StrId::default());
        }
    }

    /// Adds a task record as an event if it is from the time of recording. perf itself made up the ones with time 0.
    fn task_event(&mut self, body: &[u8], kind: TaskKind, tid: u32, pid: u32, comm: StrId) {
        let s = self.trailer(body);
        let Some(ts) = s.time.filter(|t| *t > 0) else {
            self.tasks.name(kind, tid, comm);
            return;
        };
        let (key, cpu) = Self::key(&s);
        let body = Body::Task { kind, tid, pid: Some(pid), comm };
        self.queues.note(key, Stamp { ts, cpu, tid: s.tid, pid: s.pid }, body);
    }

    /// Reads HEADER_ATTR: the attr, then its ids.
    fn attr_record(&mut self, body: &[u8]) {
        let Some(a) = Attr::parse(body) else { return };
        let ids = body.get(a.size as usize..).unwrap_or(&[]);
        let ids = ids.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c));
        self.add_attr(a, ids);
    }

    /// Reads EVENT_UPDATE: u64 what, u64 id, data; 2 is a name.
    fn event_update(&mut self, body: &[u8]) {
        let mut b = Blob::new(body);
        let (Some(what), id) = (b.u64(), b.u64()) else { return };
        if what == 2 {
            let name = String::from_utf8_lossy(b.rest()).trim_end_matches('\0').to_owned();
            self.name_attr(id, &name);
        }
    }
}

/// Walks over the whole records at the start of `data`. It returns the bytes used, or as `Err` the offset of an invalid record.
pub(crate) fn walk(data: &[u8], mut each: impl FnMut(u32, u16, &[u8])) -> Result<usize, usize> {
    let mut at = 0;
    while let Some((kind, misc, size)) = header(&data[at..]) {
        if size < 8 {
            return Err(at);
        }
        let Some(record) = data.get(at..at + size) else { break };
        each(kind, misc, record);
        at += size;
    }
    Ok(at)
}
