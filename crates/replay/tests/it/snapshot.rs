//! Snapshots in a replay: a trace that begins late, with a snapshot of that moment, says at its end what the whole trace says; a snapshot at the end
//! agrees with the replay, and does not where an event is missing. The tables of the snapshots are those of the whole trace's replay, which the
//! test `truth` of the command line holds against the kernel's memory.

use crate::replayed::load;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::reading::{INSTALLS, certainty, legacy, with};
use mmuscope_replay::{
    Certainty, Reason, ReplayOptions, State, StateFilter, TableId, Timeline, VmId, replay,
};
use mmuscope_testing::fixture;
use mmuscope_testing::pieces::with_pieces;
use mmuscope_trace::snapshot::{Mmu, Piece, Slot, SlotList, Table, Vcpu, Vm};
use mmuscope_trace::{Body, Event, EventStore, RecordedEvents, StrId, Trace, event_name};

fn sample(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(name).join(file)
}

/// What memory held at a moment, as the recorder would have read it there.
fn snapshot(trace: &Trace, t: &Timeline, ts: u64, first: bool) -> Vec<Piece> {
    let mut held: BTreeMap<TableId, Vec<u64>> = BTreeMap::new();
    let empty = t.layout(t.vms()[0].id).layout.zapped;
    let past = |event: Option<u32>| event.and_then(|e| t.event_ts(e)).is_some_and(|at| at <= ts);
    for table in t.tables().filter(|x| past(x.start) && !past(x.end)) {
        held.insert(table.id, vec![empty; 512]);
    }
    let all = StateFilter::default();
    for (entry, span) in t.state_at(ts, &all) {
        let Some(values) = held.get_mut(&entry.table) else { continue };
        let index = (entry.gfn >> (9 * (u32::from(entry.level) - 1)) & 511) as usize;
        values[index] = span.spte.unwrap_or(empty);
    }
    // No event names the page of a root.
    let page = |id: TableId| t.table(id).page.unwrap_or(0x40_0000_0000 + (u64::from(id.0) << 12));
    let mut ids: Vec<TableId> = held.keys().copied().collect();
    ids.sort_by_key(|id| (std::cmp::Reverse(t.table(*id).level), id.0));
    let vm = &t.vms()[0];
    let vcpus = vm.vcpus.iter().map(|v| Vcpu { number: v.vcpu_id.unwrap_or(0), tid: Some(v.tid) }).collect();
    let pid = vm.pid.unwrap_or(4242);
    // Since 5.13 this marks all roots that there are as invalid.
    let obsolete = |first: u32| {
        let later = trace.events.iter().skip(first as usize).take_while(|e| e.ts <= ts);
        later.into_iter().any(|e| matches!(e.body, Body::ZapAllFast { .. }))
    };
    let mut pieces = vec![
        Piece::Begin { at: ts, all_on: first.then_some(ts) },
        Piece::Vm(Vm { at: ts, pid, name: "vm".into(), vcpus, slots: Vec::new() }),
    ];
    for id in ids {
        let x = t.table(id);
        let parent = x.parent.map(|p| {
            let p = t.entry(p);
            (page(p.table), (p.gfn >> (9 * (u32::from(p.level) - 1)) & 511) as u16)
        });
        pieces.push(Piece::Table(Box::new(Table {
            from: ts,
            to: ts,
            page: page(id),
            mmu: Mmu::Tdp,
            as_id: x.as_id,
            level: x.level,
            gfn: x.gfn,
            direct: true,
            root: parent.is_none(),
            invalid: parent.is_none() && x.start.is_some_and(obsolete),
            mirror: false,
            guest_mode: false,
            parent,
            entries: held[&id].clone(),
            gfns: Vec::new(),
        })));
    }
    pieces.push(Piece::VmEnd { at: ts, complete: true, notes: Vec::new() });
    pieces.push(Piece::End { at: ts, notes: Vec::new() });
    pieces
}

