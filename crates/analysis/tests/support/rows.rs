//! All tables, and rows of one of them, for the tests of this crate and of the one that writes tables.

use mmuscope_analysis::events::{self, Attribution, EVENTS};
use mmuscope_analysis::stat::STAT;
use mmuscope_analysis::table::{Rows, Table};
use mmuscope_analysis::timeline::{FAULTS, MEMORY, MEMSLOTS, SPANS, STATE};
use mmuscope_trace::Trace;

/// Every table.
pub(crate) const TABLES: [&Table; 7] = [&STATE, &SPANS, &FAULTS, &EVENTS, &MEMORY, &MEMSLOTS, &STAT];

/// Six events as tracefs prints them: an exit, its fault, what KVM did about it, and a marker with quotes and commas.
pub(crate) const TEXT: &str = "\
            load-111     [001] d..1.     4.000001: kvm_exit: vcpu 1 reason npf rip 0x6000 info1 0x0000000100000006 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000
            load-111     [001] .....     4.000002: kvm_page_fault: vcpu 1 rip 0x6000 address 0x0000000000100000 error_code 0x100000006
            load-111     [001] .....     4.000003: kvm_mmu_spte_requested: gfn 100 pfn 7ea1 level 1
            load-111     [001] .....     4.000004: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 0 new_spte 7ea1e67
            load-111     [001] .....     4.000005: kvm_mmu_set_spte: gfn 100 spte 7ea1e67 (rwxu) level 1 at 55fe800
         a,b \"c\"-7       [000] .....     4.000006: tracing_mark_write: a \"mark\", with commas
";

/// The events of [`TEXT`] as rows.
pub(crate) fn rows() -> Rows {
    let trace = Trace::from_text(TEXT).expect("the text is a trace");
    let mut rows = Rows::new(&EVENTS);
    let whose = Attribution::of(&trace);
    for (id, e) in trace.events.iter().enumerate() {
        events::push(&mut rows, id as u64, &e, &trace.strings, &whose, trace.info.first_ts);
    }
    rows
}
