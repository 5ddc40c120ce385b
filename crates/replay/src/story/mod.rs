//! The life of one guest page: what a person reads.

mod actor;
mod life;
mod naming;
mod summary;
mod words;

use mmuscope_spte::WriteLoss;
use mmuscope_trace::Trace;
use rayon::prelude::*;

use crate::keys::TableIx;
use crate::model::{
    Certainty, Entry, EntryId, EventIx, Fault, FaultId, PageStory, Reason, Shade, Span, State, StoryLine,
    TableId, VmId, ZapCause, pages_of,
};
use crate::timeline::Timeline;
use crate::zaps::zaps_of;
use actor::{Actors, Why};
use life::{Holding, Life, Near, Within};
use mmuscope_units::{duration, level_size};
use naming::Naming;
use rustc_hash::FxHashSet;
use std::cell::OnceCell;

/// What a line is about, so that those that go together become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Phase,
    Fault,
    /// A table is linked at a level, or unlinked.
    Link(u8),
    Unlink(u8),
    /// A huge page becomes a table, and what the split made of the page.
    Split,
    Child,
    Leaf,
}

/// A line that is not finished.
struct Draft {
    about: About,
    ts: u64,
    event: Option<EventIx>,
    text: String,
    /// What of it wants a reason.
    why: Why,
    shade: Option<Shade>,
    certainty: Option<Certainty>,
}

/// What happened to a page, counted.
#[derive(Default)]
struct Tally {
    mapped: u64,
    mmio: u64,
    protected: u64,
    again: u64,
    /// Of the zaps: those implied by another host page in the occupied entry.
    remapped: u64,
    /// By level.
    zapped: [u64; 7],
    untraced: bool,
    /// That it still is writable was assumed at some time.
    maybe: bool,
    held: Vec<Held>,
}

/// A stretch of time in which an entry held a leaf.
#[derive(Clone, Copy, Debug)]
struct Held {
    start: u64,
    end: u64,
    shade: Shade,
    stale: bool,
    table: TableId,
}

impl Timeline {
    /// The life of one guest page: faults, installs, write-protection, splits and zaps, with who and how long.
    pub fn page_story(&self, trace: &Trace, vm: VmId, as_id: u8, gfn: u64) -> PageStory {
        let naming = self.naming(trace, vm, &[(as_id, gfn)]).pop().unwrap_or_default();
        let near = self.faults_near(vm, &[gfn]);
        self.story_cut(trace, (vm, as_id, gfn), &naming, &near, (usize::MAX, 0)).0
    }

    /// The lives of several pages of a VM, each an address space and a frame. Each is without its middle where it has more than `most` lines:
    /// what is left are the first and the `last` ones, and beside it stands how many are left out. Who was behind a line and why, which costs
    /// most, is only looked for where the line is kept, and the events are gone through once for all pages.
    pub fn page_stories(
        &self,
        trace: &Trace,
        vm: VmId,
        pages: &[(u8, u64)],
        (most, last): (usize, usize),
    ) -> Vec<(PageStory, usize)> {
        let naming = self.naming(trace, vm, pages);
        let near = self.faults_near(vm, &pages.iter().map(|p| p.1).collect::<Vec<_>>());
        let of = |(page, naming): (&(u8, u64), Vec<Naming>)| {
            self.story_cut(trace, (vm, page.0, page.1), &naming, &near, (most, last))
        };
        pages.par_iter().zip(naming).map(of).collect()
    }