/// The events from `first` on (save one), with a snapshot before the first and one after the last.
fn late(whole: &Trace, t: &Timeline, first: usize, without: Option<usize>) -> Trace {
    let mut part =
        Trace { info: whole.info.clone(), strings: whole.strings.clone(), events: EventStore::new() };
    let put = |part: &mut Trace, ts: u64, first: bool| {
        for piece in snapshot(whole, t, ts, first) {
            let index = part.info.snapshots.len() as u32;
            part.info.snapshots.push(Arc::new(piece));
            part.events.push(&Event {
                ts,
                cpu: 0,
                tid: None,
                pid: None,
                comm: StrId::default(),
                body: Body::Snapshot { index },
            });
        }
    };
    let ts = whole.events.ts(first.saturating_sub(1));
    // While a recorder switches its events on, some are recorded and others not yet.
    for e in whole.events.iter().take(first).skip(first.saturating_sub(2000)) {
        if !matches!(e.body, Body::TdpSpteChanged { new_spte, .. } if new_spte.is_multiple_of(8)) {
            part.events.push(&e);
        }
    }
    put(&mut part, ts, true);
    for (i, e) in whole.events.iter().enumerate().skip(first) {
        if Some(i) != without {
            part.events.push(&e);
        }
    }
    put(&mut part, t.range().1, false);
    part.info.events = part.events.len() as u64;
    part.info.first_ts = part.events.ts(0);
    // A capture says which events were recorded.
    let names = whole.events.iter().map(|e| event_name(&e.body, &whole.strings).to_owned()).collect();
    part.info.recorded = Some(RecordedEvents { names, all: true });
    part
}

/// Values and certainties by address space, level and frame.
type Entries = BTreeMap<(u8, u8, u64), Vec<(Option<u64>, Certainty)>>;

/// Place and value of every entry at the end, and how it is known.
fn at_end(t: &Timeline) -> Entries {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (e, s) in t.state_at(t.range().1, &StateFilter::default()) {
        if s.spte.is_some_and(|v| v & 0xfff != 0) {
            all.entry((e.as_id, e.level, e.gfn)).or_default().push((s.spte, s.certainty));
        }
    }
    for v in all.values_mut() {
        v.sort_unstable();
    }
    all
}

#[test]
fn a_late_trace_with_a_snapshot_is_as_complete_as_the_whole() {
    for (name, file) in [
        ("6.1-npt", "trace.txt.zst"),
        ("6.1-ept-noad", "trace.txt.zst"),
        ("6.18-npt", "trace.txt.zst"),
        ("7.3-npt", "trace.txt.zst"),
        ("linux-boot", "trace.dat"),
    ] {
        let (trace, whole) = load(&sample(name, file));
        let n = trace.events.len();
        for share in [3, 5, 7] {
            // Between two instants, so that everything before the moment has happened.
            let mut first = n * share / 10;
            while first < n && trace.events.ts(first) == trace.events.ts(first - 1) {
                first += 1;
            }
            let part = late(trace, whole, first, None);
            let t = replay(&part, &ReplayOptions::default());
            // What does not fit because the recorder was still switching its events on says nothing about the kernel.
            let on = trace.events.ts(first - 1);
            assert!(t.evidence().iter().all(|e| e.ts > on || e.after_loss), "{name} from {share}");
            let (mine, all) = (at_end(&t), at_end(whole));
            let wrong: Vec<_> = all
                .iter()
                .filter(|(k, v)| {
                    let values = |v: &[(Option<u64>, Certainty)]| v.iter().map(|x| x.0).collect::<Vec<_>>();
                    mine.get(*k).map(|m| values(m)) != Some(values(v))
                })
                .take(5)
                .collect();
            let got: Vec<_> = wrong.iter().map(|w| mine.get(w.0)).collect();
            assert!(wrong.is_empty(), "{name} from event {first}: {wrong:x?}, and not {got:x?}");
            assert_eq!(mine.len(), all.len(), "{name} from event {first}");
            let doubt = mine.values().flatten().filter(|x| x.1 >= Certainty::Stale).count();
            assert_eq!(doubt, 0, "{name} from event {first}: everything is known");
            let [start, end] = &t.snapshots()[..] else { panic!("two snapshots") };
            assert_eq!((start.equal, start.differ), (0, 0), "{name}: nothing was certain before");
            assert_eq!(
                (end.differ, end.settled),
                (0, 0),
                "{name} from event {first}: {:x?}",
                end.differences.first()
            );
            assert!(end.equal as usize >= all.len(), "{name}");
        }
    }
}

