//! The fields of a value, each with what it means under the layout.

use alloc::{
    format,
    string::{String, ToString},
};

use super::{FieldLine, memtype_name, yes_no};
use crate::{AdRule, AdType, BitRun, Decoded, FieldKind, Format, Layout, State};

/// The line for one field; `None` where the field has nothing to show in this value.
pub(super) fn field_line(layout: &Layout, d: &Decoded, run: BitRun) -> Option<FieldLine> {
    let value = run.get(d.raw);
    let on = value != 0;
    let whole = |field: Option<u64>| field.unwrap_or(value);
    let mut odd = false;
    let mut shown = format!("{value:#x}");
    if run.high == run.low || value < 10 {
        shown = format!("{value}");
    }
    let meaning = match run.kind {
        FieldKind::Unused => {
            if !on {
                return None;
            }
            odd = d.state != State::Nonpresent || d.nonzero_nonpresent;
            String::from("no meaning in this layout")
        }
        FieldKind::Address => {
            if run.low > 12 && !on {
                return None;
            }
            shown = format!("{:#x}", whole(d.pfn));
            let what = if d.state == State::Table { "the table" } else { "the page" };
            format!("frame of {what}: host physical {:#x}", whole(d.pfn) << 12)
        }
        FieldKind::Read
        | FieldKind::Write
        | FieldKind::Execute
        | FieldKind::UserExecute
        | FieldKind::NoExecute
        | FieldKind::User => permission_meaning(layout, run.kind, on),
        FieldKind::Accessed | FieldKind::Dirty => {
            odd = on && d.ad_type == Some(AdType::Disabled) && layout.ad_rule == AdRule::ByType;
            ad_meaning(layout, d, run.kind, on)
        }
        FieldKind::PageSize => yes_no(
            on,
            "maps a large page",
            if d.level > 3 { "reserved at this level" } else { "points to a table" },
        ),
        FieldKind::MemoryType => {
            odd = d.state == State::Present && matches!(value, 2 | 3 | 7);
            String::from(memtype_name(value as u8))
        }
        FieldKind::IgnorePat => {
            yes_no(on, "the guest's PAT does not matter", "combined with the guest's PAT")
        }
        FieldKind::HostWritable => yes_no(
            on,
            "the host maps the page writable",
            "the host maps the page read-only (or KVM was not asked for write)",
        ),
        FieldKind::MmuWritable => {
            odd = on && d.host_writable == Some(false);
            yes_no(
                on,
                "may become writable without the MMU lock",
                "must not become writable without the MMU lock: the frame may hold guest page tables",
            )
        }
        FieldKind::MmuPresent => yes_no(on, "shadow-present: KVM's own mark", "not shadow-present"),
        FieldKind::AdType => {
            odd = d.ad_type == Some(AdType::Reserved);
            ad_type_meaning(d.ad_type)
        }
        FieldKind::SavedRead | FieldKind::SavedExecute | FieldKind::SavedUserExecute => {
            odd = on && d.access_tracked != Some(true);
            saved_meaning(d, run.kind, on)?
        }
        FieldKind::SuppressVe => {
            odd = !on;
            yes_no(on, "no #VE into the guest", "clear: a fault here may raise #VE in the guest")
        }
        FieldKind::Encryption => yes_no(on, "encrypted with the host's SME key", "not encrypted"),
        FieldKind::PageState => page_state_meaning(value),
        FieldKind::MmioMark
        | FieldKind::Generation
        | FieldKind::Access
        | FieldKind::Gfn
        | FieldKind::L1tf
        | FieldKind::DisplacedGfn => {
            odd = run.kind == FieldKind::L1tf && value != run.mask() >> run.low;
            if run.kind == FieldKind::Access {
                shown = format!("{}", d.mmio_access.unwrap_or(0));
            }
            mmio_meaning(layout, d, run)
        }
        FieldKind::Zapped => {
            yes_no(on, "the value zapped and new entries hold", "clear: not the zapped value of this kernel")
        }
        FieldKind::Removed => String::from("part of the constant"),
    };
    Some(FieldLine { run, value: shown, meaning, odd })
}

fn ad_type_meaning(ad_type: Option<AdType>) -> String {
    match ad_type {
        Some(AdType::Enabled) => "A/D bits in use",
        Some(AdType::Disabled) => "A/D bits off: access tracking instead",
        Some(AdType::WrprotOnly) => {
            "A in hardware, dirty logging by write protection (nested guest under PML)"
        }
        _ => "no kernel writes this",
    }
    .to_string()
}

