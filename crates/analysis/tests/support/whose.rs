//! Every face gives an event to the same VM: the column, both filters, the counts of the summary, and what the replay made of the event.

use mmuscope_analysis::Filter;
use mmuscope_analysis::events::{self, Attribution, EVENTS, EventFilter};
use mmuscope_analysis::summary::EventCounts;
use mmuscope_analysis::table::{Cell, Rows};
use mmuscope_replay::{Certainty, OwnerReason, ReplayOptions, VmId, VmSearch, replay};
use mmuscope_trace::{Body, ReadOptions, Trace};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Two VMs as a text without processes shows them: VMMs 10 and 20, vCPU threads 11, 12 and 21, 22, and a kernel thread that serves both.
fn two_vms() -> Trace {
    let mut text = String::new();
    let mut us = 0;
    let mut line = |who: &str, event: String| {
        us += 1;
        let _ = writeln!(text, "{who:>16} [000] .....     1.{us:06}: {event}");
    };
    for (n, page) in [(1, 0x5_0000u64), (2, 0x9_0000)] {
        let (vcpu0, vcpu1) = (format!("vcpu0-{n}1"), format!("vcpu1-{n}2"));
        let change = |level: u8, gfn: u64, old: u64, new: u64| {
            format!(
                "kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level {level} old_spte {old:x} new_spte {new:x}"
            )
        };
        let fault = |vcpu: u8, gfn: u64| {
            format!(
                "kvm_page_fault: vcpu {vcpu} rip 0x6000 address {:#018x} error_code 0x100000006",
                gfn << 12
            )
        };
        line(&vcpu0, "kvm_entry: vcpu 0, rip 0x6000".to_owned());
        line(&vcpu0, fault(0, 0x100));
        line(&vcpu0, change(3, 0, 0, page << 12 | 0x827));
        line(&vcpu0, change(2, 0, 0, (page + 1) << 12 | 0x827));
        line(&vcpu0, change(1, 0x100, 0, (page + 0x100) << 12 | 0xe67));
        line(
            &vcpu0,
            format!(
                "kvm_mmu_set_spte: gfn 100 spte {:x} (rwxu) level 1 at {:x}",
                (page + 0x100) << 12 | 0xe67,
                ((page + 1) << 12) + 0x800
            ),
        );
        line(&vcpu1, "kvm_entry: vcpu 1, rip 0x6000".to_owned());
        line(&vcpu1, fault(1, 0x101));
        line(&vcpu1, change(1, 0x101, 0, (page + 0x101) << 12 | 0xe67));
        line(
            &vcpu1,
            format!(
                "kvm_mmu_set_spte: gfn 101 spte {:x} (rwxu) level 1 at {:x}",
                (page + 0x101) << 12 | 0xe67,
                ((page + 1) << 12) + 0x808
            ),
        );
        line(&vcpu0, "kvm_entry: vcpu 0, rip 0x6000".to_owned());
        line(
            &format!("vmm-{n}0"),
            change(1, 0x100, (page + 0x100) << 12 | 0xe67, (page + 0x100) << 12 | 0xe65),
        );
        line(&format!("vmm-{n}0"), change(2, 0, (page + 1) << 12 | 0x827, 0));
        line("kworker/0:1-50", change(1, 0x300, 0x77_7000 | 0xe67, 0x77_7000 | 0xe65));
        line(&format!("vmm-{n}0"), format!("tracing_mark_write: end of {n}"));
        line("sh-7", format!("tracing_mark_write: after {n}"));
    }
    Trace::from_text(&text).expect("a trace")
}

