//! The life of one guest page, and guest memory as ranges: what a person reads.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::Trace;

use crate::model::{
    Certainty, Entry, EntryId, Fault, FaultId, MemoryKind, MemoryRange, PageStory, Reason, Shade, Span,
    State, StateFilter, StoryLine, VmId, pages_of,
};
use crate::timeline::Timeline;

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

impl Timeline {
    /// The life of one guest page: faults, installs, write-protection, splits and zaps, with who and how long.
    pub fn page_story(&self, trace: &Trace, vm: VmId, as_id: u8, gfn: u64) -> PageStory {
        let (origin, end) = self.range();
        let mut lines: Vec<StoryLine> = Vec::new();
        let mut faults: Vec<FaultId> = Vec::new();
        let mut cursor = trace.events.cursor();
        let mut who = |ev: Option<u32>| -> String {
            let Some(e) = ev.and_then(|ev| cursor.get(ev as usize)) else { return String::new() };
            let comm = trace.strings.get(e.comm);
            let task = match e.tid {
                Some(t) if comm.is_empty() => format!("task {t}"),
                Some(t) => format!("{comm}-{t}"),
                None => comm.to_owned(),
            };
            match e.tid.and_then(|t| self.engine.vms.vcpu_of.get(&t)) {
                Some(v) => format!("vCPU {v} ({task})"),
                None => task,
            }
        };
        for f in self.faults().filter(|f| f.vm == vm && f.gfn.is_some_and(|g| g == gfn) && f.as_id == as_id) {
            faults.push(f.id);
            lines.push(StoryLine {
                ts: f.ts,
                event: Some(f.event),
                who: who(Some(f.event)),
                text: self.fault_words(&f),
                shade: None,
                certainty: None,
            });
        }
        let mut held = [0u64; 8];
        let mut writes = 0u32;
        let mut zaps = 0u32;
        for id in self.entries_at(vm, as_id, gfn) {
            let entry = self.entry(id);
            let mut before: Option<Span> = None;
            for s in self.spans(id) {
                if entry.level == 1 || s.state != State::Table {
                    held[s.shade as usize] += s.end.unwrap_or(end).saturating_sub(s.start);
                }
                if s.shade == Shade::Writable {
                    writes += 1;
                }
                if before.is_some_and(|b| b.state == State::Present)
                    && matches!(s.state, State::Nonpresent | State::Removed)
                {
                    zaps += 1;
                }
                if s.id.is_some() {
                    let text = self.change_words(&entry, before.as_ref(), &s, gfn);
                    lines.push(StoryLine {
                        ts: s.start,
                        event: s.opened_by,
                        who: who(s.opened_by),
                        text,
                        shade: Some(s.shade),
                        certainty: Some(s.certainty),
                    });
                }
                before = Some(s);
            }
            if let Some(s) = before
                && let (Some(t), Some(ev)) = (s.end, s.closed_by)
                && s.state != State::Nonpresent
            {
                let text = match s.state {
                    State::Removed => format!(
                        "its {} table's memory is freed: the removed entry ends with it",
                        level_size(entry.level)
                    ),
                    _ => format!(
                        "the table that held its {} {} entry is unlinked, after {}",
                        level_size(entry.level),
                        s.state.name(),
                        human_ns(t - s.start)
                    ),
                };
                lines.push(StoryLine {
                    ts: t,
                    event: Some(ev),
                    who: who(Some(ev)),
                    text,
                    shade: Some(Shade::Nonpresent),
                    certainty: Some(Certainty::Implied),
                });
            }
        }
        // MMIO accesses to the page, the first and the last of them.
        let mmio: Vec<_> = self
            .mmio_ranges()
            .iter()
            .filter(|r| r.vm == vm && r.gfn_start <= gfn && gfn < r.gfn_end)
            .collect();
        lines.sort_by_key(|l| (l.ts, l.event));
        let mut notes = Vec::new();
        let total = end.saturating_sub(origin).max(1);
        for s in [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed] {
            let t = held[s as usize];
            if t > 0 {
                notes.push(format!(
                    "{}: {} in all, {:.1} % of the trace",
                    s.name(),
                    human_ns(t),
                    t as f64 * 100.0 / total as f64
                ));
            }
        }
        for r in mmio {
            notes.push(format!(
                "part of the MMIO range {:#x}..{:#x}: {} accesses, {} MMIO entries installed",
                r.gfn_start, r.gfn_end, r.accesses, r.installs
            ));
        }
        if lines.is_empty() {
            notes.push("no event names this page".to_owned());
        }
        let now = self
            .entries_at(vm, as_id, gfn)
            .into_iter()
            .filter_map(|id| self.span_at(id, end).map(|s| (self.entry(id), s)))
            .filter(|(e, s)| s.state != State::Table && (s.state != State::Nonpresent || e.level <= 2))
            .min_by_key(|(e, s)| (matches!(s.state, State::Nonpresent | State::Unknown), e.level));
        let headline = match now {
            Some((_, s)) if s.state == State::Mmio => {
                let r =
                    self.mmio_ranges().iter().find(|r| r.vm == vm && r.gfn_start <= gfn && gfn < r.gfn_end);
                format!(
                    "gfn {gfn:#x}: MMIO, {} fault{}{} ({})",
                    faults.len(),
                    plural(faults.len() as u64),
                    r.map(|r| format!(", in a range with {} accesses", r.accesses)).unwrap_or_default(),
                    s.certainty.name()
                )
            }
            Some((e, s)) => format!(
                "gfn {gfn:#x}: {} fault{}, made writable {writes} time{}, zapped {zaps} time{}; at the end {}{} ({})",
                faults.len(),
                plural(faults.len() as u64),
                plural(u64::from(writes)),
                plural(u64::from(zaps)),
                s.shade.name(),
                if e.level > 1 {
                    format!(" as part of a {} page", level_size(e.level))
                } else {
                    String::new()
                },
                s.certainty.name()
            ),
            None if lines.is_empty() => format!("gfn {gfn:#x}: never seen"),
            None => format!(
                "gfn {gfn:#x}: {} fault{}; no entry covers it at the end",
                faults.len(),
                plural(faults.len() as u64)
            ),
        };
        PageStory { vm, as_id, gfn, headline, lines, faults, notes }
    }

