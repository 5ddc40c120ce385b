//! The sentences of a page's life.

use mmuscope_spte::{Decoded, State as SpteState, WriteLoss, write_loss};

use crate::model::{Certainty, Entry, Fault, Outcome, Reason, Shade, Span, State, pages_of};
use crate::timeline::Timeline;
use mmuscope_units::{duration, level_size};

/// How a line begins that says what a snapshot of KVM's memory showed.
pub(super) const READ: &str = "the recorder read KVM's memory";

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
        (Some(d), _) => s.push_str(&format!(", took {}", duration(d))),
        (None, Outcome::Unfinished) => s.push_str(", no end in the trace"),
        (None, _) => {}
    }
    s
}

/// What an MMU that does not trace its zaps must have done to an entry before it was set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Write-protected: the fault that set it found it present, and was for a write.
    Protected,
    /// Zapped: the fault found it not present, or it was filled beside another page, as only empty entries are.
    Zapped,
    /// One of the two.
    Either,
}

/// What must have happened to a leaf, untraced, that was set again for the same host frame; `fault`: the fault that set it.
pub(super) fn set_again(
    t: &Timeline,
    e: &Entry,
    before: Option<&Span>,
    s: &Span,
    fault: Option<&Fault>,
) -> Option<Again> {
    let b = before.filter(|b| b.state == State::Present && s.state == State::Present)?;
    if !t.store().tables[e.table.into()].silent || s.reason != Reason::Reread {
        return None;
    }
    let (was, is) = values(t, e, b, s);
    if was.zip(is).is_none_or(|(a, b)| a.pfn != b.pfn) {
        return None;
    }
    Some(match fault {
        Some(f) if f.access.present == Some(false) => Again::Zapped,
        Some(f) if f.access.write && (b.shade, s.shade) == (Shade::Writable, Shade::Writable) => {
            Again::Protected
        }
        // Beside the page of a fault only empty entries are filled.
        None if t.has_events("kvm_page_fault") => Again::Zapped,
        _ => Again::Either,
    })
}

/// Whose doing it is that a leaf does not allow writes any more.
pub(super) fn loss(t: &Timeline, e: &Entry, before: Option<&Span>, s: &Span) -> Option<WriteLoss> {
    let (was, is) = values(t, e, before?, s);
    was.zip(is).and_then(|(a, b)| write_loss(&a, &b))
}

fn values(t: &Timeline, e: &Entry, b: &Span, s: &Span) -> (Option<Decoded>, Option<Decoded>) {
    let l = &t.layout(e.vm).layout;
    (b.spte.map(|v| l.decode(v, e.level)), s.spte.map(|v| l.decode(v, e.level)))
}

/// A huge page that must not be executed although the guest may: what NX huge pages make of it. In a shadow page the guest's own table may
/// say so.
fn nx_huge(t: &Timeline, e: &Entry, s: &Span) -> bool {
    let table = &t.store().tables[e.table.into()];
    e.level > 1
        && (table.direct || !table.silent)
        && s.state == State::Present
        && s.shade != Shade::AccessTracked
        && s.spte.is_some_and(|v| t.layout(e.vm).layout.decode(v, e.level).x == Some(false))
}

/// What a snapshot showed of an entry. Since when it has been so, nobody can say.
fn read_in_memory(s: &Span, size: &str) -> String {
    let what = match (s.state, s.shade) {
        (State::Mmio, _) => "MMIO".to_owned(),
        (State::Present, Shade::Writable) => format!("mapped writable by a {size} page"),
        (State::Present, _) => format!("mapped read-only by a {size} page"),
        (State::Table, _) => "a link to a table".to_owned(),
        _ => "empty".to_owned(),
    };
    let spte = s.spte.map_or_else(String::new, |v| format!("; spte {}", mmuscope_units::spte(v)));
    format!("{READ}: {what}{spte}")
}

