//! Text of tracefs, `trace-cmd report` and `perf script`: one event a line, in time order.
//!
//! A line is a head ([`head`]) and a body ([`body`], or [`pairs`] where it is `name=value`). Lines that are no events: comments (`#`),
//! notes of loss (`CPU:1 [LOST 12 EVENTS]`, `CPU:1 [LOST EVENTS]`, `CPU:3 [12 EVENTS DROPPED]`, `PERF_RECORD_LOST lost 12`),
//! `##### CPU 1 buffer started ####`, stack lines, blank lines. Pieces of about a megabyte are parsed on all threads and put together in
//! file order.
//!
//! Most texts are as a tool printed them. A piece in which something does not read is read again by [`repair`]: people paste what a mail
//! program wrapped and quoted. What still is no event is counted, and shown once.

pub(crate) mod body;
pub(crate) mod clean;
pub(crate) mod head;
pub(crate) mod pairs;
mod pieces;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod skipped;

use std::io::{self, Read};
use std::path::PathBuf;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::event::{Body, Event, StrId};
use crate::fields::Meaning;
use crate::info::{Clock, ClockUnit, FormatKind, TraceInfo};
use crate::names::{self, Tp};
use crate::reader::{Cx, Reader, damage};
use crate::strings::Strings;
use body::Gaps;
use clean::Mended;
use pieces::{last_head, memchr_newline, split};
use repair::Reading;
use scan::Scan;
use skipped::Skipped;

/// Bytes a thread parses at a time.
const PIECE: usize = 512 << 10;
/// Longest line that is read as one.
const MAX_LINE: usize = 1 << 20;

/// Reader of text.
pub(crate) struct TextReader {
    path: PathBuf,
    kind: FormatKind,
    input: Box<dyn Read + Send>,
    /// Bytes read but not parsed: the start of a line whose end is not here yet.
    rest: Vec<u8>,
    /// Offset of `rest` in the text.
    offset: u64,
    ended: bool,
    /// The last line counts even without its end.
    whole: bool,
    /// Input may grow: an end of file is for now.
    growing: bool,
    state: State,
}

/// What the lines told so far.
#[derive(Default)]
struct State {
    gaps: Gaps,
    first_unread: Option<u64>,
    junk: u64,
    first_junk: Option<u64>,
    skipped: Skipped,
    mended: Mended,
    digits: Option<u8>,
    overwritten: Option<(u64, u64)>,
    spte_access: bool,
    long_page_fault: Option<bool>,
    cut: Option<u64>,
    /// Notes of loss that came before any event.
    carry: Vec<(u16, Option<u64>)>,
    last_ts: u64,
    /// There was an event.
    events: bool,
    /// The head that tracefs and trace-cmd print before the first event is there.
    head: bool,
    facts: Vec<(String, String)>,
}

/// One piece, parsed.
#[derive(Default)]
struct Piece {
    events: Vec<Event>,
    strings: Strings,
    gaps: Gaps,
    first_unread: Option<usize>,
    junk: u64,
    first_junk: Option<usize>,
    skipped: Skipped,
    mended: Mended,
    /// A line is not as a tool prints it, though it reads as an event.
    odd: bool,
    digits: Option<u8>,
    overwritten: Option<(u64, u64)>,
    spte_access: bool,
    long_page_fault: Option<bool>,
    /// Losses noted after the last event.
    carry: Vec<(u16, Option<u64>)>,
    /// The head that tracefs and trace-cmd print before the first event is in it.
    head: bool,
    facts: Vec<(String, String)>,
}

impl TextReader {
    pub(crate) fn new(path: PathBuf, kind: FormatKind, input: Box<dyn Read + Send>) -> Self {
        Self {
            path,
            kind,
            input,
            rest: Vec::new(),
            offset: 0,
            ended: false,
            whole: false,
            growing: false,
            state: State::default(),
        }
    }

    /// The last line is complete even without a line end (pasted text).
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// An end of input is not the end.
    pub(crate) fn growing(mut self) -> Self {
        self.growing = true;
        self
    }

    fn fill(&mut self, want: usize) -> Result<(), Error> {
        let mut n = self.rest.len();
        self.rest.resize(n.max(want), 0);
        while n < self.rest.len() {
            match self.input.read(&mut self.rest[n..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(k) => n += k,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.ended = true;
                    break;
                }
                Err(e) if self.offset == 0 && n == 0 => return Err(Error::io(&self.path, e)),
                // A damaged compressed text: what came out counts.
                Err(_) => {
                    self.state.cut = Some(self.offset + n as u64);
                    self.ended = true;
                    break;
                }
            }
        }
        self.rest.truncate(n);
        Ok(())
    }
}

