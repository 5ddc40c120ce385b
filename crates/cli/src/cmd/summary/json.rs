//! The summary for scripts: every number of the text, as JSON.

use super::{
    TOP, Tops, is_shown, known, layout_era, lost, mapped_again, not_replayed, notes, shade_word, tops,
    zaps_by_evidence,
};
use mmuscope_analysis::findings::Finding;
use mmuscope_analysis::slots::outside;
use mmuscope_analysis::summary::EventCounts;
use mmuscope_replay::{Counts, Shade, State, Timeline, Unrecorded, Vm, VmId};
use mmuscope_trace::TraceInfo;
use mmuscope_units::level_size;
use serde_json::{Map, Value, json};

/// The whole summary. `too_large_for` is the memory in bytes that a replay may use, where it was left out because it would need more.
pub(super) fn value(
    info: &TraceInfo,
    counts: &EventCounts,
    timeline: Option<&Timeline>,
    stands_out: &[Finding],
    too_large_for: Option<u64>,
) -> Value {
    let names: Map<String, Value> =
        counts.names().into_iter().map(|(n, c)| (n.to_string(), c.into())).collect();
    let files: Vec<Value> = info
        .files
        .iter()
        .map(|f| json!({"path": f.path.to_string_lossy(), "format": f.kind.to_string(), "bytes": f.size}))
        .collect();
    let host = &info.host;
    let mut v = json!({
        "files": files,
        "host": {"release": host.os_release, "cpu": host.cpu_desc, "cpus": host.nr_cpus, "hostname": host.hostname},
        "events": counts.events,
        "duration": info.last_ts.saturating_sub(info.first_ts),
        "first": info.first_ts,
        "last": info.last_ts,
        "clock": info.clock.name,
        "lost": {"known": info.lost.known, "total": info.lost.total, "moments": info.lost.moments, "text": lost(info)},
        "damage": info.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "damage_lines": info.damage_lines(),
        "partial": info.is_partial(),
        "notes": notes(info, counts),
        "by_event": names,
        "replayed": timeline.is_some(),
        "not_replayed": too_large_for.map(|room| not_replayed(counts.events, room)),
    });
    let pages = |list: Tops| -> Value {
        list.into_iter()
            .map(|(vm, as_id, gfn, count)| {
                json!({"vm": vm, "as_id": as_id, "gfn": format!("{gfn:#x}"), "count": count})
            })
            .collect()
    };
    let (faults, zaps, mmio) = tops(counts, timeline, TOP);
    v["top_faults"] = pages(faults);
    v["top_zaps"] = zaps.map_or(Value::Null, pages);
    v["top_mmio"] = pages(mmio);
    if let Some(t) = timeline {
        replay(&mut v, info, t);
        v["stands_out"] = json!(stands_out);
    }
    v
}

fn replay(v: &mut Value, info: &TraceInfo, t: &Timeline) {
    let (_, end) = t.range();
    let c = t.counts_at(end);
    let states: Map<String, Value> = [State::Present, State::Mmio, State::Removed, State::Table]
        .into_iter()
        .map(|s| (s.name().to_string(), c.state(s).into()))
        .collect();
    v["at_end"] = Value::Object(states);
    let k = known(t, end);
    v["known"] = json!({
        "entries": k.all, "known": k.facts, "maybe_protected": k.writable, "implied": k.implied, "stale": k.stale,
        "stale_because": k.why.iter().map(|(r, n)| json!({"reason": r.words(), "count": n})).collect::<Vec<_>>(),
    });
    v["phases"] = t
        .phases()
        .iter()
        .map(|p| {
            json!({
                "text": p.text, "vm": p.vm.map(|vm| vm.0), "start": p.start.saturating_sub(info.first_ts),
                "end": p.end.saturating_sub(info.first_ts), "duration": p.end.saturating_sub(p.start),
            })
        })
        .collect();
    v["vms"] = t.vms().iter().map(|one| vm(info, t, one)).collect();
    v["faults"] = t.fault_count().into();
    v["evidence"] = t.evidence().len().into();
    v["zaps"] = t.zap_count().into();
    let (traced, implied) = zaps_by_evidence(t);
    v["zaps_traced"] = traced.into();
    v["zaps_implied"] = implied.into();
    v["unrecorded"] = Unrecorded::badges(&t.unrecorded()).into_iter().map(|(_, text)| json!(text)).collect();
    v["left_out"] = t.left_out().into();
    let accesses = t.mmio_ranges().iter().filter_map(|r| r.accesses).sum::<u64>();
    v["mmio"] = json!({
        // `null` where accesses were not recorded: their number is not known.
        "accesses": (t.mmio_accesses_traced() || t.mmio_ranges().is_empty()).then_some(accesses),
        "faults": t.faults().filter(|f| f.mmio).count(),
        "ranges": t.mmio_ranges().len(),
    });
}