/// The VM of each event, having compared all faces, and the number of values that the replay put into entries of the VM of their event.
fn agreed(trace: &Trace, name: &str) -> (Vec<Option<VmId>>, usize) {
    let whose = Attribution::of(trace);
    let timeline = replay(trace, &ReplayOptions::default());
    let mut search = VmSearch::default();
    trace.events.iter().for_each(|e| search.event(&e, &trace.strings));
    let streamed = search.finish(&trace.info);
    assert_eq!((whose.vms(), whose.vms()), (streamed.vms(), timeline.vms().len()), "{name}");
    let vms: Vec<Option<VmId>> = trace.events.iter().map(|e| whose.vm(&e)).collect();
    let mut counts = EventCounts::default();
    let mut rows = Rows::new(&EVENTS);
    let mut chunks = Vec::new();
    let mut faults: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    for (i, e) in trace.events.iter().enumerate() {
        for other in [&streamed, timeline.attribution()] {
            assert_eq!(other.owner(&e), whose.owner(&e), "{name}: event {i}");
        }
        counts.add(&e, &trace.strings, &whose);
        events::push(&mut rows, i as u64, &e, &trace.strings, &whose, 0);
        if rows.is_full() {
            chunks.push(rows.take());
        }
        if matches!(e.body, Body::PageFault { .. }) && e.body.gfn().is_some() {
            *faults.entry(vms[i].map(|v| v.0.into())).or_default() += 1;
        }
    }
    chunks.push(rows.take());
    let column = EVENTS.position("vm").expect("a column");
    let number = |v: Option<VmId>| v.map_or(Cell::Null, |v| Cell::U64(v.0.into()));
    for vm in 0..whose.vms() as u32 {
        let filter = Filter::new(&format!("vm == {vm}"), &EVENTS).expect("a filter");
        let of_vm = EventFilter { vms: [vm].into(), ..EventFilter::default() };
        let mut i = 0;
        for chunk in &chunks {
            for (row, passes) in filter.matches(chunk).into_iter().enumerate() {
                let is = vms[i] == Some(VmId(vm as u16));
                assert_eq!(chunk.cell(row, column), number(vms[i]), "{name}: event {i}");
                let e = trace.events.get(i);
                assert_eq!((passes, of_vm.passes(&e, &trace.strings, &whose)), (is, is), "{name}: event {i}");
                i += 1;
            }
        }
        assert_eq!(i, vms.len());
    }
    let mut counted: BTreeMap<Option<u32>, u64> = BTreeMap::new();
    for (vm, _, n) in counts.top_faults(usize::MAX) {
        *counted.entry(vm).or_default() += n;
    }
    assert_eq!(counted, faults, "{name}");
    for f in timeline.faults() {
        assert_eq!(Some(f.vm), vms[f.event as usize], "{name}: fault at event {}", f.event);
    }
    let mut compared = 0;
    for e in timeline.entries() {
        // A change puts entries of other VMs in doubt that it may have been made in; what it states is of its own.
        let stated = timeline.spans(e.id).filter(|s| s.certainty < Certainty::Stale);
        for (event, spte) in stated.filter_map(|s| Some((s.opened_by? as usize, s.spte?))) {
            let Body::TdpSpteChanged { new_spte, .. } = trace.events.get(event).body else { continue };
            if let Some(vm) = vms[event].filter(|_| spte == new_spte) {
                assert_eq!(e.vm, vm, "{name}: entry {e:x?} by event {event}");
                compared += 1;
            }
        }
    }
    (vms, compared)
}

#[test]
fn one_event_has_one_vm_on_every_face() {
    for sample in ["6.1-npt", "5.10-shadow64", "7.3-npt"] {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(sample).join("trace.txt.zst");
        let trace = Trace::load(&[file], &ReadOptions::default()).expect("a sample");
        let (vms, compared) = agreed(&trace, sample);
        // Shadow paging has no change events.
        assert_eq!(compared > 0, !sample.contains("shadow"), "{sample}");
        assert!(vms.contains(&Some(VmId(0))) && vms.iter().all(|v| v.is_none_or(|v| v.0 == 0)));
    }
    let trace = two_vms();
    let (vms, compared) = agreed(&trace, "two VMs");
    assert!(compared >= 10, "{compared}");
    for (e, vm) in trace.events.iter().zip(&vms) {
        let tid = e.tid.expect("a thread");
        let want = match tid {
            7 | 50 => None,
            t => Some(VmId(t as u16 / 10 - 1)),
        };
        assert_eq!(*vm, want, "{e:?}");
    }
}

#[test]
fn whose_an_event_is_has_a_reason_and_a_certainty() {
    let trace = two_vms();
    let whose = Attribution::of(&trace);
    let of = |tid: u32, whose: &Attribution, trace: &Trace| {
        let e = trace.events.iter().find(|e| e.tid == Some(tid) && e.body.is_event()).expect("an event");
        whose.owner(&e)
    };
    for tid in [10, 11, 12, 20, 21, 22] {
        assert_eq!(of(tid, &whose, &trace).reason, OwnerReason::Tables, "thread {tid}");
    }
    let kernel = of(50, &whose, &trace);
    assert_eq!(
        (kernel.vm, kernel.vcpu, kernel.as_id, kernel.reason),
        (None, None, Some(0), OwnerReason::Unknown)
    );
    assert_eq!(kernel.reason.certainty(), None);
    let second = of(22, &whose, &trace);
    assert_eq!(
        (second.vm, second.vcpu, second.reason.certainty()),
        (Some(VmId(1)), Some(1), Some(Certainty::Implied))
    );
    let mut markers = trace.events.iter().filter(|e| matches!(e.body, Body::Marker { .. }));
    let (of_vmm, of_shell) = (markers.next().expect("a marker"), markers.next().expect("a marker"));
    assert_eq!(whose.owner(&of_vmm).vm, Some(VmId(0)));
    assert_eq!(whose.owner(&of_shell).reason, OwnerReason::Host);
}