impl Reader for TextReader {
    fn read(&mut self, out: &mut Vec<Event>, cx: &mut Cx) -> Result<bool, Error> {
        let threads = cx.threads.clamp(1, 64);
        // A small first bite shows something soon; a live stream is taken as it comes.
        let want = if self.growing { 64 << 10 } else { PIECE * threads };
        self.ended = false;
        let before = self.rest.len();
        self.fill(want.max(before + (64 << 10)))?;
        cx.advance((self.rest.len() - before) as u64)?;
        let mut end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        if self.ended && !self.growing && end < self.rest.len() {
            if self.whole {
                end = self.rest.len();
            } else if self.rest[end..].iter().any(|b| !b.is_ascii_whitespace()) {
                self.state.cut = Some(self.offset + end as u64);
            }
        } else if !self.ended && self.rest.len() - end > MAX_LINE {
            // No line is that long: junk.
            end = self.rest.len();
        }
        if !self.ended && !self.growing && end < self.rest.len() {
            // What follows may be the rest of the last event.
            end = last_head(&self.rest[..end]).unwrap_or(end);
        }
        let text = &self.rest[..end];
        let parts = if threads == 1 || text.len() < 128 << 10 { vec![text] } else { split(text, threads) };
        let pieces: Vec<Piece> = parts.par_iter().map(|p| parse_piece(p)).collect();
        let mut at = self.offset;
        for (piece, part) in pieces.into_iter().zip(&parts) {
            self.state.take(piece, at, out, &mut cx.strings);
            at += part.len() as u64;
        }
        self.offset += end as u64;
        self.rest.drain(..end);
        let more = !self.ended;
        if !more && !self.growing {
            self.state.flush(out);
        }
        Ok(more)
    }

    fn end(&mut self) {
        self.growing = false;
    }

    fn describe(&mut self, info: &mut TraceInfo, cx: &mut Cx) {
        self.state.describe(info, cx, self);
    }
}

impl State {
    /// Puts a piece behind the ones before.
    fn take(&mut self, mut p: Piece, offset: u64, out: &mut Vec<Event>, strings: &mut Strings) {
        self.gaps.add(&p.gaps);
        self.junk += p.junk;
        self.skipped.add(std::mem::take(&mut p.skipped));
        self.mended.add(&p.mended);
        self.first_unread = self.first_unread.or(p.first_unread.map(|n| offset + n as u64));
        self.first_junk = self.first_junk.or(p.first_junk.map(|n| offset + n as u64));
        self.digits = p.digits.max(self.digits).or(self.digits);
        self.overwritten = p.overwritten.or(self.overwritten);
        self.head |= p.head;
        self.spte_access |= p.spte_access;
        self.long_page_fault = self.long_page_fault.or(p.long_page_fault);
        self.facts.append(&mut p.facts);
        if let Some(first) = p.events.first() {
            let ts = first.ts;
            for (cpu, count) in self.carry.drain(..) {
                out.push(lost(ts, cpu, count));
            }
        }
        let mut map: Vec<Option<StrId>> = vec![None; p.strings.len() + 1];
        let mut at = |id: StrId, strings: &mut Strings| match map.get_mut(id.0 as usize) {
            Some(known) => *known.get_or_insert_with(|| strings.intern(p.strings.get(id))),
            None => StrId::default(),
        };
        for e in &mut p.events {
            e.comm = at(e.comm, strings);
            match &mut e.body {
                Body::Marker { text } => *text = strings.intern_marker(p.strings.get(*text)),
                Body::Other { name, fields } => {
                    *name = at(*name, strings);
                    *fields = strings.take_over(&p.strings, *fields);
                }
                Body::Exit { reason_name, .. } => *reason_name = at(*reason_name, strings),
                Body::Lost { event: Some(e), .. } => *e = at(*e, strings),
                _ => {}
            }
        }
        if let Some(last) = p.events.last() {
            self.last_ts = last.ts;
            self.events = true;
        }
        out.append(&mut p.events);
        self.carry.append(&mut p.carry);
    }

    /// Losses noted after the last event of all.
    fn flush(&mut self, out: &mut Vec<Event>) {
        let ts = self.last_ts;
        for (cpu, count) in self.carry.drain(..) {
            out.push(lost(ts, cpu, count));
        }
    }