    fn fault_words(&self, f: &Fault) -> String {
        let mut s = format!("{} fault", f.access.name());
        if f.access.name() == "unknown" {
            "fault".clone_into(&mut s);
        }
        if f.mmio {
            s = format!("MMIO {s}");
        }
        if f.access.present == Some(true) && !f.mmio {
            s.push_str(" on a present entry");
        }
        if let Some(rip) = f.rip.filter(|r| *r != 0) {
            s.push_str(&format!(" at rip {rip:#x}"));
        }
        s.push_str(&format!(": {}", f.outcome.name()));
        match (f.level_wanted, f.level) {
            (Some(w), Some(g)) if w != g => {
                s.push_str(&format!(", wanted {}, got {}", level_size(w), level_size(g)))
            }
            (_, Some(g)) => s.push_str(&format!(", {}", level_size(g))),
            _ => {}
        }
        if let Some(p) = f.pfn {
            s.push_str(&format!(", host frame {p:#x}"));
        }
        if f.retries > 0 {
            s.push_str(&format!(", try {}", f.retries + 1));
        }
        match f.duration() {
            Some(d) => s.push_str(&format!(", took {}", human_ns(d))),
            None => s.push_str(", no end in the trace"),
        }
        s
    }

    fn change_words(&self, e: &Entry, before: Option<&Span>, s: &Span, gfn: u64) -> String {
        let size = level_size(e.level);
        let l = &self.layout(e.vm).layout;
        let after = before
            .filter(|b| b.id.is_some())
            .map(|b| format!(" after {}", human_ns(s.start.saturating_sub(b.start))))
            .unwrap_or_default();
        let pfn = s
            .spte
            .filter(|v| matches!(l.state(*v, e.level), SpteState::Present))
            .and_then(|v| l.decode(v, e.level).pfn);
        let of = if e.level > 1 && matches!(s.state, State::Present) {
            format!(" (page {} of {} in it)", gfn - e.gfn, pages_of(e.level))
        } else {
            String::new()
        };
        let b_state = before.map(|b| b.state);
        let text = match (b_state, s.state, s.reason) {
            (_, State::Present, Reason::Split) => format!("mapped by a {size} page out of a split huge page"),
            (Some(State::Present), State::Present, _) if s.certainty == Certainty::Stale => String::new(),
            (_, _, r) if s.certainty == Certainty::Stale => format!("from here on unverified: {}", r.words()),
            (Some(State::Present), State::Present, _) => match (before.map(|b| b.shade), s.shade) {
                (Some(Shade::Writable), Shade::ReadOnly) => format!("{size} entry write-protected{after}"),
                (Some(Shade::ReadOnly | Shade::AccessTracked), Shade::Writable) => {
                    format!("{size} entry made writable again{after}")
                }
                (_, Shade::AccessTracked) => {
                    format!("{size} entry made access-tracked: permissions taken away to see the next access")
                }
                (Some(Shade::AccessTracked), _) => format!("{size} entry's permissions given back{after}"),
                _ => {
                    let diff = before.and_then(|b| b.spte).zip(s.spte).map_or(0, |(a, b)| a ^ b);
                    let a = l.masks.accessed_mask;
                    let d = l.masks.dirty_mask;
                    if diff != 0 && diff & !(a | d) == 0 {
                        let what = match (diff & a != 0, diff & d != 0) {
                            (true, true) => "Accessed and Dirty",
                            (true, false) => "Accessed",
                            _ => "Dirty",
                        };
                        format!("{what} of the {size} entry cleared or set by KVM")
                    } else {
                        format!("{size} entry changed")
                    }
                }
            },
            (_, State::Present, _) => {
                let access = if s.shade == Shade::Writable { "writable" } else { "read-only" };
                format!(
                    "mapped {access} by a {size} page{of}{}",
                    pfn.map(|p| format!(", host frame {p:#x}")).unwrap_or_default()
                )
            }
            (_, State::Mmio, _) => "MMIO entry installed: accesses are emulated from now on".to_owned(),
            (Some(State::Present), State::Table, _) => {
                format!("the {size} page is split into a table{after}")
            }
            (_, State::Table, _) => format!("a table is linked at the {size} level"),
            (Some(State::Table), State::Nonpresent | State::Removed, _) => {
                format!("the {size}-level table is unlinked{after}")
            }
            (Some(State::Present), State::Nonpresent, _) => format!("{size} entry zapped{after}"),
            (Some(State::Present), State::Removed, _) => format!("{size} entry zapped (removed){after}"),
            (Some(State::Mmio), State::Nonpresent | State::Removed, _) => format!("MMIO entry zapped{after}"),
            (_, State::Removed, _) => format!("{size} entry removed"),
            (Some(State::Removed), State::Nonpresent, r) => {
                format!("{size} entry empty again{after} ({})", r.words())
            }
            (_, State::Nonpresent, _) => format!("{size} entry empty"),
            (_, State::Unknown, _) => "not known from here on".to_owned(),
        };
        let text =
            if text.is_empty() { format!("from here on unverified: {}", s.reason.words()) } else { text };
        match (s.certainty, s.spte) {
            (Certainty::Stale, _) => text,
            (_, Some(v)) => format!("{text}; spte {v:#x}"),
            _ => text,
        }
    }