/// What became of an entry, for a reader who knows what it was before: `before` is the span that ended when `s` began, `fault` the fault on
/// this frame that made the change.
pub(super) fn of_change(
    t: &Timeline,
    e: &Entry,
    before: Option<&Span>,
    s: &Span,
    gfn: u64,
    fault: Option<&Fault>,
) -> String {
    let size = level_size(e.level);
    let l = &t.layout(e.vm).layout;
    let after = before
        .filter(|b| b.id.is_some() && !matches!(b.reason, Reason::OldValue | Reason::Snapshot))
        .map(|b| format!(" after {}", duration(s.start.saturating_sub(b.start))))
        .unwrap_or_default();
    if s.certainty == Certainty::Stale {
        return format!("from here on unverified: {}", s.reason.words());
    }
    if s.reason == Reason::Snapshot {
        return read_in_memory(s, size);
    }
    // What may not be executed makes place for small pages that may.
    let nx = before.is_some_and(|b| nx_huge(t, e, b)) && fault.is_some_and(|f| f.access.fetch);
    let fetched = if nx { ", as code in it is fetched (NX huge pages)" } else { "" };
    let text = match (before.map(|b| b.state), s.state, s.reason) {
        (_, State::Present, Reason::Split) => {
            format!("mapped by a {size} page out of a split huge page")
        }
        (Some(State::Present), State::Present, _) => {
            let again = set_again(t, e, before, s, fault);
            before.map_or_else(String::new, |b| between_leaves(t, e, b, s, &after, again))
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
            let nx = if nx_huge(t, e, s) { ", not executable (NX huge pages)" } else { "" };
            format!("mapped {access} by a {size} page{place}{of}{frame}{nx}")
        }
        (Some(State::Mmio), State::Mmio, _) => format!("MMIO entry made anew{after}"),
        (_, State::Mmio, _) => "MMIO entry installed: accesses are emulated from now on".to_owned(),
        (Some(State::Present), State::Table, _) => {
            format!("the {size} page is split into a table{after}{fetched}")
        }
        (_, State::Table, _) => format!("a table is linked at the {size} level"),
        (Some(State::Table), State::Nonpresent | State::Removed, _) => {
            format!("the table at the {size} level is unlinked{after}")
        }
        (Some(State::Present), State::Nonpresent, _) => format!("{size} entry zapped{after}{fetched}"),
        (Some(State::Present), State::Removed, _) => {
            format!("{size} entry zapped (removed){after}{fetched}")
        }
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

const UNTRACED: &str = "which this MMU does not trace";

/// A leaf that stays one.
fn between_leaves(t: &Timeline, e: &Entry, b: &Span, s: &Span, after: &str, again: Option<Again>) -> String {
    let size = level_size(e.level);
    let (was, is) = values(t, e, b, s);
    let pfns = was.and_then(|d| d.pfn).zip(is.and_then(|d| d.pfn));
    if let Some((was, is)) = pfns.filter(|(a, b)| a != b) {
        return format!(
            "{size} entry maps another host frame, {is:#x} instead of {was:#x}, {}{after}: it was zapped in between",
            access(s.shade)
        );
    }
    let lost = loss(t, e, Some(b), s);
    match again {
        Some(Again::Protected) => {
            return format!(
                "{size} entry made writable again{after}: it had been write-protected since, {UNTRACED}"
            );
        }
        Some(Again::Zapped) if lost == Some(WriteLoss::Host) => {
            return format!(
                "{size} entry mapped anew{after}, read-only: the host made its page read-only (as copy-on-write after fork does) and had it \
                 zapped, {UNTRACED}"
            );
        }
        Some(Again::Zapped) => {
            return format!(
                "{size} entry mapped anew{after}, {}: it had been zapped since, {UNTRACED}",
                access(s.shade)
            );
        }
        Some(Again::Either) if b.spte == s.spte && b.certainty == Certainty::Stale => {
            return format!(
                "{size} entry set to the same value again{after}: it had been write-protected or zapped since, {UNTRACED}"
            );
        }
        _ if b.spte == s.spte && b.spte.is_some() => {
            let what = if again.is_some() { "set to the same value again" } else { "confirmed" };
            return format!("{size} entry {what}{after}");
        }
        _ => {}
    }
    match (b.shade, s.shade) {
        (Shade::Writable, Shade::ReadOnly) => {
            let table = &t.store().tables[e.table.into()];
            let why = match lost {
                Some(WriteLoss::Logging) => " write-protected to log writes",
                Some(WriteLoss::Tracking) if e.level > 1 => {
                    " write-protected until it is split (KVM_CLEAR_DIRTY_LOG), or as it holds a page table of the guest"
                }
                // What the guest's own table says is written with the same bit.
                Some(WriteLoss::Tracking) if table.silent && !table.direct => {
                    " write-protected as a page table of the guest (or the guest's own table forbids writes now)"
                }
                Some(WriteLoss::Tracking) => {
                    " write-protected as a page table of the guest (or to track its writes)"
                }
                Some(WriteLoss::Host) => " made read-only by the host (as copy-on-write after fork does)",
                None => " write-protected",
            };
            format!("{size} entry{why}{after}")
        }
        (Shade::ReadOnly | Shade::AccessTracked, Shade::Writable) => {
            format!("{size} entry made writable again{after}")
        }
        (_, Shade::AccessTracked) => {
            format!("{size} entry made access-tracked{after}: permissions taken away to see the next access")
        }
        (Shade::AccessTracked, _) => format!("{size} entry's permissions given back{after}"),
        _ => bits(t, e, b, s, after),
    }
}

/// A change that leaves what is allowed as it was.
fn bits(t: &Timeline, e: &Entry, b: &Span, s: &Span, after: &str) -> String {
    let size = level_size(e.level);
    let masks = &t.layout(e.vm).layout.masks;
    let diff = b.spte.zip(s.spte).map_or(0, |(a, b)| a ^ b);
    let (a, d) = (masks.accessed_mask, masks.dirty_mask);
    if diff == 0 || diff & !(a | d) != 0 {
        return format!("{size} entry changed{after}");
    }
    let what = match (diff & a != 0, diff & d != 0) {
        (true, true) => "Accessed and Dirty",
        (true, false) => "Accessed",
        _ => "Dirty",
    };
    let how = if s.spte.is_some_and(|v| v & diff == 0) { "cleared" } else { "set" };
    format!("{what} of the {size} entry {how}{after}")
}