    fn describe(&self, info: &mut TraceInfo, cx: &mut Cx, r: &TextReader) {
        let digits = self.digits.unwrap_or(6);
        if digits == 0 {
            info.clock = Clock { name: String::new(), unit: ClockUnit::Ordinal };
            info.notes.push(
                "The stamps are whole numbers: the trace was recorded with a clock that does not count time (counter, uptime or x86-tsc); \
                 only the order of events is known. Record with: echo mono > /sys/kernel/tracing/trace_clock"
                    .to_owned(),
            );
            info.resolution_ns = 1;
        } else {
            info.clock = Clock::default();
            info.resolution_ns = 10u32.pow(9u32.saturating_sub(u32::from(digits)));
        }
        // Only whole output shows that nothing was lost: a fragment may have been cut out between two lines that say so, and perf script
        // prints no losses.
        info.lost.known |= r.kind != FormatKind::PerfScriptText && self.events && self.head;
        if let Some((kept, written)) = self.overwritten
            && written > kept
        {
            info.notes.push(format!(
                "{} events were overwritten before the oldest one kept: the recording is longer than this trace. A larger buffer: \
                 echo 65536 > /sys/kernel/tracing/buffer_size_kb",
                written - kept
            ));
        }
        let g = &self.gaps;
        if g.page_gfn > 0 {
            info.notes.push(format!(
                "The kvm plugin of trace-cmd dropped the gfn of {} shadow-page events: use the trace.dat itself, or trace-cmd report -R",
                g.page_gfn
            ));
        }
        if g.exit_vcpu > 0 {
            info.notes.push(format!(
                "{} kvm_exit events do not say their vCPU (the kvm plugin drops it, and kernels before 5.4 do not record it)",
                g.exit_vcpu
            ));
        }
        if g.hashed > 0 {
            info.notes.push(format!(
                "{} pointers (sptep) are hashed by the kernel and were left out: record with trace-cmd or perf, or boot with no_hash_pointers",
                g.hashed
            ));
        }
        if g.emptied > 0 {
            info.notes.push(format!(
                "In {} lines the kernel dropped strings (6.1 does so with the option nohash-ptr): letters and exit reasons are missing there. \
                 Record with trace-cmd or perf",
                g.emptied
            ));
        }
        info.notes.extend(self.mended.words());
        self.skipped.notes(info);
        if let Some(at) = self.first_unread {
            let _ = cx.damaged(damage(
                &r.path,
                at,
                "the fields that this event prints",
                format!("{} events could not be read and are kept as text", g.unread),
                true,
            ));
        }
        if let Some(at) = self.first_junk {
            let _ = cx.damaged(damage(
                &r.path,
                at,
                "an event",
                format!("{} lines are no events of any known text", self.junk),
                true,
            ));
        }
        if let Some(at) = self.cut {
            let _ = cx.damaged(damage(
                &r.path,
                at,
                "the end of the line",
                "the text ends within a line, which was left out",
                false,
            ));
        }
        if let Some(v) = self.long_page_fault {
            info.dialect.long_page_fault.get_or_insert_with(|| crate::info::Sourced {
                value: v,
                from: "the text of kvm_page_fault".to_owned(),
            });
        }
        for (k, v) in &self.facts {
            match k.as_str() {
                "hostname" => info.host.hostname = Some(v.clone()),
                "os release" => info.host.os_release = Some(v.clone()),
                "arch" => info.host.arch = Some(v.clone()),
                "cpudesc" => info.host.cpu_desc = Some(v.clone()),
                "cpuid" => info.host.set_cpuid(v),
                "cmdline" => info.host.cmdline = Some(v.clone()),
                "nrcpus online" => info.host.nr_cpus = v.parse().ok(),
                _ => info.host.facts.push((k.clone(), v.clone())),
            }
        }
    }
}

fn lost(ts: u64, cpu: u16, count: Option<u64>) -> Event {
    Event { ts, cpu, tid: None, pid: None, comm: StrId::default(), body: Body::Lost { count, event: None } }
}

/// Whether a line is not as a tool prints it, though it reads as an event: a mark of one who quotes, a logger's prefix, a broken line,
/// damaged blanks, quoted-printable, HTML.
fn is_odd(line: &[u8], h: &head::Head<'_>) -> bool {
    let first_word = || h.rest.iter().position(|b| matches!(b, b' ' | b'='));
    matches!(line.first(), Some(b'>' | b'|'))
        || h.comm.len() > repair::COMM
        || h.comm.first().is_some_and(|b| matches!(b, b'[' | b'&') || !b.is_ascii())
        || h.event.is_empty() && (h.rest.is_empty() || !h.rest.is_ascii())
        || line.ends_with(b"=20")
        || line.ends_with(b"=")
        || first_word().is_some_and(|n| h.rest[n..].starts_with(b"=3D"))
}