#[test]
fn an_event_that_is_missing_is_seen_at_the_end() {
    let (trace, whole) = load(&sample("6.1-npt", "trace.txt.zst"));
    let first = trace.events.len() / 2;
    // The last change of an entry that is still there at the end.
    let (without, gfn) = trace
        .events
        .iter()
        .enumerate()
        .filter_map(|(i, e)| match e.body {
            Body::TdpSpteChanged { level: 1, gfn, new_spte, .. } if new_spte & 1 != 0 => Some((i, gfn)),
            _ => None,
        })
        .last()
        .expect("a leaf");
    assert!(without > first);
    let mut part = late(trace, whole, first, Some(without));
    // Whatever re-reads the entry would say so, too.
    let mut events = EventStore::new();
    for e in &part.events {
        let reread = matches!(e.body, Body::SetSpte { gfn: g, .. } | Body::FastPageFault { cr2_or_gpa: g, .. } if g == gfn || g >> 12 == gfn);
        if !reread {
            events.push(&e);
        }
    }
    part.events = events;
    let t = replay(&part, &ReplayOptions::default());
    let end = t.snapshots().pop().expect("a snapshot");
    assert!(end.differ >= 1, "{end:?}");
    assert!(end.differences.iter().any(|d| d.gfn == gfn && d.level == 1), "{:x?}", end.differences);
}

/// A slot that may lie anywhere, over others, and beyond every end.
fn made_up_slot(below: &mut impl FnMut(u64) -> u64) -> Slot {
    Slot {
        as_id: below(3) as u8,
        id: below(4) as u16,
        gfn: [below(0x4000), u64::MAX - below(9)][below(2) as usize],
        pages: [below(0x400), u64::MAX][usize::from(below(9) == 0)],
        hva: [below(0x40) << 12, u64::MAX - below(9), 0][below(3) as usize],
        flags: below(8) as u32,
    }
}

/// Tables that no kernel has, with events of a real trace between them: whatever a file says, the replay ends, and answers.
#[test]
fn made_up_tables_do_no_harm() {
    let (trace, _) = load(&sample("6.1-npt", "trace.txt.zst"));
    for seed in 1..40u64 {
        let mut x = seed;
        let mut below = |n: u64| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) % n
        };
        let mut part =
            Trace { info: trace.info.clone(), strings: trace.strings.clone(), events: EventStore::new() };
        let mut at = below(trace.events.len() as u64 / 2) as usize;
        for _ in 0..60 {
            let ts = trace.events.ts(at);
            let piece = match below(12) {
                0 => Piece::Begin { at: ts, all_on: (below(2) == 0).then_some(ts) },
                1 => Piece::Vm(Vm {
                    at: ts,
                    pid: below(3) as u32,
                    slots: (0..below(9)).map(|_| made_up_slot(&mut below)).collect(),
                    ..Vm::default()
                }),
                2 => Piece::VmEnd { at: ts, complete: below(2) == 0, notes: Vec::new() },
                3 => Piece::End { at: ts, notes: Vec::new() },
                4 => Piece::Slots(SlotList {
                    at: ts,
                    pid: below(3) as u32,
                    more: below(3) == 0,
                    slots: (0..below(40)).map(|_| made_up_slot(&mut below)).collect(),
                }),
                5 if below(8) == 0 => Piece::Stopped {
                    at: ts,
                    events: vec!["kvm_unmap_hva_range".into(), "__handle_changed_spte".into(), "x".into()],
                },
                _ => Piece::Table(Box::new(Table {
                    from: ts.saturating_sub(below(1000)),
                    to: ts,
                    page: below(8) << 12,
                    mmu: if below(3) == 0 { Mmu::Shadow } else { Mmu::Tdp },
                    as_id: below(3) as u8,
                    level: below(7) as u8,
                    gfn: [below(4) << 9, u64::MAX - below(512)][below(2) as usize],
                    direct: below(2) == 0,
                    root: below(3) == 0,
                    invalid: below(4) == 0,
                    mirror: below(5) == 0,
                    guest_mode: below(5) == 0,
                    parent: (below(2) == 0).then(|| (below(8) << 12, below(600) as u16)),
                    entries: (0..512)
                        .map(|_| below(9) << 12 | [0, 7, 0x87, 0x827, 0x5a0][below(5) as usize])
                        .collect(),
                    gfns: if below(2) == 0 { Vec::new() } else { (0..below(600)).collect() },
                })),
            };
            let index = part.info.snapshots.len() as u32;
            part.info.snapshots.push(Arc::new(piece));
            let body = Body::Snapshot { index };
            part.events.push(&Event { ts, cpu: 0, tid: None, pid: None, comm: StrId::default(), body });
            for _ in 0..below(60) {
                part.events.push(&trace.events.get(at));
                at += 1;
            }
        }
        let t = replay(&part, &ReplayOptions::default());
        let (_, end) = t.range();
        assert!(t.state_at(end, &StateFilter::default()).len() <= t.entries().count());
        let _ = (t.snapshots(), t.counts_at(end));
    }
}

