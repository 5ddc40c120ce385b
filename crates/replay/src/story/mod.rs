//! The life of one guest page: what a person reads.

mod actor;
mod words;

use mmuscope_trace::Trace;

use crate::model::{
    Certainty, Entry, EntryId, EventIx, Fault, FaultId, PageStory, Reason, Shade, Span, State, StoryLine,
    VmId, pages_of,
};
use crate::series::zaps_of;
use crate::timeline::Timeline;
use actor::Actors;

/// Nanoseconds for people: `850 ns`, `12.3 µs`, `4.56 ms`, `7.8 s`.
pub fn human_ns(ns: u64) -> String {
    let f = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", f / 1e6),
        1_000_000_000..120_000_000_000 => format!("{:.2} s", f / 1e9),
        _ => format!("{:.1} min", f / 6e10),
    }
}

/// What an entry of a level maps: `4K` (level 1), `2M`, `1G`, `512G`, `256T` (level 5); `?` for what is no level.
pub fn level_size(level: u8) -> &'static str {
    match level {
        1 => "4K",
        2 => "2M",
        3 => "1G",
        4 => "512G",
        5 => "256T",
        _ => "?",
    }
}

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
    /// The thread's own business: what it did it for is worth telling.
    caused: bool,
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
    /// By level.
    zapped: [u64; 7],
    untraced: bool,
    /// When each shade was held.
    held: [Vec<(u64, u64)>; 8],
}

impl Timeline {
    /// The life of one guest page: faults, installs, write-protection, splits and zaps, with who and how long.
    pub fn page_story(&self, trace: &Trace, vm: VmId, as_id: u8, gfn: u64) -> PageStory {
        let mut drafts: Vec<Draft> = Vec::new();
        let mut faults: Vec<FaultId> = Vec::new();
        for f in self.faults().filter(|f| f.vm == vm && f.as_id == as_id && self.concerns(f, gfn)) {
            if f.gfn == Some(gfn) {
                faults.push(f.id);
            }
            drafts.push(Draft {
                about: About::Fault,
                ts: f.ts,
                event: Some(f.event),
                text: words::of_fault(&f, gfn),
                caused: false,
                shade: None,
                certainty: None,
            });
        }
        let mut tally = Tally::default();
        for id in self.entries_at(vm, as_id, gfn) {
            self.life_of(id, gfn, &mut tally, &mut drafts);
        }
        drafts.sort_by_key(|d| (d.ts, d.event, d.about == About::Child));
        let headline = self.headline(vm, as_id, gfn, faults.len(), &tally, drafts.is_empty());
        let notes = self.notes(vm, gfn, &tally, drafts.is_empty());
        self.mark_phases(&mut drafts);
        let lines = self.finish(trace, gfn, merge(drafts));
        PageStory { vm, as_id, gfn, headline, lines, faults, notes }
    }

    /// A fault on the frame itself, or one that mapped it as part of a huge page.
    fn concerns(&self, f: &Fault, gfn: u64) -> bool {
        let (Some(at), level) = (f.gfn, f.level.unwrap_or(1)) else { return false };
        let size = pages_of(level.min(3));
        at == gfn || level > 1 && f.entry.is_some() && at / size == gfn / size
    }

