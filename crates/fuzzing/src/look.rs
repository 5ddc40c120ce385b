//! What is asked of every replay, whatever it was made of.

use mmuscope_replay::{MapQuery, Reason, SeriesKind, Shade, Span, SpanFilter, State, StateFilter, Timeline};
use mmuscope_trace::Trace;

/// The number of frames whose story is made: a story is long, and there may be many frames.
const STORIES: usize = 3;

/// Moments to look at: five between the ends, the ends, and both ends of time.
fn moments(t: &Timeline) -> Vec<u64> {
    let (first, last) = t.range();
    assert!(first <= last, "the range of time is {first}..{last}");
    (0..=4).map(|i| first + (last - first) / 4 * i).chain([last, 0, u64::MAX]).collect()
}

/// Asks a timeline for everything it can be asked, at several moments.
///
/// # Panics
///
/// If an answer is wrong in itself.
pub fn look(trace: &Trace, t: &Timeline) {
    for at in moments(t) {
        moment(t, at);
    }
    for entry in t.entries() {
        for span in t.spans(entry.id) {
            t.decode(&entry, &span);
        }
    }
    assert_eq!(t.all_spans(&SpanFilter::default()).count(), t.span_count());
    assert_eq!(t.faults().count(), t.fault_count());
    let zaps: u64 = t.zap_causes().values().sum();
    assert_eq!(t.all_zaps().count() as u64, zaps, "zaps one by one, and by cause");
    pictures(t);
    for (vm, as_id, axis) in t.gfn_axis().spaces.iter().take(STORIES) {
        if let Some(gfn) = axis.gfn_at(0.0) {
            let story = t.page_story(trace, *vm, *as_id, gfn);
            assert!(!story.headline.is_empty());
        }
    }
    for top in t.top_faults(5).into_iter().chain(t.top_zaps(5)).chain(t.top_mmio(5)).take(STORIES) {
        t.page_story(trace, top.vm, top.as_id, top.gfn);
    }
    for s in t.slots().iter().take(100) {
        for gfn in [s.gfn, s.end_gfn(), s.end_gfn().saturating_sub(1)] {
            t.slot_at(s.vm, s.as_id, gfn, s.start);
            t.slot_at(s.vm, s.as_id, gfn, u64::MAX);
        }
    }
    t.unrecorded();
}

/// Compares what can be known of a timeline in two ways: spans of an entry follow each other, and sums are those of the state.
///
/// # Panics
///
/// If two answers differ that must be equal.
pub fn compare(t: &Timeline) {
    for entry in t.entries() {
        let mut end = None;
        for span in t.spans(entry.id) {
            assert!(end.is_none_or(|e| e <= span.start), "spans of {entry:?} overlap: {span:?}");
            assert!(span.end.is_none_or(|e| e >= span.start), "a span ends before it begins: {span:?}");
            end = span.end;
        }
    }
    for at in moments(t) {
        let state = t.state_at(at, &StateFilter::default());
        let counts = t.counts_at(at);
        for shade in Shade::ALL {
            // Removed tables keep what their teardown emptied; only live and removed entries are state.
            if shade == Shade::Nonpresent {
                continue;
            }
            // An old value, which only a later event shows, is in the state of this moment and not in the sums.
            let shown_then = |s: &Span| s.reason != Reason::OldValue;
            let n = state.iter().filter(|(_, s)| s.shade == shade && shown_then(s)).count() as u64;
            let sum = counts.entries[shade as usize].iter().fold(0, |a: u64, n| a.wrapping_add(*n));
            assert_eq!(sum, n, "{shade:?} at {at}, by sum and by counting");
        }
    }
}

/// What was known at one moment.
fn moment(t: &Timeline, at: u64) {
    let state = t.state_at(at, &StateFilter::default());
    for (entry, span) in &state {
        assert!(span.start <= at, "{entry:?} shows at {at} what came later: {span:?}");
        if span.state == State::Present {
            assert!(span.spte.is_some(), "present without a value: {entry:?} {span:?}");
        }
    }
    for vm in t.vms() {
        t.memory_at(vm.id, at);
        t.memory_and_unseen_at(vm.id, at);
        for as_id in t.address_spaces(vm.id) {
            t.counts_of(vm.id, as_id, at);
            t.peak(vm.id, as_id);
        }
    }
}

/// Pictures and rows of numbers, in a size that has more and one that has fewer cells than there are changes.
fn pictures(t: &Timeline) {
    let (t0, last) = t.range();
    let t1 = last.saturating_add(1);
    for (vm, as_id, axis) in &t.gfn_axis().spaces {
        for (cols, rows) in [(3, 2), (64, 48)] {
            let q = MapQuery { vm: *vm, as_id: *as_id, t0, t1, y0: 0.0, y1: axis.height, cols, rows };
            assert_eq!(t.map(&q).cells.len(), cols * rows);
        }
    }
    for kind in [
        SeriesKind::Events,
        SeriesKind::Event("kvm_exit".into()),
        SeriesKind::Faults,
        SeriesKind::Changes,
        SeriesKind::Zaps,
        SeriesKind::Lost,
    ] {
        assert_eq!(t.series(&kind, t0, t1, 7).len(), 7);
    }
    assert_eq!(t.counts_over(t0, t1, 5).len(), 5);
}
