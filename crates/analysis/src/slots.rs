//! Memory slots in words: [`name()`] says what one usually is, [`bands`] cuts an address space into slots and the holes between them, and [`outside`]
//! counts the faults that hit no slot. The slots themselves are the replay's ([`Timeline::slots`]); the report and the viewer draw the bands.

use std::collections::BTreeMap;

use mmuscope_replay::{MemSlot, SlotAt, Timeline, VmId};

use crate::part::Part;
use crate::places::usually_in;

/// The frames of one MiB.
const MIB: u64 = 256;
/// The hole below 4 GiB that PC chipsets keep for devices begins at 3 GiB at the latest, and RAM goes on at 4 GiB.
const HOLE: (u64, u64) = (0xc_0000, 0x10_0000);

/// What memory of this size usually is at this place of a PC: a guess from place, size and flags alone, and every face says so.
pub fn name(slot: &MemSlot) -> &'static str {
    let (first, end) = (slot.gfn, slot.end_gfn());
    let within = |a: u64, b: u64| a <= first && end <= b;
    if slot.guest_memfd() {
        "RAM, private memory in a guest_memfd"
    } else if within(0xfee00, 0xfee01) {
        "APIC access page"
    } else if slot.pages == 3 && matches!(first, 0xf_effd | 0xf_fffd | 0xf_ffbd) {
        // KVM_SET_TSS_ADDR; QEMU puts it below the firmware.
        "TSS for real mode"
    } else if slot.pages == 1 && matches!(first, 0xf_effc | 0xf_fffc | 0xf_ffbc) {
        "page table for real mode"
    } else if within(0xa0, 0xc0) {
        "VGA memory"
    } else if within(0xc0, 0x100) {
        if slot.read_only() { "BIOS or option ROM" } else { "BIOS area, RAM" }
    } else if slot.read_only() {
        if first >= 0xf_f000 && end <= HOLE.1 { "firmware flash" } else { "ROM" }
    } else if within(HOLE.0, HOLE.1) || first >= HOLE.1 && slot.pages.is_power_of_two() && first != HOLE.1 {
        match slot.pages {
            // A display is what VMMs log the writes of when they do not migrate, 1 to 256 MiB.
            p if slot.dirty_logging() && (MIB..=256 * MIB).contains(&p) => "framebuffer",
            p if within(HOLE.0, HOLE.1) || p < 256 * MIB => "device memory",
            _ => "RAM, or a device's memory",
        }
    } else {
        "RAM"
    }
}

/// Frames that are one slot, or the hole between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// First guest frame.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// The slot's number; `None` for a hole.
    pub slot: Option<u16>,
    /// What it usually is: a guess from place and size.
    pub name: String,
}

impl Band {
    /// Whether it is a hole, where what the guest does is MMIO.
    pub const fn is_hole(&self) -> bool {
        self.slot.is_none()
    }
}

/// The slots of an address space at a time and the holes between them, by frame. Empty where no slot is known; there is no hole after the last
/// slot, nor any where not all slots are known.
pub fn bands(timeline: &Timeline, vm: VmId, as_id: u8, ts: u64) -> Vec<Band> {
    let of = |s: &&MemSlot| s.vm == vm && s.as_id == as_id && s.at(ts);
    let mut slots: Vec<&MemSlot> = timeline.slots().iter().filter(of).collect();
    slots.sort_by_key(|s| s.gfn);
    let holes = timeline.slots_known(vm, ts);
    let (mut out, mut next) = (Vec::new(), 0);
    for s in slots {
        if holes && next < s.gfn {
            let name = usually_in(next, s.gfn).map_or_else(|| "hole".to_owned(), |n| format!("hole ({n})"));
            out.push(Band { first: next, end: s.gfn, slot: None, name });
        }
        next = next.max(s.end_gfn());
        out.push(Band { first: s.gfn, end: s.end_gfn(), slot: Some(s.id), name: name(s).to_owned() });
    }
    out
}

/// The faults of a VM that hit no memory slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Of so many faults it is known whether they hit a slot.
    pub known: u64,
    /// So many hit none.
    pub faults: u64,
    /// The frames that they hit, with the number of faults, the most first.
    pub frames: Vec<(u64, u64)>,
}

/// Counts the faults of a VM that hit no memory slot; `None` where nothing is known of its slots.
pub fn outside(timeline: &Timeline, vm: VmId) -> Option<Outside> {
    outside_within(timeline, vm, &Part::default())
}

/// [`outside`] of a part of a trace.
pub fn outside_within(timeline: &Timeline, vm: VmId, part: &Part) -> Option<Outside> {
    if timeline.slots().iter().all(|s| s.vm != vm) {
        return None;
    }
    let (mut out, mut frames) = (Outside::default(), BTreeMap::new());
    for f in timeline.faults().filter(|f| f.vm == vm && part.fault(f)) {
        let Some(gfn) = f.gfn else { continue };
        match timeline.slot_at(vm, f.as_id, gfn, f.ts) {
            SlotAt::In(_) => out.known += 1,
            SlotAt::Outside => {
                out.known += 1;
                out.faults += 1;
                *frames.entry(gfn).or_insert(0u64) += 1;
            }
            SlotAt::NotKnown => {}
        }
    }
    out.frames = frames.into_iter().collect();
    out.frames.sort_by_key(|(gfn, n)| (std::cmp::Reverse(*n), *gfn));
    (out.known > 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use mmuscope_replay::SlotKnown;

    use super::*;

    fn slot(gfn: u64, pages: u64, flags: u32) -> MemSlot {
        let (vm, known) = (VmId(0), SlotKnown::Read);
        MemSlot { vm, as_id: 0, id: 0, gfn, pages, hva: None, flags, start: 0, end: None, known }
    }

    #[test]
    fn slots_of_a_pc_have_their_names() {
        // The slots of QEMU's q35 with 4 GiB of RAM, OVMF and a VGA card, and those that KVM makes itself.
        for (gfn, pages, flags, what) in [
            (0, 0xa0, 0, "RAM"),
            (0xc0, 0x20, 2, "BIOS or option ROM"),
            (0x100, 0x7ff00, 0, "RAM"),
            (0xfd000, 0x1000, 1, "framebuffer"),
            (0xffc00, 0x84, 2, "firmware flash"),
            (0xffc84, 0x37c, 2, "firmware flash"),
            (0xfff00, 0x100, 2, "firmware flash"),
            (0x10_0000, 0x8_0000, 0, "RAM"),
            (0xfee00, 1, 0, "APIC access page"),
            (0xfeffd, 3, 0, "TSS for real mode"),
            (0xfeffc, 1, 0, "page table for real mode"),
            (0x38_0000, 0x1000, 0, "device memory"),
            (0, 0x8_0000, 4, "RAM, private memory in a guest_memfd"),
        ] {
            assert_eq!(name(&slot(gfn, pages, flags)), what, "{gfn:#x}");
        }
    }
}