    /// All that happened to one entry that covers the frame.
    fn life_of(&self, id: EntryId, gfn: u64, tally: &mut Tally, drafts: &mut Vec<Draft>) {
        let end = self.range().1;
        let entry = self.entry(id);
        let size = level_size(entry.level);
        tally.zapped[usize::from(entry.level.min(6))] += zaps_of(self.store(), id.0).count() as u64;
        let mut before: Option<Span> = None;
        let mut spans = self.spans(id).peekable();
        while let Some(s) = spans.next() {
            // What was unlinked with its table before belongs to another life.
            let follows = before.filter(|b| b.end == Some(s.start) && b.closed_by == s.opened_by);
            let torn = before.is_some() && follows.is_none();
            let leaf = matches!(s.state, State::Present | State::Mmio);
            if leaf || s.state == State::Removed && !torn {
                tally.held[s.shade as usize].push((s.start, s.end.unwrap_or(end)));
            }
            let was = follows.map(|b| b.shade);
            match (was, s.shade) {
                (w, Shade::Mmio) if w != Some(Shade::Mmio) => tally.mmio += 1,
                _ if s.state != State::Present => {}
                (Some(w), _) if w.state() != State::Present => tally.mapped += 1,
                (None, _) if s.id.is_some() => tally.mapped += 1,
                (Some(Shade::Writable), Shade::ReadOnly) => tally.protected += 1,
                (Some(Shade::ReadOnly | Shade::AccessTracked), Shade::Writable) => tally.again += 1,
                _ => {}
            }
            let silent = s.certainty == Certainty::Stale && s.reason == Reason::SilentKernel;
            tally.untraced |= silent;
            // That an entry of a dying table is frozen tells nothing new.
            let dying = torn && matches!(s.state, State::Nonpresent | State::Removed);
            if s.id.is_some() && !silent && !dying {
                // A value that a later event doubted and another confirmed is compared with what was known.
                drafts.push(self.draft(&entry, follows.as_ref(), &s, gfn));
            }
            let next = spans.peek();
            if let (Some(t), Some(ev)) = (s.end, s.closed_by)
                && s.state != State::Nonpresent
                && s.state != State::Removed
                && s.state != State::Unknown
                && next.is_none_or(|n| n.start != t || n.opened_by != Some(ev))
            {
                let (about, text) = if s.state == State::Table {
                    (About::Unlink(entry.level), String::new())
                } else {
                    let what = if s.state == State::Mmio { "MMIO" } else { size };
                    let lived = human_ns(t - self.since(id, &s));
                    (About::Leaf, format!("{what} entry zapped with its table after {lived}"))
                };
                drafts.push(Draft {
                    about,
                    ts: t,
                    event: Some(ev),
                    text,
                    caused: true,
                    shade: Some(Shade::Nonpresent),
                    certainty: Some(Certainty::Implied),
                });
            }
            before = Some(s);
        }
    }

    /// When an entry began to hold what it holds, doubts since then apart.
    fn since(&self, id: EntryId, s: &Span) -> u64 {
        let mut start = s.start;
        let mut same = None;
        for x in self.spans(id).take_while(|x| x.start <= s.start) {
            let doubted = x.certainty == Certainty::Stale && same.is_some_and(|v| v == (x.spte, x.state));
            if !doubted {
                start = x.start;
            }
            same = Some((x.spte, x.state));
        }
        start
    }

    fn draft(&self, entry: &Entry, before: Option<&Span>, s: &Span, gfn: u64) -> Draft {
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
        // Doubt does not end what an entry held: durations count from when it began.
        let shown = before.map(|b| Span { start: self.since(b.entry, b), ..*b });
        let gone = matches!(s.state, State::Nonpresent | State::Removed)
            && matches!(was, Some(State::Present | State::Mmio));
        let lost_w = was == Some(State::Present) && s.state == State::Present;
        Draft {
            about,
            ts: s.start,
            event: s.opened_by,
            text: words::of_change(self, entry, shown.as_ref(), s, gfn),
            caused: !doubt && (gone || lost_w || matches!(about, About::Unlink(_))),
            shade: Some(s.shade),
            certainty: Some(s.certainty),
        }
    }

    /// Puts the markers before what happened after them.
    fn mark_phases(&self, drafts: &mut Vec<Draft>) {
        let mut marks = Vec::new();
        let mut d = 0;
        for p in self.phases() {
            while drafts.get(d).is_some_and(|x| (x.ts, x.event) < (p.start, Some(p.event))) {
                d += 1;
            }
            if drafts.get(d).is_some_and(|x| x.ts < p.end || p.end == self.range().1) {
                marks.push(Draft {
                    about: About::Phase,
                    ts: p.start,
                    event: Some(p.event),
                    text: format!("phase {}", p.text),
                    caused: false,
                    shade: None,
                    certainty: None,
                });
            }
        }
        drafts.extend(marks);
        drafts.sort_by_key(|d| (d.ts, d.event, d.about == About::Child));
    }