#[test]
fn probes_that_were_switched_off_show_nothing_from_there_on() {
    let probes = ",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits";
    let text = format!("{}{INSTALLS}+1 t1 exit\n+10 t1 entry 0\n+10 t9 unmap 10000 20000\n", legacy(probes));
    assert!(certainty(&with(&text, &[]), 2).0 <= Certainty::Observed, "the probes show every zap");
    let events = vec!["mmu_spte_update".into(), "mmu_spte_clear_track_bits".into()];
    let off = [(3_000_010, Piece::Stopped { at: 3_000_010_000, events })];
    let t = with(&text, &off);
    assert_eq!(certainty(&t, 2), (Certainty::Stale, Reason::Unrecorded));
}

#[test]
fn a_table_that_is_torn_down_while_memory_is_read_is_no_broken_rule() {
    let tree = "layout C/npt\nkernel 6.1.0\nvm 50 1 9\n1 t1 root\n+1 t1 entry 0\n+1 t1 exit\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T11\n\
        +1 t1 page 2 0\n+1 t1 tdp 3 0 empty T12\n+1 t1 page 1 0\n+1 t1 tdp 2 0 empty T13\n+1 t1 page 1 200\n+1 t1 tdp 2 200 empty T14\n\
        +1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n";
    // The link was cut in memory, and is traced after the snapshot, with what the table held.
    let later = "2000 t9 tdp 2 0 T13 empty\n+1 t9 zappage 1 0\n+1 t9 tdp 1 5 W55 frozen\n+1 t9 mark done\n";
    let plain = fixture::trace(&format!("{tree}{later}")).expect("a trace");
    let link = |gfn: u64, level: u8| {
        let of = |e: Event| match e.body {
            Body::TdpSpteChanged { gfn: g, level: l, new_spte, .. } if (g, l) == (gfn, level) => {
                Some(new_spte)
            }
            _ => None,
        };
        plain.events.iter().find_map(of).expect("the link")
    };
    let table = |page: u64, level: u8, parent: Option<(u64, u16)>, filled: &[(usize, u64)]| {
        let mut entries = vec![0; 512];
        for (i, v) in filled {
            entries[*i] = *v;
        }
        Piece::Table(Box::new(Table {
            from: 1_000_000,
            to: 1_000_000,
            page,
            mmu: Mmu::Tdp,
            as_id: 0,
            level,
            gfn: 0,
            direct: true,
            root: level == 4,
            invalid: false,
            mirror: false,
            guest_mode: false,
            parent,
            entries,
            gfns: Vec::new(),
        }))
    };
    let at = 1_000_000;
    let vcpus = vec![Vcpu { number: 0, tid: Some(1) }];
    let pieces = [
        Piece::Begin { at, all_on: None },
        Piece::Vm(Vm { at, pid: 50, name: "vm".into(), vcpus, slots: Vec::new() }),
        table(0x11000, 3, None, &[(0, link(0, 3))]),
        table(0x12000, 2, Some((0x11000, 0)), &[(1, link(0x200, 2))]),
        Piece::VmEnd { at, complete: false, notes: Vec::new() },
        Piece::End { at, notes: Vec::new() },
    ];
    let pieces: Vec<(u64, Piece)> = pieces.into_iter().map(|p| (1000, p)).collect();
    let t = with(&format!("{tree}{later}"), &pieces);
    assert_eq!(t.evidence(), [], "the thread had only not come to tracing it");
    // Without a snapshot a change of a table that is gone is one.
    let dead = format!(
        "{tree}2000 t9 tdp 2 0 T13 empty\n+1 t9 zappage 1 0\n+1 t9 tdp 1 5 W55 frozen\n+1 t9 mark done\n+9 t9 tdp 1 6 empty W66\n"
    );
    assert!(!with(&dead, &[]).evidence().is_empty());
}