    fn story_cut(
        &self,
        trace: &Trace,
        (vm, as_id, gfn): (VmId, u8, u64),
        naming: &[Naming],
        near: &Near,
        (most, last): (usize, usize),
    ) -> (PageStory, usize) {
        let mut drafts: Vec<Draft> = Vec::new();
        // Events of a fault are part of its line.
        let mut named: FxHashSet<EventIx> = FxHashSet::default();
        let mut concern: Vec<Fault> =
            near.concerning(gfn).map(|i| self.unpack(i, self.engine.faults.get(i))).collect();
        concern.retain(|f| f.as_id == as_id && self.concerns(f, gfn));
        let faults: Vec<FaultId> = concern.iter().filter(|f| f.gfn == Some(gfn)).map(|f| f.id).collect();
        for f in &concern {
            let of_fault = |n: &&Naming| n.event.tid == Some(f.tid);
            let from = naming.partition_point(|n| n.ev < f.event);
            let to = naming.partition_point(|n| n.ev <= f.last_event);
            named.extend(naming[from..to.max(from)].iter().filter(of_fault).map(|n| n.ev));
            drafts.push(Draft {
                about: About::Fault,
                ts: f.ts,
                event: Some(f.event),
                text: words::of_fault(f, gfn),
                why: Why::Clear,
                shade: None,
                certainty: None,
            });
        }
        let mut tally = Tally::default();
        let by_event = |(i, f): (usize, &Fault)| (f.event, f.last_event, i as u32);
        let fixes = Within::new(concern.iter().enumerate().map(by_event));
        let life = Life { gfn, faults: &concern, fixes: &fixes, others: OnceCell::new() };
        let entries = self.entries_at(vm, as_id, gfn);
        let several = self.tables_at_once(&entries);
        for id in entries {
            named.extend(self.spans(id).flat_map(|s| [s.opened_by, s.closed_by]).flatten());
            let told = drafts.len();
            self.life_of(id, &life, &mut tally, &mut drafts);
            if several {
                let of = self.table_words(self.entry(id).table);
                for d in drafts[told..].iter_mut().filter(|d| d.about == About::Leaf && !of.is_empty()) {
                    d.text = format!("{of}: {}", d.text);
                }
            }
        }
        drafts.extend(naming.iter().filter(|n| !named.contains(&n.ev)).filter_map(|n| self.of_no_entry(n)));
        drafts.sort_by_key(|d| (d.ts, d.event, d.about == About::Child));
        let headline =
            self.headline(vm, as_id, gfn, faults.len(), &tally, drafts.is_empty() && naming.is_empty());
        let notes = self.notes(vm, as_id, gfn, &tally, naming);
        self.mark_phases(vm, &mut drafts);
        let mut drafts = merge(drafts);
        let left_out = drafts.len().saturating_sub(most);
        let head = drafts.len() - left_out - last.min(drafts.len());
        if left_out > 0 {
            drafts.drain(head..head + left_out);
        }
        let lines = self.finish(trace, vm, gfn, drafts);
        (PageStory { vm, as_id, gfn, headline, lines, faults, notes }, left_out)
    }

    /// The faults that may concern frames, found in one pass over all faults.
    fn faults_near(&self, vm: VmId, gfns: &[u64]) -> Near {
        let mut near = Near::of(gfns);
        for (i, p) in self.engine.faults.all().filter(|(_, p)| p.vm == vm.0) {
            if let Some(on) = near.on.get_mut(&p.gfn) {
                on.push(i);
            }
            if p.levels >> 4 > 1
                && let Some(large) = near.large.get_mut(&(p.gfn >> 18))
            {
                large.push(i);
            }
        }
        near
    }

    /// The faults on frames of one 1G page, by event, each with its number.
    fn faults_around(&self, vm: VmId, gfn: u64) -> Within {
        let near = self.engine.faults.all().filter(|(_, p)| p.vm == vm.0 && p.gfn >> 18 == gfn >> 18);
        Within::new(near.map(|(i, p)| (p.event, p.last_event, i)))
    }

    /// A fault on the frame itself, or one that mapped it as part of a huge page.
    fn concerns(&self, f: &Fault, gfn: u64) -> bool {
        let (Some(at), level) = (f.gfn, f.level.unwrap_or(1)) else { return false };
        let size = pages_of(level.min(3));
        at == gfn || level > 1 && f.entry.is_some() && at / size == gfn / size
    }

