//! All events that name a guest page: by itself, or by an entry, a table or a range that it is in.

use std::collections::BTreeMap;

use mmuscope_trace::{BLOCK, Body, Event, Kind, Trace};
use rayon::prelude::*;

use super::level_size;
use crate::kinds::{kind_of, name_of};
use crate::model::{EventIx, VmId};
use crate::timeline::Timeline;

/// An event that names a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    pub(super) ev: EventIx,
    pub(super) event: Event,
}

impl Timeline {
    /// For each page (address space and frame) every event of its VM that names it, in order, from one pass over the events. What names no VM
    /// or address space may be of any.
    pub(super) fn naming(&self, trace: &Trace, vm: VmId, pages: &[(u8, u64)]) -> Vec<Vec<Naming>> {
        let kinds = &self.store().ev_kind;
        let mut may = [false; 256];
        for k in Kind::ALL {
            may[usize::from(*k as u8)] = k.names_frames();
        }
        let mut by_gfn: Vec<(u64, u8, usize)> =
            pages.iter().enumerate().map(|(i, (as_id, gfn))| (*gfn, *as_id, i)).collect();
        by_gfn.sort_unstable();
        let end = self.events().min(trace.events.len());
        let of_block = |b: usize| {
            let (from, to) = (b * BLOCK, ((b + 1) * BLOCK).min(end));
            let mut found: Vec<(usize, Naming)> = Vec::new();
            if kinds.get(from..to).is_some_and(|k| k.iter().any(|k| may[usize::from(*k)])) {
                let mut block = Vec::new();
                trace.events.block(b, &mut block);
                for (i, e) in block.iter().enumerate().take(to - from) {
                    if !may[usize::from(kind_of(&e.body))] {
                        continue;
                    }
                    let Some((first, past)) = e.body.frames() else { continue };
                    let named = &by_gfn[by_gfn.partition_point(|p| p.0 < first)..];
                    for (_, as_id, page) in named.iter().take_while(|p| p.0 < past) {
                        if self.is_of(e, vm, *as_id) {
                            found.push((*page, Naming { ev: (from + i) as EventIx, event: *e }));
                        }
                    }
                }
            }
            found
        };
        let mut out = vec![Vec::new(); pages.len()];
        for found in (0..end.div_ceil(BLOCK)).into_par_iter().map(of_block).collect::<Vec<_>>() {
            for (page, naming) in found {
                out[page].push(naming);
            }
        }
        out
    }

    /// Whether an event may be of an address space of a VM.
    fn is_of(&self, e: &Event, vm: VmId, as_id: u8) -> bool {
        let whose = self.attribution();
        whose.vm(e).is_none_or(|v| v == vm) && whose.as_id(e).is_none_or(|a| a == as_id)
    }
}

/// What an event says that no entry's life and no fault does; `None` for those that only ever go with others.
pub(super) fn of_event(body: &Body) -> Option<String> {
    Some(match *body {
        Body::TdpSpteChanged { level, old_spte, new_spte, .. } => format!(
            "{} entry changed from {old_spte:#x} to {new_spte:#x}, in a table that is not known",
            level_size(level)
        ),
        Body::SetSpte { level, spte, .. } => {
            format!("kvm_mmu_set_spte finds the {} entry set; spte {spte:#x}", level_size(level))
        }
        Body::FastPageFault { old_spte, new_spte, .. } => {
            format!("fast_page_fault finds {old_spte:#x} and leaves {new_spte:#x}")
        }
        Body::MarkMmioSpte { generation, .. } => format!("mark_mmio_spte, generation {generation:#x}"),
        Body::AgePage { young, .. } => {
            format!("the host ages it: {}", if young { "accessed" } else { "not accessed" })
        }
        Body::TryAsyncGetPage { .. } => "the host has to bring it in: an asynchronous page fault".to_owned(),
        Body::SetMemAttributes { attributes, .. } => {
            format!("made {} memory", if attributes & 8 != 0 { "private" } else { "shared" })
        }
        Body::RmpFault { pfn, error_code, .. } => {
            format!("RMP fault, error code {error_code:#x}, host frame {pfn:#x}")
        }
        _ => return None,
    })
}

/// How many events of each name.
pub(super) fn count(naming: &[Naming]) -> String {
    let mut by_kind: BTreeMap<u8, usize> = BTreeMap::new();
    for n in naming {
        *by_kind.entry(kind_of(&n.event.body)).or_default() += 1;
    }
    let mut parts: Vec<(usize, &str)> = by_kind.into_iter().map(|(k, n)| (n, name_of(k))).collect();
    parts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let parts: Vec<String> = parts.iter().map(|(n, name)| format!("{n} {name}")).collect();
    parts.join(", ")
}
