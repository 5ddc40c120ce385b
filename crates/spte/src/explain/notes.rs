//! Remarks about a value: what cannot be right, bugs of the kernel, hints.

use alloc::{format, string::String, vec::Vec};

use super::{Note, NoteKind, bit_list, bit_verb, permissions};
use crate::{AdType, Decoded, Format, GfnRule, Kernel, Layout, Mode, PresentRule, State, bits};

pub(super) fn notes(layout: &Layout, d: &Decoded, kernel: Option<Kernel>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |kind, text: String| notes.push(Note { kind, text });
    let present = matches!(d.state, State::Present | State::Table);

    // What the kernel takes for its bits are those of the other reading.
    let both = layout.is_mmio_and_present(d.raw);
    format_notes(layout, d, &mut add);
    if d.nonzero_nonpresent && !d.host_entry {
        add(NoteKind::Problem, nonzero_text(layout, d.raw));
    }
    if d.host_entry {
        add(NoteKind::Hint, String::from("PVM host mapping: do not follow it as an SPTE"));
    }
    if both {
        add(
            NoteKind::Problem,
            format!(
                "two answers at once: it passes the MMIO test ({:#x} under {:#x}), as an MMIO SPTE of frame {:#x} does, and carries MMU-present, \
                 as an entry for pfn {:#x} does; KVM asks for MMU-present first and takes it for present. \
                 This is what a frame number with the bits of that mark looks like, or an MMIO generation that ran into the present bit, or corruption",
                layout.mmio_test_value,
                layout.mmio_test_mask,
                layout.mmio_gfn.get(d.raw),
                d.pfn.unwrap_or(0)
            ),
        );
    }
    if present && d.ad_type == Some(AdType::Reserved) {
        add(NoteKind::Problem, String::from("A/D type 3: no kernel gives it to a present entry"));
    }
    if present && layout.format == Format::Legacy && d.ad_type == Some(AdType::Disabled) {
        add(
            NoteKind::Problem,
            String::from("A/D type \"disabled\" in a table format that always has A/D bits"),
        );
    }
    if d.state == State::Present && !both {
        leaf_notes(layout, d, kernel, &mut add);
    }
    if present && !both {
        bit_notes(layout, d, &mut add);
    }
    if d.state == State::Mmio {
        mmio_notes(layout, d, &mut add);
    }
    if d.state == State::Removed {
        add(
            NoteKind::Hint,
            format!(
                "{:#x} is REMOVED_SPTE, called FROZEN_SPTE since 6.11; only the TDP MMU writes it",
                d.raw
            ),
        );
    }
    if d.state == State::Nonpresent && d.raw == 0 && layout.zapped != 0 {
        add(
            NoteKind::Hint,
            format!(
                "zapped entries hold {:#x} on this kernel; zero is taken for not present just the same",
                layout.zapped
            ),
        );
    }
    notes
}

/// Reserved bits, memory types and permissions that make the entry malformed.
fn format_notes(layout: &Layout, d: &Decoded, add: &mut impl FnMut(NoteKind, String)) {
    let present = matches!(d.state, State::Present | State::Table);
    if present && d.reserved_bits != 0 && !layout.refuses(d) {
        add(
            NoteKind::KernelBug,
            String::from(
                "kernel bug (up to 5.19): its check counts NX (bit 63) as reserved under NPT; to the CPU it is NX, and the entry is sound",
            ),
        );
    } else if present && d.reserved_bits != 0 {
        add(
            NoteKind::Problem,
            format!(
                "reserved bits set: {} ({:#x}); at level {} this host reserves {:#x}",
                bit_list(d.reserved_bits),
                d.reserved_bits,
                d.level,
                layout.reserved_mask(d.raw, d.level)
            ),
        );
    }
    if d.bad_mt_xwr {
        let memtype = d.memtype.unwrap_or(0);
        let rwx = d.raw & 7;
        add(
            NoteKind::Problem,
            if matches!(memtype, 2 | 3 | 7) {
                format!("memory type {memtype} does not exist: an EPT misconfiguration")
            } else {
                format!(
                    "permissions {} are an EPT misconfiguration{}",
                    permissions(d),
                    if rwx & 7 == 4 {
                        " here (execute-only is not set up for this MMU)"
                    } else {
                        ": write without read"
                    }
                )
            },
        );
    }
}

/// Bits of a present entry that no kernel of this layout sets or clears.
fn bit_notes(layout: &Layout, d: &Decoded, add: &mut impl FnMut(NoteKind, String)) {
    let unknown = layout.unknown_bits(d) & !d.reserved_bits;
    if unknown != 0 {
        add(
            NoteKind::Problem,
            format!(
                "{} {} nothing in this layout: wrong kernel or paging mode, or corruption",
                bit_list(unknown),
                bit_verb(unknown, "means", "mean")
            ),
        );
    }
    if layout.suppress_ve != 0 && d.suppress_ve == Some(false) {
        add(
            NoteKind::Problem,
            String::from("suppress-#VE is clear: kernels since 6.10 set it in every EPT entry they make"),
        );
    }
}