fn page_state_meaning(value: u64) -> String {
    String::from(match value {
        0 => "no owner recorded",
        1 => "owned",
        2 => "shared with others, owned here",
        _ => "borrowed from its owner",
    })
}

fn permission_meaning(layout: &Layout, kind: FieldKind, on: bool) -> String {
    match kind {
        FieldKind::Read if layout.format == Format::Legacy => {
            yes_no(on, "P: present to the hardware", "not present to the hardware")
        }
        FieldKind::Read => yes_no(on, "guest may read", "guest may not read"),
        FieldKind::Write => yes_no(on, "guest may write", "a guest write faults"),
        FieldKind::Execute if layout.masks.xu_mask != 0 => {
            yes_no(on, "guest kernel may execute", "guest kernel may not execute")
        }
        FieldKind::Execute => yes_no(on, "guest may execute", "guest may not execute"),
        FieldKind::UserExecute => {
            yes_no(on, "guest user code may execute", "guest user code may not execute")
        }
        FieldKind::NoExecute => {
            yes_no(on, "guest may not execute (page attribute, or NX huge pages)", "guest may execute")
        }
        FieldKind::User if layout.mode.is_tdp() => {
            yes_no(on, "user access, as NPT walks need it", "supervisor: guest kernel pages under GMET")
        }
        _ => yes_no(on, "guest user code may access", "guest kernel only"),
    }
}

fn ad_meaning(layout: &Layout, d: &Decoded, kind: FieldKind, on: bool) -> String {
    match kind {
        FieldKind::Accessed => match (d.ad_type, layout.ad_rule) {
            (Some(AdType::Disabled), AdRule::ByType) => String::from("no A/D bits here: hardware ignores it"),
            (Some(AdType::Disabled), AdRule::Bits) => {
                yes_no(on, "accessed, kept in software", "not accessed since it was cleared (software)")
            }
            _ => yes_no(on, "accessed since last cleared", "not accessed since it was cleared"),
        },
        _ => match (d.ad_type, layout.ad_rule) {
            (Some(AdType::Disabled), AdRule::ByType) => {
                String::from("no A/D bits here: hardware ignores it, writable means dirty")
            }
            (Some(AdType::Disabled), AdRule::Bits) => {
                yes_no(on, "dirty, kept in software", "clean (software)")
            }
            _ => yes_no(on, "written since last cleared", "not written since it was cleared"),
        },
    }
}

fn saved_meaning(d: &Decoded, kind: FieldKind, on: bool) -> Option<String> {
    let what = match kind {
        FieldKind::SavedRead => "read",
        FieldKind::SavedExecute => "execute",
        _ => "user-execute",
    };
    if d.access_tracked == Some(true) {
        let then = if on { "comes back" } else { "stays off" };
        Some(format!("{what} permission {then} when tracking ends"))
    } else {
        on.then(|| format!("a saved {what} permission though the entry is not access-tracked"))
    }
}

fn mmio_meaning(layout: &Layout, d: &Decoded, run: BitRun) -> String {
    match run.kind {
        FieldKind::MmioMark => format!("marks an MMIO SPTE (compared under {:#x})", layout.mmio_test_mask),
        FieldKind::Generation => {
            if run.low > 11 {
                String::from("high part of the generation")
            } else {
                generation_meaning(layout, d)
            }
        }
        FieldKind::Access => {
            let acc = d.mmio_access.unwrap_or(0);
            format!(
                "access the mapping had: {}{}",
                if acc & 2 != 0 { "write " } else { "" },
                if acc & 4 != 0 { "user" } else { "" }
            )
            .trim_end()
            .to_string()
        }
        FieldKind::Gfn => {
            format!("guest frame {:#x}: guest physical {:#x}", d.gfn.unwrap_or(0), d.gfn.unwrap_or(0) << 12)
        }
        FieldKind::L1tf => String::from("set so that the address never hits the L1 cache (L1TF)"),
        _ => String::from("the frame's own bits under the L1TF bits, five higher"),
    }
}

fn generation_meaning(layout: &Layout, d: &Decoded) -> String {
    let generation = d.mmio_generation.unwrap_or(0);
    let kept = layout.generation.kept() | layout.generation.get(u64::MAX) & 0x1ff;
    let width = 32 - kept.leading_zeros();
    // Up to 5.0 the low bit is never stored, so that every generation looks even.
    let space = if kept & 1 == 0 {
        ""
    } else if generation & 1 == 0 {
        "; even: the normal address space"
    } else {
        "; odd: the SMM address space"
    };
    format!("memslot generation {generation:#x} ({width} bits kept){space}")
}