#[test]
fn a_story_says_that_memory_was_read_when_it_was() {
    let (trace, t) = load(&sample("6.1-shadow64-probes", "mmuscope.perf.data"));
    let first = t.snapshots().iter().map(|s| s.start).min().expect("a snapshot");
    let story = t.page_story(trace, VmId(0), 0, 0xd0000);
    let read: Vec<u64> =
        story.lines.iter().filter(|l| l.text.contains("the recorder read")).map(|l| l.ts).collect();
    assert!(!read.is_empty() && read.iter().all(|ts| *ts >= first), "{read:?} and {first}");
}

/// A snapshot of two tables of the legacy MMU: frames 2 and 0x201 are mapped.
fn two_tables(us: u64) -> Vec<(u64, Piece)> {
    let at = us * 1000;
    let table = |page: u64, gfn: u64, index: usize| {
        let mut entries = vec![0; 512];
        entries[index] = 0x77_0867;
        Piece::Table(Box::new(Table {
            from: at,
            to: at,
            page,
            mmu: Mmu::Shadow,
            as_id: 0,
            level: 1,
            gfn,
            direct: true,
            root: false,
            invalid: false,
            mirror: false,
            guest_mode: false,
            parent: None,
            entries,
            gfns: Vec::new(),
        }))
    };
    let vcpus = vec![Vcpu { number: 0, tid: Some(1) }];
    let pieces = [
        Piece::Begin { at, all_on: Some(at) },
        Piece::Vm(Vm { at, pid: 50, name: "vm".into(), vcpus, slots: Vec::new() }),
        table(0x4_0000, 0, 2),
        table(0x4_1000, 0x200, 1),
        Piece::VmEnd { at, complete: true, notes: Vec::new() },
        Piece::End { at, notes: Vec::new() },
    ];
    pieces.into_iter().map(|p| (us, p)).collect()
}