    /// All that happened to one entry that covers the frame.
    fn life_of(&self, id: EntryId, life: &Life<'_>, tally: &mut Tally, drafts: &mut Vec<Draft>) {
        let gfn = life.gfn;
        let end = self.range().1;
        let entry = self.entry(id);
        for z in zaps_of(self.store(), id.into()) {
            tally.zapped[usize::from(entry.level.min(6))] += 1;
            tally.remapped += u64::from(z.cause == ZapCause::Remapped);
        }
        let mut before: Option<Span> = None;
        // Since when the entry has held what it holds, doubts apart, and for the span before.
        let mut held = Holding::default();
        let mut spans = self.spans(id).peekable();
        while let Some(s) = spans.next() {
            let held_before = held.since;
            held.goes_on(&s);
            // What was unlinked with its table before belongs to another life.
            let follows = before.filter(|b| b.end == Some(s.start) && b.closed_by == s.opened_by);
            let torn = before.is_some() && follows.is_none();
            let leaf = matches!(s.state, State::Present | State::Mmio);
            if leaf || s.state == State::Removed && !torn {
                tally.held.push(Held {
                    start: s.start,
                    end: s.end.unwrap_or(end),
                    shade: s.shade,
                    stale: s.certainty == Certainty::Stale,
                    table: entry.table,
                });
            }
            let was = follows.map(|b| b.shade);
            match (was, s.shade) {
                // What was there before is nothing that happened.
                _ if matches!(s.reason, Reason::OldValue | Reason::Snapshot) => {}
                (w, Shade::Mmio) if w != Some(Shade::Mmio) => tally.mmio += 1,
                _ if s.state != State::Present => {}
                (Some(w), _) if w.state() != State::Present => tally.mapped += 1,
                (None, _) if s.id.is_some() => tally.mapped += 1,
                // What takes the place of another mapping takes no permission from it.
                _ if s.id.is_some_and(|x| self.store().remapped(x.into())) => {}
                // What the host made read-only is not KVM's protection.
                (Some(Shade::Writable), Shade::ReadOnly)
                    if words::loss(self, &entry, follows.as_ref(), &s) != Some(WriteLoss::Host) =>
                {
                    tally.protected += 1;
                }
                (Some(Shade::ReadOnly | Shade::AccessTracked), Shade::Writable) => tally.again += 1,
                _ => {}
            }
            let fault = s.opened_by.and_then(|ev| {
                let i = life.fixes.at(ev, |i| life.faults[i as usize].entry == Some(id))?;
                Some(life.faults[i as usize])
            });
            // A huge page is split, or makes place for a table, by a fault on any page in it.
            let splits = entry.level > 1
                && !matches!(s.state, State::Present | State::Mmio)
                && was.is_some_and(|w| w.state() == State::Present);
            let fault = fault.or_else(|| {
                let ev = s.opened_by.filter(|_| splits)?;
                let others = life.others.get_or_init(|| self.faults_around(entry.vm, gfn));
                let get = |i| self.engine.faults.get(i);
                let within = |i: u32| get(i).gfn / entry.pages() == gfn / entry.pages();
                others.at(ev, within).map(|i| self.unpack(i, get(i)))
            });
            let fault = fault.as_ref();
            let again = words::set_again(self, &entry, follows.as_ref(), &s, fault);
            if again == Some(words::Again::Protected) {
                tally.protected += 1;
                tally.again += 1;
            }
            // That it may have been write-protected since is nothing that happened to the page.
            let maybe = s.reason == Reason::MaybeProtected;
            tally.maybe |= maybe;
            let silent = s.certainty == Certainty::Stale && s.reason == Reason::SilentKernel || maybe;
            tally.untraced |= silent && !maybe;
            // That an entry of a dying table is frozen shows nothing new.
            let dying = torn && matches!(s.state, State::Nonpresent | State::Removed);
            if s.id.is_some() && s.reason != Reason::OldValue && !silent && !dying {
                // A value that a later event doubted and another confirmed is compared with what was known.
                // Doubt does not end what an entry held: durations count from when it began.
                let shown = follows.map(|b| Span { start: held_before, ..b });
                drafts.push(self.draft(&entry, shown.as_ref(), &s, gfn, fault));
            }
            let next = spans.peek();
            let since = held.since;
            drafts.extend(Self::end_with_table(&entry, &s, next, since));
            before = Some(s);
        }
    }