    /// Guest memory as ranges: RAM by size and permission, MMIO, what was mapped and is not now.
    pub fn memory(&self, vm: VmId) -> Vec<MemoryRange> {
        let end = self.range().1;
        let mut v: Vec<(Entry, Span, MemoryKind)> = self
            .at(end, &StateFilter { vm: Some(vm), ..StateFilter::default() })
            .iter()
            .filter_map(|(e, s)| match s.state {
                State::Present => Some((e, s, MemoryKind::Ram)),
                State::Mmio => Some((e, s, MemoryKind::Mmio)),
                _ => None,
            })
            .collect();
        let now: rustc_hash::FxHashSet<EntryId> = v.iter().map(|x| x.0.id).collect();
        // What mapped something once and does not now.
        for e in self.entries().filter(|e| e.vm == vm && !now.contains(&e.id)) {
            let last = self.spans(e.id).filter(|s| matches!(s.state, State::Present | State::Mmio)).last();
            if let Some(s) = last {
                v.push((e, s, MemoryKind::Gone));
            }
        }
        v.sort_by_key(|(e, _, k)| (e.as_id, e.gfn, *k == MemoryKind::Gone, e.level));
        let devices: rustc_hash::FxHashSet<u64> =
            self.mmio_ranges().iter().filter(|r| r.vm == vm).map(|r| r.gfn_start).collect();
        let mut out: Vec<MemoryRange> = Vec::new();
        let mut slot = 0;
        for (e, s, kind) in v {
            let e_end = e.gfn.saturating_add(pages_of(e.level));
            if let Some(l) = out.last_mut()
                && l.as_id == e.as_id
                && l.gfn_end > e.gfn
                && kind == MemoryKind::Gone
            {
                continue;
            }
            match out.last_mut() {
                Some(l)
                    if l.as_id == e.as_id
                        && l.gfn_end == e.gfn
                        && l.kind == kind
                        && l.level == e.level
                        && l.shade == s.shade
                        // Devices side by side are told apart by how they are used.
                        && !(s.shade == Shade::Mmio && devices.contains(&e.gfn)) =>
                {
                    l.gfn_end = e_end;
                    l.entries += 1;
                    l.certainty = l.certainty.max(s.certainty);
                }
                last => {
                    // A new memslot is likely where frames jump: ranges that touch belong to one.
                    let touches = last.as_ref().is_some_and(|l| {
                        l.as_id == e.as_id
                            && e.gfn.saturating_sub(l.gfn_end) < 0x100
                            && (l.kind == MemoryKind::Mmio) == (kind == MemoryKind::Mmio)
                    });
                    if !touches {
                        slot += 1;
                    }
                    out.push(MemoryRange {
                        vm,
                        as_id: e.as_id,
                        gfn_start: e.gfn,
                        gfn_end: e_end,
                        kind,
                        level: e.level,
                        shade: s.shade,
                        certainty: s.certainty,
                        entries: 1,
                        slot,
                    });
                }
            }
        }
        out
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}