    fn finish(&self, trace: &Trace, gfn: u64, drafts: Vec<Draft>) -> Vec<StoryLine> {
        let mut actors = Actors::new(self, trace);
        drafts
            .into_iter()
            .map(|d| {
                let actor = actors.of(d.event);
                let mut text = d.text;
                let fault = actor.fault.filter(|f| *f != gfn).map(|f| format!("by the fault on {f:#x}"));
                if d.caused
                    && let Some(cause) = actor.cause.or(fault)
                {
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

    fn headline(&self, vm: VmId, as_id: u8, gfn: u64, faults: usize, tally: &Tally, silent: bool) -> String {
        if silent {
            return format!("gfn {gfn:#x}: never seen");
        }
        let end = self.range().1;
        let now = self
            .entries_at(vm, as_id, gfn)
            .into_iter()
            .filter_map(|id| self.span_at(id, end).map(|s| (self.entry(id), s)))
            .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio | State::Removed))
            .max_by_key(|(e, s)| (s.state != State::Removed, s.start, std::cmp::Reverse(e.level)));
        let mut parts = vec![format!("{faults} fault{}", plural(faults as u64))];
        for (n, what) in [
            (tally.mapped, "mapped"),
            (tally.mmio, "MMIO entry installed"),
            (tally.protected, "write-protected"),
            (tally.again, "made writable again"),
        ] {
            if n > 0 {
                parts.push(format!("{what} {}", times(n)));
            }
        }
        let levels: Vec<(usize, u64)> =
            tally.zapped.iter().copied().enumerate().filter(|(_, n)| *n > 0).collect();
        if !levels.is_empty() {
            let mut text = format!("zapped {}", times(levels.iter().map(|(_, n)| n).sum()));
            if levels.len() > 1 {
                let each: Vec<String> =
                    levels.iter().map(|(l, n)| format!("{} {}", level_size(*l as u8), times(*n))).collect();
                text.push_str(&format!(" (as {})", each.join(", as ")));
            }
            parts.push(text);
        }
        let end = match now {
            Some((e, s)) => {
                let of = if e.level > 1 && s.state == State::Present {
                    format!(" as part of a {} page", level_size(e.level))
                } else {
                    String::new()
                };
                format!("{}{of} ({})", s.shade.name(), s.certainty.name())
            }
            None => "not mapped".to_owned(),
        };
        format!("gfn {gfn:#x}: {}; at the end {end}", parts.join(", "))
    }

    fn notes(&self, vm: VmId, gfn: u64, tally: &Tally, silent: bool) -> Vec<String> {
        let (origin, end) = self.range();
        let total = end.saturating_sub(origin).max(1);
        let mut notes = Vec::new();
        for s in [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed] {
            let t = covered(&tally.held[s as usize]);
            if t > 0 {
                let share = t as f64 * 100.0 / total as f64;
                notes.push(format!("{}: {} in all, {share:.1} % of the trace", s.name(), human_ns(t)));
            }
        }
        for r in self.mmio_ranges().iter().filter(|r| r.vm == vm && r.gfn_start <= gfn && gfn < r.gfn_end) {
            let accesses = r.accesses.map_or("accesses not recorded".to_owned(), |n| format!("{n} accesses"));
            notes.push(format!(
                "part of the MMIO range {:#x}..{:#x}: {accesses}, {} MMIO faults, {} MMIO entries installed",
                r.gfn_start, r.gfn_end, r.faults, r.installs
            ));
        }
        if tally.untraced {
            notes.push(
                "this MMU does not trace zaps, write-protection and aging: after each line the entry is unverified until the next"
                    .to_owned(),
            );
        }
        if silent {
            notes.push("no event names this page".to_owned());
        }
        notes
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
                // Up to 5.12 one event tells that an MMIO entry was installed, and the next its value.
                _ if l.shade == Some(Shade::Mmio) && d.shade == Some(Shade::Mmio) && l.caused == d.caused => {
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

/// How much time stretches cover together.
fn covered(stretches: &[(u64, u64)]) -> u64 {
    let mut v = stretches.to_vec();
    v.sort_unstable();
    let (mut sum, mut upto) = (0, 0);
    for (a, b) in v {
        sum += b.saturating_sub(a.max(upto));
        upto = upto.max(b);
    }
    sum
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}