    /// The line of an entry's end where that is the end of its table, and no span follows; `since`: when what it holds began.
    fn end_with_table(entry: &Entry, s: &Span, next: Option<&Span>, since: u64) -> Option<Draft> {
        let (t, ev) = (s.end?, s.closed_by?);
        if matches!(s.state, State::Nonpresent | State::Removed | State::Unknown)
            || next.is_some_and(|n| n.start == t && n.opened_by == Some(ev))
        {
            return None;
        }
        let size = level_size(entry.level);
        let (about, text, why) = if s.state == State::Table {
            (About::Unlink(entry.level), String::new(), Why::Unlink(entry.level))
        } else {
            let what = if s.state == State::Mmio { "MMIO" } else { size };
            let lived = match s.reason {
                Reason::OldValue | Reason::Snapshot => String::new(),
                _ => format!(" after {}", duration(t.saturating_sub(since))),
            };
            // The event that ends it is that of its table.
            let why = Why::Unlink(entry.level + 1);
            (About::Leaf, format!("{what} entry zapped with its table{lived}"), why)
        };
        Some(Draft {
            about,
            ts: t,
            event: Some(ev),
            text,
            why,
            shade: Some(Shade::Nonpresent),
            certainty: Some(Certainty::Implied),
        })
    }

    /// Whether several tables hold a leaf for the frame at one time, so that a line must say of which it is.
    fn tables_at_once(&self, entries: &[EntryId]) -> bool {
        let end = self.range().1;
        let mut held: Vec<(u64, u64, TableId)> = Vec::new();
        for id in entries {
            let table = self.entry(*id).table;
            let leaves = self.spans(*id).filter(|s| matches!(s.state, State::Present | State::Mmio));
            held.extend(leaves.map(|s| (s.start, s.end.unwrap_or(end), table)));
        }
        held.sort_unstable();
        let mut last: Option<(u64, TableId)> = None;
        held.into_iter().any(|(start, upto, table)| {
            let meets = last.is_some_and(|(e, t)| start < e && t != table);
            if last.is_none_or(|(e, _)| e < upto) {
                last = Some((upto, table));
            }
            meets
        })
    }

    /// Which table it is, among several that hold entries of one frame.
    fn table_words(&self, id: TableId) -> String {
        let page = self.store().tables[id.into()].page;
        let at = if page == 0 { String::new() } else { format!(" at {page:#x}") };
        match self.engine.silent.was.get(&TableIx::from(id)).and_then(crate::silent::shadow::SpKey::shadows) {
            Some((gfn, role)) => {
                let access: String = [('r', role.r), ('w', role.w), ('x', role.x), ('u', role.u)]
                    .iter()
                    .filter(|a| a.1)
                    .map(|a| a.0)
                    .collect();
                format!("in the shadow page{at} of the guest's table 0x{gfn:x}, {access}")
            }
            None if page == 0 => String::new(),
            None => format!("in the page table{at}"),
        }
    }

    fn draft(
        &self,
        entry: &Entry,
        before: Option<&Span>,
        s: &Span,
        gfn: u64,
        fault: Option<&Fault>,
    ) -> Draft {
        let was = before.map(|b| b.state);
        let doubt = s.certainty == Certainty::Stale;
        let about = match (was, s.state) {
            _ if doubt => About::Leaf,
            (Some(State::Present), State::Table) => About::Split,
            (_, State::Table) => About::Link(entry.level),
            (Some(State::Table), State::Nonpresent | State::Removed) => About::Unlink(entry.level),
            (_, State::Present) if s.reason == Reason::Split => About::Child,
            _ => About::Leaf,
        };
        let gone = matches!(s.state, State::Nonpresent | State::Removed)
            && matches!(was, Some(State::Present | State::Mmio));
        let why = match (was, s.state) {
            _ if doubt => Why::Clear,
            _ if gone => Why::Zap(entry.level),
            (Some(State::Table), State::Present) => Why::Collapse,
            (Some(State::Present), State::Present) => Why::Aged,
            (Some(State::Present), State::Table) => Why::Split,
            _ if matches!(about, About::Unlink(_)) => Why::Unlink(entry.level),
            _ => Why::Clear,
        };
        Draft {
            about,
            ts: s.start,
            event: s.opened_by,
            text: words::of_change(self, entry, before, s, gfn, fault),
            why,
            shade: Some(s.shade),
            certainty: Some(s.certainty),
        }
    }