#[test]
fn a_late_trace_knows_no_entry_of_which_a_probe_may_speak_before_the_first_install() {
    // What lies between the virtual and the physical address of an entry is shown by the first install only.
    let head = legacy(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits");
    let clear = |sptep: u64| {
        format!(
            "+1 t9 mmu_spte_clear_track_bits (mmu_spte_clear_track_bits+0x0/0x1b0 [kvm]) sptep={sptep:#x}\n"
        )
    };
    let text = |sptep| format!("{head}1 t1 exit\n3000000 t9 mark on\n{}+1 t9 mark off\n", clear(sptep));
    let known = (Certainty::Observed, Reason::Snapshot);
    let t = with(&text(0xffff_9a80_4004_0010), &two_tables(2_000_000));
    assert_eq!(certainty(&t, 2), (Certainty::Stale, Reason::Ambiguous));
    assert_eq!(certainty(&t, 0x201), known);
    let t = with(&text(0xffff_9a80_4004_0018), &two_tables(2_000_000));
    assert_eq!((certainty(&t, 2), certainty(&t, 0x201)), (known, known), "another entry of that table");
}

#[test]
fn a_page_that_is_zapped_is_the_table_of_its_frame_only() {
    // No event of the trace made these tables; the snapshot says which frame each is of.
    let head = legacy(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits");
    let text = format!("{head}1 t1 exit\n3000000 t9 mark on\n+1 t9 zappage 1 0\n+1 t9 mark off\n");
    let t = with(&text, &two_tables(2_000_000));
    assert_eq!(certainty(&t, 0x201), (Certainty::Observed, Reason::Snapshot));
    let all = t.state_at(t.range().1, &StateFilter::default());
    let zapped = all.iter().find(|(e, _)| e.level == 1 && e.gfn == 2);
    assert!(zapped.is_none_or(|(_, s)| s.certainty == Certainty::Stale), "{zapped:?}");
}

#[test]
fn what_a_loss_took_out_of_a_snapshot_is_not_gone() {
    let head = legacy(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits");
    // Frame 0x201 is mapped by a table whose reading is lost.
    let text = format!(
        "{head}1 t1 exit\n1900000 t1 fault 201 w\n+1 t1 page 1 200\n+1 t1 want 1 201 77\n\
         +1 t1 kvm_mmu_set_spte gfn 201 spte 770867 (rwxu) level 1 at 41008\n+1 t1 entry 0\n2000001 t9 lost 1\n3000000 t9 mark on\n"
    );
    let mut pieces = two_tables(2_000_000);
    pieces.remove(3);
    pieces[0].1 = Piece::Begin { at: 2_000_000_000, all_on: None };
    for (us, _) in &mut pieces[3..] {
        *us = 2_000_010;
    }
    let all = with(&text, &pieces).state_at(3_000_000_000, &StateFilter::default());
    let of = all.iter().find(|(e, _)| e.level == 1 && e.gfn == 0x201).expect("the entry, unknown now");
    assert_eq!((of.1.certainty, of.1.reason), (Certainty::Stale, Reason::Lost));
}

#[test]
fn a_table_without_a_name_is_not_missed_in_memory() {
    // A fast fault shows an entry before anything shows that the MMU is not the TDP MMU; the snapshot has its table by its page.
    let text = format!(
        "{}1 t1 exit\n+1 t1 fault 2 w\n+1 t1 fast 2 R77 W77 fixed\n+1 t1 entry 0\n3000000 t9 mark on\n",
        legacy(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits")
    );
    let t = with(&text, &two_tables(2_000_000));
    assert!(t.top_zaps(9).is_empty(), "{:?}", t.top_zaps(9));
    assert!(t.snapshots().iter().all(|s| s.differ == 0), "{:?}", t.snapshots());
}

/// The two tables of [`two_tables`], of which reading took 20 µs until `us`.
fn two_tables_read_slowly(us: u64) -> Vec<(u64, Piece)> {
    let mut pieces = two_tables(us);
    for (_, p) in &mut pieces {
        match p {
            Piece::Begin { at, .. } | Piece::Vm(Vm { at, .. }) => *at -= 20_000,
            Piece::Table(t) => t.from -= 20_000,
            _ => {}
        }
    }
    pieces
}

#[test]
fn an_event_while_a_table_is_read_decides_against_what_was_read() {
    // None of these events finds an entry where it stands, because the trace had not named the tables by then.
    let head = legacy(",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits");
    let t9 = "mmu_spte_clear_track_bits (mmu_spte_clear_track_bits+0x0/0x1b0 [kvm])";
    let events = [
        "t1 fast 2 0x770865 0x770867 fixed at ffff9a8040040010".to_string(),
        format!("t9 {t9} sptep=0xffff9a8040040010"),
        "t9 zappage 1 0".to_string(),
    ];
    for (event, shown) in events.iter().zip([Reason::FastFault, Reason::Ambiguous, Reason::Ambiguous]) {
        let text = |us: u64| format!("{head}1 t1 exit\n{us} {event}\n3000000 t9 mark on\n+1 t9 mark off\n");
        let mut pieces = two_tables_read_slowly(2_000_000);
        for (_, p) in &mut pieces {
            if let Piece::Table(t) = p
                && t.gfn == 0
            {
                t.entries[2] = 0x77_0865;
            }
        }
        let named = |t: &Timeline, gfn: u64| {
            // A fast fault before the MMU is known may also have been in a table that no event names.
            let all = t.state_at(t.range().1, &StateFilter::default());
            let found = all.iter().find(|(e, _)| e.level == 1 && e.gfn == gfn && e.sptep.is_some());
            found.map(|(_, s)| (s.spte, s.certainty, s.reason)).expect("an entry that was read")
        };
        let read = |value| (Some(value), Certainty::Observed, Reason::Snapshot);
        let before = with(&text(1_999_970), &pieces);
        assert_eq!(named(&before, 2), read(0x77_0865), "{event} before the table was read");
        let during = with(&text(1_999_990), &pieces);
        assert_eq!(named(&during, 2).2, shown, "{event} while the table was read");
        assert_eq!(named(&during, 0x201), read(0x77_0867), "{event} is not of the other table");
        if shown == Reason::FastFault {
            assert_eq!(named(&during, 2), (Some(0x77_0867), Certainty::Observed, shown));
        }
    }
}

#[test]
fn a_fast_fault_after_a_snapshot_is_of_the_entry_that_may_lie_there_and_held_its_old_value() {
    // The probes show changes of other functions only: that they are set says nothing about the lockless path.
    for events in ["", ",probe:mmu_spte_update,probe:mmu_spte_clear_track_bits"] {
        let head = legacy(events);
        let fault = "+1 t1 fast 2 0x770867 0x770865 fixed at ffff9a8040040010";
        let text =
            format!("{head}1 t1 exit\n2100000 t1 fault 2 w\n{fault}\n+1 t1 entry 0\n3000000 t9 mark on\n");
        let t = with(&text, &two_tables(2_000_000));
        let all = t.state_at(t.range().1, &StateFilter::default());
        let of = all.iter().find(|(e, _)| e.level == 1 && e.gfn == 2 && e.sptep == Some(0x4_0010));
        let span = of.map(|(_, s)| (s.spte, s.reason)).expect("the entry that was read");
        assert_eq!(span.0, Some(0x77_0865), "{events:?}");
    }
}

#[test]
fn an_mmio_entry_that_is_read_is_the_one_that_an_event_had_named_by_its_frame_alone() {
    let head = legacy("");
    let text = format!(
        "{head}1 t1 exit\n1900000 t1 fault 7 r\n+1 t1 mmio 7 3 at ffff9a8040040038\n+1 t1 entry 0\n3000000 t9 mark on\n"
    );
    let mut pieces = two_tables(2_000_000);
    let mmio = {
        let t = with(&text, &[]);
        t.layout(t.vms()[0].id).layout.mmio(7, 6, 3)
    };
    for (_, p) in &mut pieces {
        if let Piece::Table(t) = p
            && t.gfn == 0
        {
            t.entries[7] = mmio;
        }
    }
    let t = with(&text, &pieces);
    let all = t.state_at(t.range().1, &StateFilter::default());
    let held: Vec<_> =
        all.iter().filter(|(e, s)| e.gfn == 7 && s.state == State::Mmio).map(|(e, _)| e.sptep).collect();
    assert_eq!(held, [Some(0x4_0038)]);
}

#[test]
fn a_snapshot_alone_is_a_picture_of_a_moment() {
    let mut trace = fixture::trace("recorded unsaid\nkernel 6.1.0\n").expect("a trace without events");
    trace.info.host.params = [("param.kvm_amd.npt".to_owned(), "N".to_owned())].into();
    let mut pieces = two_tables(1000);
    for (_, p) in &mut pieces {
        let Piece::Table(t) = p else { continue };
        let gfn = t.gfn;
        // A shadow page of a guest's table has the frame of each entry beside it.
        (t.direct, t.gfns) = (false, (gfn..gfn + 512).collect());
    }
    let trace = with_pieces(trace, &pieces);
    let t = replay(&trace, &ReplayOptions::default());
    assert!(t.is_picture() && t.unrecorded().is_empty(), "no event would have shown anything");
    let vm = &t.vms()[0];
    assert_eq!((vm.vcpu_count(), vm.vcpus[0].tid, vm.comm.as_str()), (1, 1, "vm"));
    assert_eq!(t.layout(vm.id).layout.mode, mmuscope_spte::Mode::Shadow64);
    let story = |gfn| t.page_story(&trace, vm.id, 0, gfn);
    assert!(story(2).headline.ends_with("at the end present, writable (observed)"), "{}", story(2).headline);
    assert_eq!(story(0x7000).headline, "gfn 0x7000: not mapped");
    assert!(story(2).notes.iter().all(|n| !n.contains('%')), "{:?}", story(2).notes);
    assert!(!with("recorded unsaid\n1 t1 exit\n", &pieces).is_picture(), "an event makes it a recording");
}
