//! From the lines of one piece of text to events. The main function is [`parse_piece`]; the reader calls it on all threads.

use rustc_hash::FxHashMap;

use super::clean::Mended;
use super::ending::{self, Ending};
use super::pieces::memchr_newline;
use super::repair::Reading;
use super::scan::Scan;
use super::{Piece, lost};
use super::{body, escapes, grep, head, headless, repair, scan};
use crate::event::{Body, Event, StrId};
use crate::fields::Meaning;
use crate::probed;
use crate::schema::{Class, Tp, tracepoint};

/// Whether a line is not as a tool prints it, although it can be read as an event: it has the mark of a quotation, a logger's prefix, a
/// line break, damaged blanks, quoted-printable or HTML.
fn is_odd(line: &[u8], h: &head::Head<'_>) -> bool {
    let first_word = || h.rest.iter().position(|b| matches!(b, b' ' | b'='));
    matches!(line.first(), Some(b'>' | b'|'))
        || h.comm.len() > repair::COMM
        || grep::is_in_comm(h.comm)
        || h.comm.first().is_some_and(|b| matches!(b, b'[' | b'&') || !b.is_ascii())
        || h.event.is_empty() && (h.rest.is_empty() || !h.rest.is_ascii())
        || line.ends_with(b"=20")
        || line.ends_with(b"=")
        || first_word().is_some_and(|n| h.rest[n..].starts_with(b"=3D"))
}

/// The parser of one piece. Its caches reduce most of a line to a comparison with the line before.
#[derive(Default)]
struct Parser {
    out: Piece,
    comms: FxHashMap<Box<[u8]>, StrId>,
    tps: FxHashMap<Box<[u8]>, Option<Tp>>,
    meaning: Meaning,
}

/// Parses a piece. `unended` says that its last line has no line end, so that it may be cut.
pub(super) fn parse_piece(text: &[u8], unended: bool) -> Piece {
    if escapes::may_have_any(text) {
        return mended(text, unended);
    }
    let mut p = Parser::default();
    p.out.events.reserve(text.len() / 100);
    let mut at = 0;
    while at < text.len() {
        let end = memchr_newline(&text[at..]).map_or(text.len(), |n| at + n);
        let line = &text[at..end];
        if unended && end == text.len() {
            p.last_line(line, at, &mut text[..at].rsplit(|b| *b == b'\n'));
        } else {
            p.line(line, at);
        }
        at = end + 1;
    }
    if p.out.junk == 0 && p.out.gaps.unread == 0 && p.out.skipped.lines == 0 && !p.out.odd {
        return p.out;
    }
    mended(text, unended)
}

/// The lines of a text that is not as a tool printed it, put together again.
pub(crate) fn mended_lines(text: &[u8], mended: &mut Mended) -> Vec<repair::Whole> {
    let mut trial = Parser::default();
    repair::whole(text, &mut |line: &str| trial.reading(line.as_bytes()), mended)
}

/// Parses a piece that is not as a tool printed it.
fn mended(text: &[u8], unended: bool) -> Piece {
    let mut mended = Mended::default();
    let lines = mended_lines(text, &mut mended);
    let mut p = Parser::default();
    let last = lines.last().filter(|l| unended && !l.text.is_empty());
    let whole = if last.is_some() { &lines[..lines.len() - 1] } else { &lines };
    for line in whole {
        p.line(line.text.as_bytes(), line.at);
    }
    if let Some(last) = last {
        p.last_line(last.text.as_bytes(), last.at, &mut whole.iter().rev().map(|l| l.text.as_bytes()));
    }
    // What grep printed is a choice of lines.
    p.out.skipped.filtered |= mended.numbered > 0;
    p.out.mended = mended;
    p.out
}