    /// Puts the markers before what happened after them.
    fn mark_phases(&self, vm: VmId, drafts: &mut Vec<Draft>) {
        let mut marks = Vec::new();
        let mut d = 0;
        for p in self.phases().iter().filter(|p| p.vm.is_none_or(|v| v == vm)) {
            while drafts.get(d).is_some_and(|x| (x.ts, x.event) < (p.start, Some(p.event))) {
                d += 1;
            }
            if drafts.get(d).is_some_and(|x| x.ts < p.end || p.end == self.range().1) {
                marks.push(Draft {
                    about: About::Phase,
                    ts: p.start,
                    event: Some(p.event),
                    text: format!("phase {}", p.text),
                    why: Why::Clear,
                    shade: None,
                    certainty: None,
                });
            }
        }
        drafts.extend(marks);
        drafts.sort_by_key(|d| (d.ts, d.event, d.about == About::Child));
    }

    fn finish(&self, trace: &Trace, vm: VmId, gfn: u64, drafts: Vec<Draft>) -> Vec<StoryLine> {
        let mut actors = Actors::new(self, trace, vm);
        drafts
            .into_iter()
            .map(|d| {
                let actor = actors.of(d.event, d.why, gfn);
                let mut text = d.text;
                if let Some(cause) = actor.cause {
                    // What it was for comes before the value.
                    let at = text.find("; spte ").unwrap_or(text.len());
                    text.insert_str(at, &format!(", {cause}"));
                }
                StoryLine {
                    ts: d.ts,
                    event: d.event,
                    who: actor.who,
                    text,
                    shade: d.shade,
                    certainty: d.certainty,
                }
            })
            .collect()
    }

    /// An event that is no part of any entry's life that is known, nor of a fault.
    fn of_no_entry(&self, n: &Naming) -> Option<Draft> {
        Some(Draft {
            about: About::Leaf,
            ts: n.event.ts,
            event: Some(n.ev),
            text: naming::of_event(&self.counts_as(n.ev, n.event).body)?,
            why: Why::Clear,
            shade: None,
            certainty: None,
        })
    }
}

/// Tables that are linked or unlinked one after another are one line; a split and what it made of the page too.
fn merge(drafts: Vec<Draft>) -> Vec<Draft> {
    let mut out: Vec<(Draft, Vec<u8>)> = Vec::new();
    for d in drafts {
        let level = match d.about {
            About::Link(l) | About::Unlink(l) => Some(l),
            _ => None,
        };
        if let Some((l, levels)) = out.last_mut() {
            let alike = std::mem::discriminant(&l.about) == std::mem::discriminant(&d.about);
            match (level, d.about) {
                (Some(level), _) if alike => {
                    if !levels.contains(&level) {
                        levels.push(level);
                    }
                    continue;
                }
                (_, About::Child) if l.about == About::Split && l.event == d.event => {
                    l.text = format!("{}; {}", l.text.split("; spte").next().unwrap_or(""), d.text);
                    (l.shade, l.certainty) = (d.shade, d.certainty);
                    continue;
                }
                // Up to 5.12 one event shows that an MMIO entry was installed, and the next its value.
                _ if l.shade == Some(Shade::Mmio)
                    && d.shade == Some(Shade::Mmio)
                    && l.why == d.why
                    && !d.text.starts_with(words::READ) =>
                {
                    (l.text, l.certainty) = (d.text, d.certainty);
                    continue;
                }
                _ => {}
            }
        }
        out.push((d, level.into_iter().collect()));
    }
    out.into_iter()
        .map(|(mut d, mut levels)| {
            levels.sort_unstable_by(|a, b| b.cmp(a));
            let at: Vec<&str> = levels.iter().map(|l| level_size(*l)).collect();
            let at = match at.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} and {last} levels", rest.join(", ")),
                _ => format!("{} level", at.join("")),
            };
            let tables = if levels.len() > 1 { "tables are" } else { "a table is" };
            match d.about {
                About::Link(_) => d.text = format!("{tables} linked at the {at}"),
                About::Unlink(_) => d.text = format!("{tables} unlinked at the {at}"),
                _ => {}
            }
            d
        })
        .collect()
}
