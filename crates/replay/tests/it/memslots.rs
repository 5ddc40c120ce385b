//! Memory slots that snapshots, readings between them and probes show, and what follows from them for notifier ranges.

use crate::reading::{INSTALLS, certainty, legacy, with};
use mmuscope_replay::{Certainty, Reason, SlotAt, SlotKnown, StateFilter, VmId};
use mmuscope_trace::snapshot::{Piece, Slot, SlotList, Vcpu, Vm};

const HVA: u64 = 0x7f00_0000_0000;

fn slot(id: u16, gfn: u64, pages: u64, hva: u64) -> Slot {
    Slot { as_id: 0, id, gfn, pages, hva, flags: 0 }
}

/// A snapshot of nothing but slots, and one that was read between snapshots.
fn slots_of(us: u64, slots: &[Slot]) -> Vec<(u64, Piece)> {
    let (at, vcpus) = (us * 1000, vec![Vcpu { number: 0, tid: Some(1) }]);
    vec![
        (us, Piece::Begin { at, all_on: None }),
        (us, Piece::Vm(Vm { at, pid: 50, name: "vm".into(), vcpus, slots: slots.to_vec() })),
        (us, Piece::VmEnd { at, complete: true, notes: Vec::new() }),
        (us, Piece::End { at, notes: Vec::new() }),
    ]
}

fn again(us: u64, slots: &[Slot]) -> Vec<(u64, Piece)> {
    SlotList::pieces(us * 1000, 50, slots).into_iter().map(|p| (us, p)).collect()
}

const SLOTS: &str = ",probe:__kvm_set_memory_region";
const REQUEST: &str =
    "t9 kvm_set_memory_region (__kvm_set_memory_region+0x0/0x4e0 [kvm]) kvm=0xffffc900003e5000";

#[test]
fn a_notifier_range_hits_the_frames_that_the_slots_say() {
    let ram = [slot(0, 0, 0x100, HVA)];
    let unmap = format!("+1 t9 unmap {:x} {:x}\n", HVA + 0x3000, HVA + 0x4000);
    let text = |between: &str| format!("{}{INSTALLS}{between}{unmap}", legacy(SLOTS));
    let hit = (Certainty::Stale, Reason::Notifier);
    let t = with(&text(""), &slots_of(2_000_000, &ram));
    assert!(
        certainty(&t, 2).0 <= Certainty::Observed,
        "{:?}: the range is memory of frame 3",
        certainty(&t, 2)
    );
    assert_eq!(certainty(&t, 3), hit);
    // Where the slots are not known, any frame may be meant.
    let t = with(&text(""), &[]);
    assert_eq!((certainty(&t, 2), certainty(&t, 3)), (hit, hit));
    // The VMM asked for another slot, and it is not known which: frame 2 may lie elsewhere by now.
    let t = with(&text(&format!("+1 {REQUEST}\n")), &slots_of(2_000_000, &ram));
    assert_eq!((certainty(&t, 2), certainty(&t, 3)), (hit, hit));
    // The same memory at two places of the guest.
    let twice = [slot(0, 0, 3, HVA + 0x100_0000), slot(1, 3, 0x100, HVA + 0x3000), slot(2, 0x1000, 3, HVA)];
    let t = with(&text(""), &slots_of(2_000_000, &twice));
    assert!(certainty(&t, 2).0 <= Certainty::Observed);
    assert_eq!(certainty(&t, 3), hit);
    // Frame 2 is memory of the range through another slot.
    let alias = [slot(0, 0, 3, HVA + 0x1000), slot(1, 3, 0x100, HVA + 0x3000)];
    let t = with(&text(""), &slots_of(2_000_000, &alias));
    assert_eq!((certainty(&t, 2), certainty(&t, 3)), (hit, hit));
    // A slot may have gone with all page tables, where requests are not recorded.
    let text = format!(
        "{}{INSTALLS}+1 t9 zapall\n+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 1 0\n+1 t1 set 1 2 O72 at 50010\n+1 t1 entry 0\n{unmap}",
        legacy("")
    );
    let t = with(&text, &slots_of(2_000_000, &ram));
    let all = t.state_at(t.range().1, &StateFilter::default());
    assert!(all.iter().all(|(_, s)| s.certainty == Certainty::Stale), "{all:?}");
}