fn leaf_notes(layout: &Layout, d: &Decoded, kernel: Option<Kernel>, add: &mut impl FnMut(NoteKind, String)) {
    // The kernel checks and warns since 5.18; older kernels never made these combinations on purpose either.
    let checked = kernel.is_none_or(|k| k.release() >= (5, 18));
    let says = |text: &str| if checked { format!("; the kernel warns \"{text}\"") } else { String::new() };
    let (hw, mw, w) = (d.host_writable, d.mmu_writable, d.w);
    if mw == Some(true) && hw == Some(false) {
        add(
            NoteKind::Problem,
            format!(
                "MMU-writable without host-writable should not be{}",
                says("MMU-writable SPTE is not Host-writable")
            ),
        );
    }
    if mw == Some(false) && w == Some(true) {
        add(
            NoteKind::Problem,
            format!(
                "writable without MMU-writable should not be{}",
                says("Writable SPTE is not MMU-writable")
            ),
        );
    }
    let saved = d.raw & layout.saved_mask();
    if d.access_tracked == Some(false) && saved != 0 {
        let more = if d.ad_type == Some(AdType::Disabled) {
            "; the next access tracking would warn \"Access Tracking saved bit locations are not zero\""
        } else {
            ""
        };
        add(
            NoteKind::Problem,
            format!(
                "saved permission bits ({}) in an entry that is not access-tracked{more}",
                bit_list(saved)
            ),
        );
    }
    if d.access_tracked == Some(true) && layout.masks.acc_track_mask == 0 {
        add(NoteKind::Problem, String::from("counts as access-tracked, which this table format never is"));
    } else if d.access_tracked == Some(true) {
        add(
            NoteKind::Hint,
            format!(
                "access-tracked: the next access restores {:#x}{}; Write is not saved, the fault decides about it",
                d.restored.unwrap_or(0),
                if d.fast_write_fixable { " (and a write adds W)" } else { "" }
            ),
        );
    }
    if layout.fix_rule == crate::FixRule::Never && layout.mode == Mode::TdxMirror {
        add(
            NoteKind::Hint,
            String::from("mirror of a private mapping: the entry the CPU walks belongs to the TDX module"),
        );
    }
    if d.ad_type == Some(AdType::WrprotOnly)
        && layout.ad_type.shift == 52
        && layout.present == PresentRule::NotSpecial
    {
        add(
            NoteKind::Hint,
            String::from(
                "kernels 5.4 to 5.11 give every entry of a nested guest the type \"write-protect only\", with PML or without",
            ),
        );
    }
}

fn mmio_notes(layout: &Layout, d: &Decoded, add: &mut impl FnMut(NoteKind, String)) {
    if layout.generation.is_buggy() {
        let kept = layout.generation.get(layout.generation.put(u32::MAX));
        add(
            NoteKind::KernelBug,
            format!(
                "kernel bug (5.1 to 5.9): the generation is stored with its low bits twice, so that only {kept:#x} of it survives; \
                 once the memslots' generation is above that, no MMIO SPTE ever matches and each access rebuilds it"
            ),
        );
    }
    let halves = layout.generation.store.map(|p| (p.width, d.raw >> p.spte_bit & ((1 << p.width) - 1)));
    if !layout.generation.is_buggy() && halves[0] == halves[1] && halves[0].1 != 0 {
        add(
            NoteKind::Hint,
            format!(
                "both halves of the generation hold {0:#x}: kernels before 5.10-rc7 stored its low half twice; of such a kernel it is generation {0:#x}",
                halves[0].1
            ),
        );
    }
    if let GfnRule::Split { lower, .. } = layout.mmio_gfn {
        let clash = lower & layout.mmio_test_value_in_use();
        if clash != 0 {
            let gfn = (d.gfn.unwrap_or(0) << 12 & !clash) >> 12;
            add(
                NoteKind::KernelBug,
                format!(
                    "kernel bug (5.2 to 5.6 under SME): {} {} the SPTE and {} read back as part of the frame number; \
                     it was made for guest frame {gfn:#x}",
                    bit_list(clash),
                    bit_verb(clash, "marks", "mark"),
                    bit_verb(clash, "is", "are")
                ),
            );
        }
        // Encoding what was decoded gives the same word if this kernel made the entry.
        let again =
            layout.mmio(d.gfn.unwrap_or(0), d.mmio_access.unwrap_or(0), d.mmio_generation.unwrap_or(0));
        if clash == 0 && !layout.generation.is_buggy() && again != d.raw {
            add(
                NoteKind::Problem,
                format!(
                    "an MMIO SPTE this kernel made for that frame would be {again:#x}: {} {} (other host width, other kernel, or corruption)",
                    bit_list(again ^ d.raw),
                    bit_verb(again ^ d.raw, "differs", "differ")
                ),
            );
        }
    }
}

impl Layout {
    /// The bits that mark an MMIO SPTE when the kernel writes it, which may be more than the MMIO test compares.
    pub(crate) fn mmio_test_value_in_use(&self) -> u64 {
        self.masks.vm_mmio_value | self.mmio_test_value
    }
}

fn nonzero_text(layout: &Layout, raw: u64) -> String {
    let mut text = String::from("non-present, non-zero: ");
    let frozen = [
        (0x5a0u64, "REMOVED_SPTE of 5.13 to 6.9"),
        (1 << 59, "REMOVED_SPTE of 5.12"),
        (0x8000_0000_0000_05a0, "FROZEN_SPTE of 6.10 to 7.1"),
        (0x8000_0000_0000_01a0, "FROZEN_SPTE of 7.2"),
    ];
    if let Some((_, name)) = frozen.iter().find(|(v, _)| *v == raw) {
        text += &format!("it is {name}, not of this kernel");
    } else if raw == bits::bit(63) {
        text += "it is the zapped value of 6.10 and later";
    } else if !layout.masks.enable_mmio_caching {
        text += "wrong kernel or paging mode, an MMIO SPTE though MMIO caching is off, or corruption";
    } else {
        text += "wrong kernel or paging mode, an MMIO SPTE under other masks, or corruption";
    }
    text
}
