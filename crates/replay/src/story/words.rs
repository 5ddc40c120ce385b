//! The sentences of a page's life.

use mmuscope_spte::State as SpteState;

use super::{human_ns, level_size};
use crate::model::{Certainty, Entry, Fault, Outcome, Reason, Shade, Span, State, pages_of};
use crate::timeline::Timeline;

/// A fault on a page: what for, from where, how it ended and how long it took.
pub(super) fn of_fault(f: &Fault, gfn: u64) -> String {
    let mut s = match f.access.name() {
        "unknown" if f.mmio => "access".to_owned(),
        "unknown" => "fault".to_owned(),
        a => format!("{a} fault"),
    };
    if f.mmio {
        s = format!("MMIO {s}");
    }
    if let Some(g) = f.gfn.filter(|g| *g != gfn) {
        s.push_str(&format!(" on {g:#x} of the same {} page", f.level.map_or("?", level_size)));
    } else if f.access.present == Some(true) && !f.mmio {
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
    if f.retries > 0 {
        s.push_str(&format!(", try {}", f.retries + 1));
    }
    match (f.duration(), f.outcome) {
        (Some(d), _) => s.push_str(&format!(", took {}", human_ns(d))),
        (None, Outcome::Unfinished) => s.push_str(", no end in the trace"),
        (None, _) => {}
    }
    s
}

/// What became of an entry, for a reader who knows what it was before: `before` is the span that ended when `s` began.
pub(super) fn of_change(t: &Timeline, e: &Entry, before: Option<&Span>, s: &Span, gfn: u64) -> String {
    let size = level_size(e.level);
    let l = &t.layout(e.vm).layout;
    let after = before
        .filter(|b| b.id.is_some())
        .map(|b| format!(" after {}", human_ns(s.start.saturating_sub(b.start))))
        .unwrap_or_default();
    if s.certainty == Certainty::Stale {
        return format!("from here on unverified: {}", s.reason.words());
    }
    let text = match (before.map(|b| b.state), s.state, s.reason) {
        (_, State::Present, Reason::Split) => {
            format!("mapped by a {size} page out of a split huge page")
        }
        (Some(State::Present), State::Present, _) => {
            before.map_or_else(String::new, |b| between_leaves(t, e, b, s, &after))
        }
        (b, State::Present, _) => {
            let pfn = s
                .spte
                .filter(|v| matches!(l.state(*v, e.level), SpteState::Present))
                .and_then(|v| l.decode(v, e.level).pfn);
            let access = access(s.shade);
            let of = if e.level > 1 {
                format!(" (page {} of {} in it)", gfn.saturating_sub(e.gfn), pages_of(e.level))
            } else {
                String::new()
            };
            let place = if b == Some(State::Table) { " in place of its table" } else { "" };
            let frame = pfn.map(|p| format!(", host frame {p:#x}")).unwrap_or_default();
            format!("mapped {access} by a {size} page{place}{of}{frame}")
        }
        (Some(State::Mmio), State::Mmio, _) => format!("MMIO entry made anew{after}"),
        (_, State::Mmio, _) => "MMIO entry installed: accesses are emulated from now on".to_owned(),
        (Some(State::Present), State::Table, _) => format!("the {size} page is split into a table{after}"),
        (_, State::Table, _) => format!("a table is linked at the {size} level"),
        (Some(State::Table), State::Nonpresent | State::Removed, _) => {
            format!("the table at the {size} level is unlinked{after}")
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
    match s.spte {
        Some(v) => format!("{text}; spte {v:#x}"),
        None => text,
    }
}

fn access(shade: Shade) -> &'static str {
    match shade {
        Shade::Writable => "writable",
        Shade::AccessTracked => "access-tracked",
        _ => "read-only",
    }
}

/// A leaf that stays one.
fn between_leaves(t: &Timeline, e: &Entry, b: &Span, s: &Span, after: &str) -> String {
    let size = level_size(e.level);
    let l = &t.layout(e.vm).layout;
    let (was, is) = (b.spte.map(|v| l.decode(v, e.level)), s.spte.map(|v| l.decode(v, e.level)));
    let pfns = was.and_then(|d| d.pfn).zip(is.and_then(|d| d.pfn));
    if let Some((was, is)) = pfns.filter(|(a, b)| a != b) {
        return format!(
            "{size} entry maps another host frame, {is:#x} instead of {was:#x}, {}{after}: it was zapped in between",
            access(s.shade)
        );
    }
    if b.spte == s.spte && b.spte.is_some() {
        return if b.certainty == Certainty::Stale {
            format!(
                "{size} entry set to the same value again{after}: it had been write-protected or zapped in between, which this MMU does not trace"
            )
        } else {
            format!("{size} entry confirmed{after}")
        };
    }
    match (b.shade, s.shade) {
        (Shade::Writable, Shade::ReadOnly) => {
            // MMU-writable goes with W where the fast path must not give it back.
            let why = match is.and_then(|d| d.mmu_writable) {
                Some(true) => " to log writes",
                Some(false) => " as a page table of the guest (or to track its writes)",
                None => "",
            };
            format!("{size} entry write-protected{why}{after}")
        }
        (Shade::ReadOnly | Shade::AccessTracked, Shade::Writable) => {
            format!("{size} entry made writable again{after}")
        }
        (_, Shade::AccessTracked) => {
            format!("{size} entry made access-tracked{after}: permissions taken away to see the next access")
        }
        (Shade::AccessTracked, _) => format!("{size} entry's permissions given back{after}"),
        _ => {
            let diff = b.spte.zip(s.spte).map_or(0, |(a, b)| a ^ b);
            let (a, d) = (l.masks.accessed_mask, l.masks.dirty_mask);
            if diff != 0 && diff & !(a | d) == 0 {
                let what = match (diff & a != 0, diff & d != 0) {
                    (true, true) => "Accessed and Dirty",
                    (true, false) => "Accessed",
                    _ => "Dirty",
                };
                let how = if s.spte.is_some_and(|v| v & diff == 0) { "cleared" } else { "set" };
                format!("{what} of the {size} entry {how}{after}")
            } else {
                format!("{size} entry changed{after}")
            }
        }
    }
}