impl Parser {
    /// Says what a line is. The parser is used for such questions only, and its events are not.
    fn reading(&mut self, line: &[u8]) -> Reading {
        let with_head = || head::parse(line.trim_ascii_end()).filter(|h| h.comm.len() <= repair::COMM);
        let Some(h) = with_head().or_else(|| headless::parse(line)) else {
            return Reading::Nothing;
        };
        // A text that is missing here is on the next line.
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

    /// Reads the last line of a text that does not end in a line end; `others` are the lines before it from the last to the first.
    fn last_line(&mut self, line: &[u8], at: usize, others: &mut dyn Iterator<Item = &[u8]>) {
        let mut trial = Self::default();
        match ending::of(line, &mut |l| trial.reading(l)) {
            Ending::Whole => self.line(line, at),
            Ending::Cut => self.out.cut_at = Some(at),
            Ending::Open if ending::is_as_long_as(line, others) => {
                self.line(line, at);
                self.out.likely_whole = true;
            }
            Ending::Open => {
                self.line(line, at);
                self.out.open_at = Some(at);
                // A value that may be cut short is kept as text, because a wrong value is worse than none.
                let body = head::parse(line.trim_ascii_end()).map(|h| self.untyped(&h));
                if let (Some(body), Some(last)) = (body, self.out.events.last_mut()) {
                    last.body = body;
                }
            }
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
        if std::mem::take(&mut self.out.cut) {
            self.out.skipped.cuts += 1;
            let before = self.out.events.last().map_or(cpu, |e| e.cpu);
            self.out.events.push(lost(h.ts, before, None));
        }
        if !self.out.carry.is_empty() {
            for (cpu, count) in std::mem::take(&mut self.out.carry) {
                self.out.events.push(lost(h.ts, cpu, count));
            }
        }
        // If the kernel dropped the whole text of an event, the next line follows on the same line.
        if h.rest.contains(&b'[')
            && tracepoint(h.event).is_some_and(|tp| tp.kind.class() == Class::Page)
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
        // Unknown names are `<...>` in ftrace and `:123` in perf.
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
        if h.rest.starts_with(b"(")
            && let Some((tp, values)) = probed::read(h.event, h.rest)
            && let Some(b) = body::parse(
                tp,
                values.trim_ascii_start(),
                &self.meaning,
                &mut self.out.strings,
                &mut self.out.gaps,
            )
        {
            return b;
        }
        let tp = if let Some(tp) = self.tps.get(h.event) {
            *tp
        } else {
            let tp = tracepoint(h.event).filter(|tp| !probed::is_probe(*tp));
            if self.tps.len() < 1024 {
                self.tps.insert(h.event.into(), tp);
            }
            tp
        };
        let old_role = self.out.gaps.old_role;
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
            if self.out.gaps.old_role == old_role {
                self.out.gaps.unread += 1;
                self.out.first_unread.get_or_insert(at);
            }
        }
        self.untyped(h)
    }

    /// An event as text.
    fn untyped(&mut self, h: &head::Head<'_>) -> Body {
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

    /// Reads a line that is not an event.
    fn other_line(&mut self, line: &[u8], at: usize) {
        let line = line.trim_ascii_end();
        if line.is_empty() || line.starts_with(b"##### ") {
            return;
        }
        self.out.skipped.filtered |= scan::find(line, b"grep ").is_some();
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
            // The forms are `[LOST 12 EVENTS]`, `[LOST EVENTS]`, `[12 EVENTS DROPPED]`, `[EVENTS DROPPED]`.
            let _ = s.key(b"LOST");
            let count = s.dec();
            if s.key(b"EVENTS").is_some() {
                self.out.carry.push((cpu, count));
                return;
            }
        }
        if std::str::from_utf8(line).is_ok_and(|l| repair::is_cut(l.trim())) {
            // What a text leaves out before its first event and after its last is no gap in it.
            self.out.cut |= !self.out.events.is_empty();
            return;
        }
        if self.out.skipped.is_broken(line) {
            self.out.junk += 1;
            self.out.first_junk.get_or_insert(at);
        }
    }

    /// Reads `entries-in-buffer/entries-written: a/b`, and the header of `perf script --header`: `name : value`.
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

/// What a line without an event name is: ftrace prints stack traces and the lines of the function tracer so.
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