fn vm(info: &TraceInfo, t: &Timeline, vm: &Vm) -> Value {
    let vcpus: Vec<Value> =
        vm.vcpus.iter().map(|v| json!({"tid": v.tid, "vcpu": v.vcpu_id, "comm": v.comm})).collect();
    let layout: Vec<Value> = t
        .layout(vm.id)
        .parts
        .iter()
        .map(|p| json!({"what": p.what, "value": p.value, "from": p.from.name(), "why": p.why}))
        .collect();
    let ended = vm.ended.as_ref().map(|e| {
        json!({
            "start": e.start, "end": e.end, "event": e.event, "tid": e.tid, "comm": e.comm, "by": e.by(),
            "after": e.start.saturating_sub(info.first_ts),
        })
    });
    let spaces: Vec<Value> =
        t.address_spaces(vm.id).into_iter().map(|as_id| space(t, vm.id, as_id)).collect();
    json!({
        "vm": vm.id.0, "pid": vm.pid, "comm": vm.comm, "mmu": vm.kind.name(), "vcpus": vcpus, "layout": layout,
        "provenance": vm.provenance, "torn_down": ended, "memslots": slots(t, vm.id), "era": layout_era(t, vm.id),
        "spaces": spaces,
    })
}

/// The memory slots at the end, and the faults that hit none; `null` where nothing is known of slots.
fn slots(t: &Timeline, vm: VmId) -> Value {
    let end = t.range().1;
    let here = t.slots().iter().filter(|s| s.vm == vm && s.at(end)).count();
    outside(t, vm).map_or(Value::Null, |o| {
        json!({"at_end": here, "faults_known": o.known, "faults_outside": o.faults, "frames_outside": o.frames.len()})
    })
}

/// One address space at the end: the number of entries by state, and the bytes that they map, each frame once.
fn space(t: &Timeline, vm: VmId, as_id: u8) -> Value {
    let (start, end) = t.range();
    let c = t.counts_of(vm, as_id, end);
    let entries: Map<String, Value> = [State::Present, State::Mmio, State::Removed, State::Table]
        .into_iter()
        .map(|s| (s.name().to_string(), c.state(s).into()))
        .collect();
    let peak = t.peak(vm, as_id);
    json!({
        "as_id": as_id,
        "entries": entries,
        "present_bytes": c.present_bytes(None),
        "stale_bytes": c.stale_bytes(None),
        "mmio_bytes": c.bytes(Shade::Mmio),
        "mapped_again_bytes": mapped_again(&c),
        "by_size": by_size(&c),
        "peak_bytes": peak.map(|p| p.1),
        "peak_at": peak.map(|p| p.0.saturating_sub(start)),
        "peak_by_size": peak.map(|p| by_size(&t.counts_of(vm, as_id, p.0))),
    })
}

/// Number of entries by what they allow and by page size, and the bytes of guest memory that they map (`null` for tables).
fn by_size(counts: &Counts) -> Value {
    Shade::ALL
        .into_iter()
        .filter(|s| is_shown(*s) && counts.total(*s) > 0)
        .map(|s| {
            let entries: Map<String, Value> = (1..=5)
                .filter(|l| counts.at(s, *l) > 0)
                .map(|l| (level_size(l).to_string(), counts.at(s, l).into()))
                .collect();
            let bytes = (s != Shade::Table).then(|| counts.bytes(s));
            json!({"what": shade_word(s), "entries": entries, "bytes": bytes})
        })
        .collect()
}
