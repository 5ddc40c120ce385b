//! Kprobes on what MMUs do without an event: what they make known, and what they do not.

use crate::replayed::load;
use mmuscope_replay::{
    Certainty, Entry, LayoutOverride, Outcome, Reason, ReplayOptions, Shade, Span, StateFilter, StoryLine,
    Timeline, VmId, ZapCause, replay,
};
use mmuscope_spte::{Known, LayoutSpec, Mode};
use mmuscope_testing::fixture;
use mmuscope_testing::probed::with_probes;
use mmuscope_trace::{Body, EventStore, Trace};
use std::path::Path;

/// A recording of a kernel with the legacy MMU in which the probes were set, of a VM that is made in it.
const PROBED: &str = "layout C/npt
fact record.scope the whole system
fact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,kvmmmu:kvm_mmu_get_page,kvmmmu:kvm_mmu_prepare_zap_page,kvmmmu:kvm_mmu_zap_all_fast,kvmmmu:kvm_mmu_set_spte,kvmmmu:fast_page_fault,kvmmmu:kvm_tdp_mmu_spte_changed,kvm:kvm_unmap_hva_range,kvm:kvm_set_spte_hva,probe:mmu_spte_update,probe:mmu_spte_clear_track_bits
1 t9 mark begin
+3000000 t1 exit
+1 t1 fault 2 w
+1 t1 page 1 0
+1 t1 want 1 2 77
";
/// What lies between the virtual and the physical address of an entry: `page_offset_base`, aligned to a GiB.
const VIRTUAL: u64 = 0xffff_8880_0000_0000;
const ENTRY: u64 = 0x40010;

fn run(text: &str) -> Timeline {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    replay(&trace, &ReplayOptions::default())
}

fn value(writable: bool) -> u64 {
    0x77_0865 | if writable { 2 } else { 0 }
}

fn update(new: u64) -> String {
    format!(
        "+1 t1 mmu_spte_update (mmu_spte_update+0x0/0x1a0 [kvm]) sptep={:#x} new_spte={new:#x}\n",
        VIRTUAL + ENTRY
    )
}

fn clear(thread: &str) -> String {
    let sptep = VIRTUAL + ENTRY;
    format!(
        "+1 {thread} mmu_spte_clear_track_bits (mmu_spte_clear_track_bits+0x0/0x1b0 [kvm]) sptep={sptep:#x}\n"
    )
}

fn set(new: u64) -> String {
    let w = if new & 2 != 0 { "rwx" } else { "r-x" };
    format!("+1 t1 kvm_mmu_set_spte gfn 2 spte {new:x} ({w}u) level 1 at {ENTRY:x}\n")
}

fn at_end(t: &Timeline) -> (Entry, Span) {
    let all = t.state_at(t.range().1, &StateFilter::default());
    all.into_iter().find(|(e, _)| e.level == 1 && e.gfn == 2).expect("the entry")
}

/// The install that every test begins with.
fn installed() -> String {
    format!("{PROBED}{}{}+1 t1 entry 0\n", update(value(true)), set(value(true)))
}

#[test]
fn an_entry_is_what_its_last_probe_says() {
    let t = run(&installed());
    let (_, s) = at_end(&t);
    assert_eq!(
        (s.shade, s.certainty),
        (Shade::Writable, Certainty::Observed),
        "the first update has no place yet"
    );
    // Write-protected for dirty logging, by an ioctl that no event shows.
    let protected = format!("{}{}", installed(), update(value(false)));
    let t = run(&protected);
    let (e, s) = at_end(&t);
    assert_eq!((s.shade, s.certainty, s.reason), (Shade::ReadOnly, Certainty::Exact, Reason::Stated));
    assert_eq!(e.sptep, Some(ENTRY));
    // A fault mends that: the update is the install, and kvm_mmu_set_spte after it no second one.
    let again = format!(
        "{protected}+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 want 1 2 77\n{}{}+1 t1 entry 0\n",
        update(value(true)),
        set(value(true))
    );
    let t = run(&again);
    let (e, s) = at_end(&t);
    assert_eq!((s.shade, s.certainty), (Shade::Writable, Certainty::Exact));
    assert_eq!(t.spans(e.id).filter(|s| s.shade == Shade::Writable).count(), 2);
    assert!(t.faults().all(|f| f.outcome == Outcome::Fixed));
    // Zapped, for whatever reason.
    let t = run(&format!("{again}{}", clear("t5")));
    let (e, s) = at_end(&t);
    assert_eq!((s.shade, s.certainty), (Shade::Nonpresent, Certainty::Exact));
    let zaps: Vec<ZapCause> = t.zaps(e.id).map(|z| z.cause).collect();
    assert_eq!(zaps, [ZapCause::Probed]);
    assert!(!zaps[0].implied());
}

