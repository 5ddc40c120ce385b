//! What an entry does to a read, a write and a fetch of the guest.

use alloc::{format, string::String, vec::Vec};

use super::Effect;
use crate::{AdType, Decoded, Format, Layout, Mode, State};

pub(super) fn effects(layout: &Layout, d: &Decoded) -> Vec<Effect> {
    let fault = if layout.format == Format::Ept {
        "EPT violation"
    } else if layout.mode.is_tdp() {
        "nested page fault"
    } else {
        "page fault"
    };
    let one = |text: String| alloc::vec![Effect { access: "any access", allowed: false, text }];
    match d.state {
        State::Nonpresent | State::Removed if layout.mode == Mode::Pkvm => {
            one(String::from("EPT violation, handled by the pKVM hypervisor"))
        }
        State::Nonpresent if d.host_entry => {
            one(String::from("follows the host's own page table, not KVM's"))
        }
        State::Nonpresent if d.nonzero_nonpresent => {
            let present = d.raw & if layout.format == Format::Ept { 7 } else { 1 } != 0;
            one(if present {
                String::from("the CPU sees a present entry that KVM does not know it made")
            } else {
                format!("{fault}; KVM's slow path takes the entry for empty and overwrites it")
            })
        }
        State::Nonpresent => one(format!("{fault}; KVM's slow path finds the page and maps it")),
        State::Removed => one(format!(
            "{fault}; KVM sees the entry is frozen and lets the guest try again until the other thread is done"
        )),
        State::Mmio => {
            let visible = d.raw & if layout.format == Format::Ept { 7 } else { 1 } != 0;
            let how = match (layout.format, visible) {
                (Format::Ept, true) => "EPT misconfiguration",
                (Format::Legacy, true) => "fault with the reserved bit set",
                _ => "fault as not present",
            };
            one(if layout.format == Format::Legacy && !visible {
                format!(
                    "{how}: on this host the fault does not show that the access is MMIO, so KVM walks the memslots each time"
                )
            } else {
                format!(
                    "{how}; if generation {:#x} is current KVM emulates at once, else it rebuilds the entry",
                    d.mmio_generation.unwrap_or(0)
                )
            })
        }
        State::Table | State::Present if layout.is_mmio_and_present(d.raw) => {
            let how = if layout.format == Format::Ept {
                "EPT misconfiguration"
            } else {
                "fault with the reserved bit set"
            };
            one(format!("{how}, as on any MMIO SPTE; KVM takes the entry for present and dumps the walk"))
        }
        State::Table | State::Present if layout.refuses(d) => {
            one(String::from(if layout.format == Format::Ept {
                "EPT misconfiguration on an entry that is not MMIO: KVM dumps the walk and fails the VM run"
            } else {
                "fault with the reserved bit set on an entry that is not MMIO: KVM dumps the walk"
            }))
        }
        State::Table => Vec::new(),
        State::Present => leaf_effects(layout, d, fault),
    }
}

fn leaf_effects(layout: &Layout, d: &Decoded, fault: &str) -> Vec<Effect> {
    let restored = d.restored.map(|raw| layout.decode(raw, d.level));
    let ok = |access| Effect { access, allowed: true, text: String::from("goes through") };
    let stop = |access, text: String| Effect { access, allowed: false, text };
    let back = |on: Option<bool>| restored.as_ref().is_some_and(|_| on == Some(true));
    let mut list = Vec::with_capacity(3);

    list.push(if d.r == Some(true) {
        ok("read")
    } else if back(restored.as_ref().and_then(|r| r.r)) {
        stop(
            "read",
            format!(
                "{fault}; the fast path puts the saved permissions back ({:#x})",
                d.restored.unwrap_or(0)
            ),
        )
    } else {
        stop("read", format!("{fault}; slow path"))
    });

    list.push(if d.w == Some(true) {
        if d.dirty == Some(false) && d.ad_type == Some(AdType::Enabled) && d.r == Some(true) {
            Effect { access: "write", allowed: true, text: String::from("goes through, and the CPU sets Dirty") }
        } else {
            ok("write")
        }
    } else if d.fast_write_fixable && d.large && matches!(layout.fix_rule, crate::FixRule::HostAndMmu) {
        stop("write", format!("{fault}; could be made writable, but this kernel does not do that to large pages on the fast path"))
    } else if d.fast_write_fixable {
        stop("write", format!("{fault}; fixable on the fast path: W is set again without the MMU lock"))
    } else if d.host_writable == Some(true) {
        stop("write", format!("{fault}; not fixable on the fast path: the frame is write-tracked (it likely holds guest page tables), the write is emulated or the shadow dropped"))
    } else if d.host_writable == Some(false) {
        stop("write", format!("{fault}; not fixable on the fast path: the slow path asks the host for a writable page first (copy-on-write, or a read-only memslot)"))
    } else {
        stop("write", format!("{fault}; slow path"))
    });

    let exec = d.x == Some(true) || d.xu == Some(true);
    list.push(if exec && (d.r == Some(true) || layout.format == Format::Ept) {
        match (d.x, d.xu) {
            (Some(true), Some(false)) => Effect {
                access: "fetch",
                allowed: true,
                text: String::from("goes through for the guest's kernel, faults for its user code"),
            },
            (Some(false), Some(true)) => Effect {
                access: "fetch",
                allowed: true,
                text: String::from("goes through for the guest's user code, faults for its kernel"),
            },
            _ => ok("fetch"),
        }
    } else if back(restored.as_ref().and_then(|r| r.x)) {
        stop("fetch", format!("{fault}; the fast path puts the saved permissions back"))
    } else {
        stop(
            "fetch",
            format!(
                "{fault}; slow path{}",
                if d.large { ": under NX huge pages it splits the page to 4 KiB" } else { "" }
            ),
        )
    });
    list
}
