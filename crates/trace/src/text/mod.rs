//! The text of tracefs, `trace-cmd report` and `perf script`: one event a line, in time order. The main type is [`TextReader`].
//!
//! A line is a head ([`head`]) and a body ([`body`], or [`pairs`] where it is `name=value`). Some lines are not events: comments (`#`),
//! notes of loss (`CPU:1 [LOST 12 EVENTS]`, `CPU:1 [LOST EVENTS]`, `CPU:3 [12 EVENTS DROPPED]`, `PERF_RECORD_LOST lost 12`),
//! `##### CPU 1 buffer started ####`, stack lines, blank lines. Pieces of about half a megabyte are parsed on all threads and put together
//! in file order.
//!
//! Most texts are as a tool printed them. A piece in which some line cannot be read is read again by [`repair`], because people paste what
//! a mail program wrapped and quoted. Lines that are still not events are counted, and the first is shown.

pub(crate) mod body;
pub(crate) mod clean;
mod ending;
pub(crate) mod escapes;
mod grep;
pub(crate) mod head;
pub(crate) mod headless;
mod notes;
pub(crate) mod pairs;
mod parser;
mod pieces;
pub(crate) mod repair;
pub(crate) mod scan;
pub(crate) mod skipped;

use std::io::{self, Read};
use std::path::PathBuf;

use rayon::prelude::*;

use crate::error::Error;
use crate::event::{Body, Event, StrId};
use crate::info::{FormatKind, TraceInfo};
use crate::reader::{Cx, Reader};
use crate::schema::text::Gaps;
use crate::strings::Strings;
use clean::Mended;
pub(crate) use parser::mended_lines;
use parser::parse_piece;
use pieces::{last_head, split};
use skipped::Skipped;

/// The number of bytes that a thread parses at a time.
const PIECE: usize = 512 << 10;
/// The longest line that is read as one, in bytes.
const MAX_LINE: usize = 1 << 20;

/// The reader of text.
pub(crate) struct TextReader {
    path: PathBuf,
    kind: FormatKind,
    input: Box<dyn Read + Send>,
    /// Bytes that are read but not parsed: the start of a line whose end has not come yet.
    rest: Vec<u8>,
    /// The offset of `rest` in the text.
    offset: u64,
    ended: bool,
    /// Whether the last line is complete even without a line end.
    whole: bool,
    /// Whether the input may grow after its present end.
    growing: bool,
    state: State,
}

/// What the lines have shown so far.
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
    /// Where the text ends within a line.
    cut: Option<u64>,
    /// Where the last event begins, if its last number may be cut short.
    open: Option<u64>,
    /// Whether that number is as long as others of its kind.
    likely_whole: bool,
    /// Notes of loss that came before any event.
    carry: Vec<(u16, Option<u64>)>,
    last_ts: u64,
    /// Whether there was an event.
    events: bool,
    /// Lines were left out after the last event.
    left_out: bool,
    /// Whether the head that tracefs and trace-cmd print before the first event was read.
    head: bool,
    facts: Vec<(String, String)>,
}

/// One parsed piece.
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
    /// Whether a line is not as a tool prints it, although it can be read as an event.
    odd: bool,
    digits: Option<u8>,
    overwritten: Option<(u64, u64)>,
    spte_access: bool,
    long_page_fault: Option<bool>,
    /// Where the last line begins, if it is cut.
    cut_at: Option<usize>,
    /// Where the last line begins, if its last number may be cut short.
    open_at: Option<usize>,
    /// Whether that number is as long as others of its kind, and therefore used.
    likely_whole: bool,
    /// Lines were left out after the last event of the piece.
    cut: bool,
    /// Losses noted after the last event of the piece.
    carry: Vec<(u16, Option<u64>)>,
    /// Whether the piece has the head that tracefs and trace-cmd print before the first event.
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

    /// Declares that the last line is complete even without a line end (pasted text).
    pub(crate) fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Declares that the input may grow after its present end.
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
                // The compressed text is damaged; what was decompressed is used.
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
        // The first piece is small so that something can be shown soon; a live stream is taken as it comes.
        let want = if self.growing { 64 << 10 } else { PIECE * threads };
        self.ended = false;
        let before = self.rest.len();
        self.fill(want.max(before + (64 << 10)))?;
        cx.advance((self.rest.len() - before) as u64)?;
        let mut end = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let mut unended = false;
        if self.ended && !self.growing && end < self.rest.len() {
            // Where the text could not be decompressed any further, its last line is cut for certain.
            if self.state.cut.is_none() {
                unended = !self.whole;
                end = self.rest.len();
            }
        } else if !self.ended && self.rest.len() - end > MAX_LINE {
            // No real line is this long.
            end = self.rest.len();
        }
        if !self.ended && !self.growing && end < self.rest.len() {
            // What follows may be the rest of the last event.
            end = last_head(&self.rest[..end]).unwrap_or(end);
        }
        let text = &self.rest[..end];
        let parts = if threads == 1 || text.len() < 128 << 10 { vec![text] } else { split(text, threads) };
        let last = parts.len().saturating_sub(1);
        let parse = |(n, part): (usize, &&[u8])| parse_piece(part, unended && n == last);
        let pieces: Vec<Piece> = parts.par_iter().enumerate().map(parse).collect();
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
    /// Appends a piece to the ones before it.
    fn take(&mut self, mut p: Piece, offset: u64, out: &mut Vec<Event>, strings: &mut Strings) {
        self.gaps.add(&p.gaps);
        self.junk += p.junk;
        self.skipped.add(std::mem::take(&mut p.skipped));
        self.mended.add(&p.mended);
        self.first_unread = self.first_unread.or(p.first_unread.map(|n| offset + n as u64));
        self.first_junk = self.first_junk.or(p.first_junk.map(|n| offset + n as u64));
        self.cut = self.cut.or(p.cut_at.map(|n| offset + n as u64));
        self.open = self.open.or(p.open_at.map(|n| offset + n as u64));
        self.likely_whole |= p.likely_whole;
        self.digits = p.digits.max(self.digits).or(self.digits);
        self.overwritten = p.overwritten.or(self.overwritten);
        self.head |= p.head;
        self.spte_access |= p.spte_access;
        self.long_page_fault = self.long_page_fault.or(p.long_page_fault);
        self.facts.append(&mut p.facts);
        if let Some(first) = p.events.first() {
            let ts = first.ts;
            if std::mem::take(&mut self.left_out) {
                self.skipped.cuts += 1;
                out.push(lost(ts, first.cpu, None));
            }
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
        self.left_out |= p.cut;
        out.append(&mut p.events);
        self.carry.append(&mut p.carry);
    }

    /// Adds the losses that were noted after the very last event.
    fn flush(&mut self, out: &mut Vec<Event>) {
        let ts = self.last_ts;
        for (cpu, count) in self.carry.drain(..) {
            out.push(lost(ts, cpu, count));
        }
    }
}

fn lost(ts: u64, cpu: u16, count: Option<u64>) -> Event {
    Event { ts, cpu, tid: None, pid: None, comm: StrId::default(), body: Body::Lost { count, event: None } }
}

/// Where the piece of a text that begins at `at` can end.
pub(crate) fn piece_end(text: &[u8], at: usize) -> usize {
    match text.get(at + PIECE..) {
        Some(rest) => pieces::next_head(rest).map_or(text.len(), |n| at + PIECE + n),
        None => text.len(),
    }
}