#[test]
fn slots_are_read_again_when_the_vmm_changed_them() {
    let (vm, ms) = (VmId(0), |n: u64| n * 1_000_000);
    let (ram, bar) = (slot(0, 0, 0x100, HVA), slot(1, 0x800, 0x10, HVA + 0x100_0000));
    let text = format!(
        "{}1000 t1 exit\n+1 t1 entry 0\n10000 {REQUEST}\n30000 t9 user 2 0\n50000 t1 exit\n+1 t1 entry 0\n",
        legacy(SLOTS)
    );
    let mut pieces = slots_of(5_000, &[ram]);
    // This one was read before the request was carried out.
    pieces.extend(again(20_000, &[ram]));
    pieces.extend(again(40_000, &[ram, bar]));
    let t = with(&text, &pieces);
    let spans: Vec<_> = t.slots().iter().map(|s| (s.id, s.start, s.end, s.known)).collect();
    assert_eq!(spans, [(0, ms(5), None, SlotKnown::Read), (1, ms(40), None, SlotKnown::Read)]);
    let at = |gfn, ts| match t.slot_at(vm, 0, gfn, ms(ts)) {
        SlotAt::In(s) => format!("in {}", s.id),
        SlotAt::Outside => "outside".into(),
        SlotAt::NotKnown => "not known".into(),
    };
    assert_eq!((at(0x50, 1), at(0x50, 7), at(0x50, 15)), ("not known".into(), "in 0".into(), "in 0".into()));
    assert_eq!(
        [7, 15, 25, 45].map(|ts| at(0x900, ts)),
        ["outside", "not known", "not known", "outside"].map(String::from)
    );
    assert_eq!((at(0x805, 7), at(0x805, 45)), ("outside".into(), "in 1".into()));
    // A probe on the outer function may sit on one that nobody calls: what was read is known for that moment only, until the probe is hit.
    let outer = text.replace(SLOTS, ",probe:kvm_set_memory_region");
    let t = with(&outer, &pieces);
    assert_eq!(t.slot_at(vm, 0, 0x900, ms(7)), SlotAt::NotKnown);
    assert_eq!(t.slot_at(vm, 0, 0x900, ms(45)), SlotAt::Outside);
}

#[test]
fn requests_that_a_probe_reads_whole_change_the_slots_at_once() {
    let ask = |us: u64, slot: u32, gpa: u64, size: u64, hva: u64| {
        format!("{us} {REQUEST} slot={slot} flags=1 gpa={gpa:#x} size={size:#x} hva={hva:#x}\n")
    };
    let text = legacy(SLOTS)
        + &ask(1000, 0, 0, 0x10_0000, HVA)
        + &ask(2000, 1, 0x80_0000, 0x1_0000, HVA + 0x100_0000)
        // It lies over the first: KVM refuses that.
        + &ask(3000, 2, 0x8_0000, 0x1_0000, HVA + 0x200_0000)
        + &ask(4000, 1, 0x80_0000, 0, 0)
        + "5000 t9 user 2 0\n";
    let t = with(&text, &[]);
    let spans: Vec<_> = t.slots().iter().map(|s| (s.id, s.gfn, s.pages, s.start / 1000, s.end)).collect();
    assert_eq!(spans, [(0, 0, 0x100, 1000, None), (1, 0x800, 0x10, 2000, Some(4_000_000))]);
    assert!(t.slots().iter().all(|s| s.known == SlotKnown::Requested && s.dirty_logging()));
    assert_eq!(
        t.slot_at(VmId(0), 0, 0x9000, 5_000_000),
        SlotAt::NotKnown,
        "others may have been there before"
    );
}

#[test]
fn a_list_of_many_slots_comes_in_parts() {
    let many: Vec<Slot> =
        (0..2500).map(|i| slot(i, u64::from(i) * 0x10, 0x10, HVA + (u64::from(i) << 16))).collect();
    let mut packer = mmuscope_trace::snapshot::Packer::default();
    for p in &again(1, &many) {
        packer.push(&p.1);
    }
    let records = packer.records();
    assert!(records.iter().all(|r| r.len() <= mmuscope_trace::snapshot::MOST));
    let back: Vec<Piece> =
        records.iter().flat_map(|r| mmuscope_trace::snapshot::unpack(r).expect("pieces")).collect();
    assert_eq!(back.len(), 3);
    let text = format!("{}1000 t1 exit\n+1 t1 entry 0\n", legacy(SLOTS));
    let t = with(&text, &back.into_iter().map(|p| (2000, p)).collect::<Vec<_>>());
    assert_eq!(t.slots().len(), 2500);
    assert!(matches!(t.slot_at(VmId(0), 0, 0x10 * 2499 + 3, 3_000_000), SlotAt::In(s) if s.id == 2499));
}