#[test]
fn what_the_host_may_take_away_would_show() {
    // A range, a page table that is written, dirty logging: nothing is in doubt, because each change has its probe.
    let kept = format!("{}+1 t9 unmap 10000 20000\n+1 t9 mark on\n", installed());
    let (_, s) = at_end(&run(&kept));
    assert_eq!((s.shade, s.certainty), (Shade::Writable, Certainty::Observed));
    let unprobed = kept.replace(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits", "");
    let text: String =
        unprobed.lines().filter(|l| !l.contains(" mmu_spte_update ")).flat_map(|l| [l, "\n"]).collect();
    let (_, s) = at_end(&run(&text));
    assert_eq!((s.certainty, s.reason), (Certainty::Stale, Reason::Notifier), "without the probes it is");
    // Lost events may have been probes.
    let (_, s) = at_end(&run(&format!("{kept}+1 t9 lost 1\n")));
    assert_eq!((s.certainty, s.reason), (Certainty::Stale, Reason::Lost));
    // Of some threads only: another one may zap, and its probe is not in the recording.
    let scoped = kept.replace("record.scope the whole system", "record.scope process 7");
    assert_eq!(at_end(&run(&scoped)).1.certainty, Certainty::Stale);
    // One probe of the two is not enough.
    let one = kept.replace(",probe:mmu_spte_clear_track_bits", "");
    assert_eq!(at_end(&run(&one)).1.certainty, Certainty::Stale);
}

#[test]
fn change_pte_sets_what_no_probe_shows() {
    let text = format!("{}+1 t9 changepte 50000\n{}", installed(), clear("t9"));
    let (_, s) = at_end(&run(&text));
    assert_eq!(
        (s.certainty, s.reason),
        (Certainty::Stale, Reason::Notifier),
        "emptied, and set to another page"
    );
    // The same thread zaps something later, for another reason.
    let text = format!("{}+1 t9 changepte 50000\n+1 t9 mark on\n{}", installed(), clear("t9"));
    let (_, s) = at_end(&run(&text));
    assert_eq!((s.shade, s.certainty), (Shade::Nonpresent, Certainty::Exact));
}

#[test]
fn an_address_that_is_no_known_entry_changes_nothing() {
    let odd = format!(
        "{}+1 t1 mmu_spte_clear_track_bits (mmu_spte_clear_track_bits+0x0/0x1b0 [kvm]) sptep=0x10\n",
        installed()
    );
    assert_eq!(at_end(&run(&odd)).1.shade, Shade::Writable);
    // Before any event shows what lies between the two kinds of address.
    let early = format!("{PROBED}{}", clear("t1"));
    assert!(run(&early).entries().all(|e| e.gfn != 2));
}

/// The TDP MMU of 5.10, which has no event of a change.
const TDP_5_10: &str = "layout B/npt
fact record.scope the whole system
fact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,kvmmmu:kvm_mmu_get_page,kvmmmu:kvm_mmu_prepare_zap_page,kvmmmu:kvm_mmu_zap_all_fast,kvmmmu:kvm_mmu_set_spte,kvmmmu:fast_page_fault,probe:__handle_changed_spte
";

fn changed(level: u8, gfn: u64, old: u64, new: u64) -> String {
    format!(
        "+1 t1 __handle_changed_spte (__handle_changed_spte+0x0/0x420 [kvm]) as_id=0 gfn={gfn:#x} old_spte={old:#x} new_spte={new:#x} level={level}\n"
    )
}

#[test]
fn a_probe_stands_in_for_the_event_that_a_kernel_lacks() {
    let table = |page: u64| page << 12 | 0x827;
    let text = format!(
        "{TDP_5_10}1 t1 root\n{}{}{}{}+1 t1 entry 0\n",
        changed(4, 0, 0, table(0x10)),
        changed(3, 0, 0, table(0x11)),
        changed(2, 0, 0, table(0x12)),
        changed(1, 2, 0, value(true)),
    );
    let (_, s) = at_end(&run(&text));
    assert_eq!((s.shade, s.certainty), (Shade::Writable, Certainty::Exact));
    let gone = format!("{text}+1 t1 exit\n{}", changed(1, 2, value(true), 0));
    let t = run(&gone);
    let (e, s) = at_end(&t);
    assert_eq!((s.shade, s.certainty, s.reason), (Shade::Nonpresent, Certainty::Exact, Reason::Stated));
    assert_eq!(t.zaps(e.id).map(|z| z.cause).collect::<Vec<_>>(), [ZapCause::Changed]);
    // Where the kernel has the event as well, both say the same, and one counts.
    let both = text
        .replace("layout B/npt", "layout C/npt")
        .replace("probe:__handle", "kvmmmu:kvm_tdp_mmu_spte_changed,probe:__handle");
    let doubled: String = both
        .lines()
        .flat_map(|l| {
            let own = l
                .replace(
                    "__handle_changed_spte (__handle_changed_spte+0x0/0x420 [kvm]) as_id=",
                    "kvm_tdp_mmu_spte_changed as id ",
                )
                .replace("gfn=0x", "gfn ")
                .replace("old_spte=0x", "old_spte ")
                .replace("new_spte=0x", "new_spte ");
            // The tracepoint's text has its level before the values.
            let own = own
                .split_once(" level=")
                .map(|(a, level)| a.replacen(" old_spte", &format!(" level {level} old_spte"), 1));
            own.into_iter().chain([l.to_owned()])
        })
        .flat_map(|l| [l, "\n".to_owned()])
        .collect();
    let t = run(&doubled);
    assert_eq!(at_end(&t).1.certainty, Certainty::Exact);
    let once: String = doubled.lines().filter(|l| !l.contains("(__handle")).flat_map(|l| [l, "\n"]).collect();
    assert_eq!(t.evidence().len(), run(&once).evidence().len(), "{doubled}");
}

#[test]
fn aging_without_accessed_bits_needs_the_probe_that_it_goes_through() {
    // Up to 6.12 aging takes the permissions away through `mmu_spte_update_no_track`, later through nothing that could be probed.
    let age = |events: &str| {
        let text = installed().replace("C/npt", "C/ept-noad").replace(",probe:mmu_spte_update,", events);
        let text = format!("{text}+1 t9 age 7f0000002000 7f0000003000\n+1 t9 mark done\n");
        let trace = fixture::trace(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let spec = LayoutSpec { mode: Some(Known::given(Mode::EptNoAd)), ..LayoutSpec::default() };
        let t =
            replay(&trace, &ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() });
        at_end(&t).1.certainty
    };
    assert!(age(",probe:mmu_spte_update,probe:mmu_spte_update_no_track,") <= Certainty::Observed);
    assert_eq!(age(",probe:mmu_spte_update,"), Certainty::Stale);
}

/// A huge page, mapped by the entry at this address.
const HUGE: u64 = 0x4_0080;

fn huge() -> String {
    let begin = PROBED.split_once("+1 t1 fault").expect("the first fault").0;
    let sptep = VIRTUAL + HUGE;
    format!(
        "{begin}+1 t1 fault 2000 w\n+1 t1 page 2 0\n+1 t1 want 2 2000 1c000\n\
         +1 t1 mmu_spte_update (mmu_spte_update+0x0/0x1a0 [kvm]) sptep={sptep:#x} new_spte=0x1c000ee7\n\
         +1 t1 kvm_mmu_set_spte gfn 2000 spte 1c000ee7 (rwxu) level 2 at {HUGE:x}\n+1 t1 entry 0\n"
    )
}

fn clear_huge(thread: &str) -> String {
    clear(thread).replace(&format!("{:#x}", VIRTUAL + ENTRY), &format!("{:#x}", VIRTUAL + HUGE))
}

fn huge_at_end(text: &str) -> (Shade, Certainty, Reason) {
    let t = run(text);
    let all = t.state_at(t.range().1, &StateFilter::default());
    let (_, s) = all.into_iter().find(|(e, _)| e.level == 2 && e.gfn == 0x2000).expect("the entry");
    (s.shade, s.certainty, s.reason)
}

#[test]
fn whether_a_table_took_the_place_of_a_huge_page_is_not_traced() {
    let unknown = (Shade::Unknown, Certainty::Stale, Reason::Linked);
    let empty = (Shade::Nonpresent, Certainty::Exact, Reason::Stated);
    let mapped = huge();
    assert_eq!(huge_at_end(&mapped), (Shade::Writable, Certainty::Observed, Reason::Reread));
    // A fault splits it: the table is made, the entry emptied, and the table linked, which nothing shows.
    let split = format!("{mapped}+1 t1 exit\n+1 t1 fault 2000 w\n+1 t1 page 1 2000\n{}", clear_huge("t1"));
    assert_eq!(huge_at_end(&split), unknown);
    // The host takes it away; it stays empty until a table is made that can be linked there.
    let zapped = format!("{mapped}{}", clear_huge("t9"));
    assert_eq!(huge_at_end(&zapped), empty);
    let fault = "+1 t1 exit\n+1 t1 fault 2000 w\n";
    assert_eq!(huge_at_end(&format!("{zapped}{fault}+1 t1 page 1 2000\n")), unknown);
    assert_eq!(huge_at_end(&format!("{zapped}{fault}+1 t1 page 1 2200\n")), empty, "another frame's");
    assert_eq!(huge_at_end(&format!("{zapped}{fault}+1 t1 page 2 0\n")), empty, "another level's");
    // Just after the beginning of a trace, or where tables are not recorded, the event of one may be missing.
    let soon = zapped.replace("+3000000 t1 exit", "+3 t1 exit");
    assert_eq!(huge_at_end(&soon), unknown);
    assert_eq!(huge_at_end(&zapped.replace("kvmmmu:kvm_mmu_prepare_zap_page,", "")), unknown);
    // Lost events may have been those of a table.
    let lost = huge_at_end(&format!("{zapped}+1 t9 lost 1\n"));
    assert_eq!(lost.1, Certainty::Stale);
}

/// A probe is hit in the middle of what its thread does, a teardown or a zap of many entries: beside the kernel's own events it changes nothing.
#[test]
fn probes_beside_the_kernels_own_events_change_nothing() {
    let (without, plain) =
        load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-npt/trace.txt.zst"));
    let with = with_probes(without, true);
    assert!(with.events.len() > without.events.len() + 10_000, "{} events", with.events.len());
    let t = replay(&with, &ReplayOptions::default());
    let lives = |t: &Timeline| -> Vec<_> {
        let mut all: Vec<_> = t
            .entries()
            .map(|e| {
                let spans: Vec<_> =
                    t.spans(e.id).map(|s| (s.start, s.end, s.spte, s.shade, s.certainty, s.reason)).collect();
                let zaps: Vec<_> = t.zaps(e.id).map(|z| (z.ts, z.cause)).collect();
                (e.vm, e.as_id, e.level, e.gfn, format!("{spans:?} {zaps:?}"))
            })
            .collect();
        all.sort();
        all
    };
    let (of_plain, of_both) = (lives(plain), lives(&t));
    assert_eq!(of_plain.len(), of_both.len());
    let differ: Vec<_> = of_plain.iter().zip(&of_both).filter(|(a, b)| a != b).collect();
    assert!(differ.is_empty(), "{} differ: {:#?}", differ.len(), differ.first());
    // A text that grows shows the first of the kernel's own events after the first probe.
    let mut events = EventStore::new();
    let first = with.events.iter().position(|e| matches!(e.body, Body::ProbeSpteChanged { .. }));
    with.events.range(0..first.expect("a probe") + 1).for_each(|e| events.push(&e));
    let mut growing = replay(&Trace { events, ..with.clone() }, &ReplayOptions::default());
    growing.extend(&with);
    assert!(lives(&growing) == of_plain, "it grew");
    // Nor are the stories of the pages others: who, and why.
    let pages: Vec<(u8, u64)> =
        [2, 0x100, 0x2000, 0x10005].into_iter().chain((0..64).map(|n| n * 37)).map(|gfn| (0, gfn)).collect();
    let stories = |t: &Timeline, trace: &Trace| -> Vec<_> {
        let all = t.page_stories(trace, VmId(0), &pages, (usize::MAX, 0));
        all.into_iter().map(|(s, _)| (s.headline, lines(s.lines))).collect()
    };
    let (expected, found) = (stories(plain, without), stories(&t, &with));
    let many = expected.iter().map(|s| s.1.len()).sum::<usize>();
    assert!(many > 500, "{many} lines");
    for (a, b) in expected.iter().zip(&found) {
        assert_eq!(a, b);
    }
}

fn lines(of: Vec<StoryLine>) -> Vec<(u64, String, String)> {
    of.into_iter().map(|l| (l.ts, l.who, l.text)).collect()
}