/// Caches that make most of a line a comparison with the line before.
#[derive(Default)]
struct Parser {
    out: Piece,
    comms: FxHashMap<Box<[u8]>, StrId>,
    tps: FxHashMap<Box<[u8]>, Option<Tp>>,
    meaning: Meaning,
}

fn parse_piece(text: &[u8]) -> Piece {
    let mut p = Parser::default();
    p.out.events.reserve(text.len() / 100);
    let mut at = 0;
    while at < text.len() {
        let end = memchr_newline(&text[at..]).map_or(text.len(), |n| at + n);
        p.line(&text[at..end], at);
        at = end + 1;
    }
    if p.out.junk == 0 && p.out.gaps.unread == 0 && p.out.skipped.lines == 0 && !p.out.odd {
        return p.out;
    }
    mended(text)
}

/// The lines of a text that is not as a tool printed it, put together again.
pub(crate) fn mended_lines(text: &[u8], mended: &mut Mended) -> Vec<repair::Whole> {
    let mut trial = Parser::default();
    repair::whole(text, &mut |line: &str| trial.reading(line.as_bytes()), mended)
}

/// Where a piece of a text that begins at `at` can end.
pub(crate) fn piece_end(text: &[u8], at: usize) -> usize {
    match text.get(at + PIECE..) {
        Some(rest) => pieces::next_head(rest).map_or(text.len(), |n| at + PIECE + n),
        None => text.len(),
    }
}

/// A piece that is not as a tool printed it.
fn mended(text: &[u8]) -> Piece {
    let mut mended = Mended::default();
    let lines = mended_lines(text, &mut mended);
    let mut p = Parser::default();
    for line in lines {
        p.line(line.text.as_bytes(), line.at);
    }
    p.out.mended = mended;
    p.out
}

impl Parser {
    /// What a line is; the parser is for such questions only.
    fn reading(&mut self, line: &[u8]) -> Reading {
        let Some(h) = head::parse(line.trim_ascii_end()).filter(|h| h.comm.len() <= repair::COMM) else {
            return Reading::Nothing;
        };
        // A text that is not there is on the next line.
        if matches!(h.rest, b"" | b"tracing_mark_write:") {
            return Reading::Unread;
        }
        let unread = self.out.gaps.unread;
        match self.body(&h, 0) {
            _ if self.out.gaps.unread > unread => Reading::Unread,
            Body::Other { .. } => Reading::Untyped,
            body => Reading::Typed(body),
        }
    }

    fn line(&mut self, line: &[u8], at: usize) {
        let line = line.trim_ascii_end();
        let Some(h) = head::parse(line) else {
            self.other_line(line, at);
            return;
        };
        self.out.odd |= is_odd(line, &h);
        self.out.digits = self.out.digits.max(Some(h.digits));
        let cpu = h.cpu.unwrap_or(0);
        let comm = self.comm(h.comm);
        if !self.out.carry.is_empty() {
            for (cpu, count) in std::mem::take(&mut self.out.carry) {
                self.out.events.push(lost(h.ts, cpu, count));
            }
        }
        // An event whose whole text the kernel dropped has the next line glued to it.
        if h.rest.contains(&b'[')
            && matches!(
                h.event,
                b"kvm_mmu_get_page"
                    | b"kvm_mmu_prepare_zap_page"
                    | b"kvm_mmu_sync_page"
                    | b"kvm_mmu_unsync_page"
            )
            && head::parse(h.rest).is_some_and(|n| !n.event.is_empty())
        {
            self.out.gaps.emptied += 1;
            let name = self.out.strings.intern(&String::from_utf8_lossy(h.event));
            let body = Body::Other { name, fields: StrId::default() };
            self.out.events.push(Event { ts: h.ts, cpu, tid: Some(h.tid), pid: h.pid, comm, body });
            let glued = line.len() - h.rest.len();
            self.line(&line[glued..], at + glued);
            return;
        }
        let body = self.body(&h, at);
        self.out.events.push(Event { ts: h.ts, cpu, tid: Some(h.tid), pid: h.pid, comm, body });
    }

    fn comm(&mut self, name: &[u8]) -> StrId {
        // Unknown names: `<...>` of ftrace, `:123` of perf.
        if name == b"<...>" || name.is_empty() {
            return StrId::default();
        }
        if let Some(id) = self.comms.get(name) {
            return *id;
        }
        let id = self.out.strings.intern(&String::from_utf8_lossy(name));
        self.comms.insert(name.into(), id);
        id
    }

    fn body(&mut self, h: &head::Head<'_>, at: usize) -> Body {
        if h.event.is_empty() {
            let mut s = Scan(h.rest);
            if s.key(b"PERF_RECORD_LOST lost ").is_some()
                || s.key(b"PERF_RECORD_LOST_SAMPLES lost ").is_some()
            {
                return Body::Lost { count: s.dec(), event: None };
            }
        }
        let tp = if let Some(tp) = self.tps.get(h.event) {
            *tp
        } else {
            let tp = names::tracepoint(h.event);
            if self.tps.len() < 1024 {
                self.tps.insert(h.event.into(), tp);
            }
            tp
        };
        if let Some(tp) = tp {
            if let Some(b) = body::parse(tp, h.rest, &self.meaning, &mut self.out.strings, &mut self.out.gaps)
            {
                match b {
                    Body::SpteRequested { access: Some(_), .. } => self.out.spte_access = true,
                    Body::PageFault { rip, .. } => self.out.long_page_fault = Some(rip.is_some()),
                    _ => {}
                }
                return b;
            }
            self.out.gaps.unread += 1;
            self.out.first_unread.get_or_insert(at);
        }
        let name = match h.system {
            Some(sys) => format!("{}:{}", String::from_utf8_lossy(sys), String::from_utf8_lossy(h.event)),
            None if h.event.is_empty() => nameless(h.rest).to_owned(),
            None => String::from_utf8_lossy(h.event).into_owned(),
        };
        Body::Other {
            name: self.out.strings.intern(&name),
            fields: self.out.strings.keep_text(&String::from_utf8_lossy(h.rest)),
        }
    }

    /// Lines that are no events.
    fn other_line(&mut self, line: &[u8], at: usize) {
        let line = line.trim_ascii_end();
        if line.is_empty() || line.starts_with(b"##### ") {
            return;
        }
        if let Some(rest) = line.strip_prefix(b"#") {
            self.comment(rest.trim_ascii_start());
            return;
        }
        if line.starts_with(b"cpus=") {
            self.out.head = true;
            return;
        }
        let mut s = Scan(line);
        if s.lit(b"CPU:").is_some()
            && let Some(cpu) = s.dec().and_then(|c| u16::try_from(c).ok())
            && s.key(b"[").is_some()
        {
            // `[LOST 12 EVENTS]`, `[LOST EVENTS]`, `[12 EVENTS DROPPED]`, `[EVENTS DROPPED]`.
            let _ = s.key(b"LOST");
            let count = s.dec();
            if s.key(b"EVENTS").is_some() {
                self.out.carry.push((cpu, count));
                return;
            }
        }
        if self.out.skipped.is_broken(line) {
            self.out.junk += 1;
            self.out.first_junk.get_or_insert(at);
        }
    }

    /// `entries-in-buffer/entries-written: a/b`, and the header of `perf script --header`: `name : value`.
    fn comment(&mut self, text: &[u8]) {
        let mut s = Scan(text);
        if s.lit(b"entries-in-buffer/entries-written:").is_some() {
            if let (Some(a), Some(()), Some(b)) = (s.dec(), s.lit(b"/"), s.dec()) {
                self.out.overwritten = Some((a, b));
                self.out.head = true;
            }
            return;
        }
        if self.out.facts.len() < 64
            && let Some(n) = scan::find(text, b" : ")
            && text.iter().all(u8::is_ascii)
            && !text.contains(&b'|')
        {
            let k = String::from_utf8_lossy(&text[..n]).trim().to_owned();
            let v = String::from_utf8_lossy(&text[n + 3..]).trim().to_owned();
            self.out.facts.push((k, v));
        }
    }
}

/// What a line is that names no event: ftrace prints stack traces and the function tracer's lines so.
fn nameless(rest: &[u8]) -> &'static str {
    let has = |what: &[u8]| rest.windows(what.len()).any(|w| w == what);
    if rest.starts_with(b"<user stack trace") {
        "user_stack"
    } else if rest.starts_with(b"<stack trace") {
        "kernel_stack"
    } else if has(b" <-") {
        "function"
    } else {
        "unnamed"
    }
}
