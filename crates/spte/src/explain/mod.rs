//! Explains a value to a person: what it is, field by field, and what it does to an access.
//!
//! The main function is [`explain()`]; `decode` and the viewer call it. Its answer follows from the layout and the value alone: it never
//! looks at other entries or at a trace.

mod effects;
mod fields;
mod notes;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{BitRun, Decoded, Layout, Resolved, State};

/// The kind of a note; notes are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteKind {
    /// The value cannot be right, or the kernel would warn.
    Problem,
    /// A bug of the kernel that wrote or read the value.
    KernelBug,
    /// A remark that helps to understand the value.
    Hint,
    /// A remark about the layout that was used.
    Layout,
}

/// A remark about a value, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its kind.
    pub kind: NoteKind,
    /// The remark itself.
    pub text: String,
}

/// One field of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// The bits of the field.
    pub run: BitRun,
    /// The value of the field as people read it: a flag as `0` or `1`, a frame or a number in hex.
    pub value: String,
    /// The meaning of that value under this layout.
    pub meaning: String,
    /// Whether no sound entry has this value.
    pub odd: bool,
}

/// What happens when the guest makes one kind of access through the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The access: `read`, `write`, `fetch`, or `any access`.
    pub access: &'static str,
    /// Whether the CPU performs the access without a fault.
    pub allowed: bool,
    /// What happens, in words.
    pub text: String,
}

/// The meaning of a value in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decoded value.
    pub decoded: Decoded,
    /// The state of the entry and its most important fields, in one line.
    pub headline: String,
    /// Whether the CPU would refuse the entry because of reserved bits, a bad memory type or bad permissions.
    pub refused: bool,
    /// All runs of bits from 63 down to 0, without a gap.
    pub runs: Vec<BitRun>,
    /// The fields that have something to show; bits without a meaning are among them where they are set.
    pub fields: Vec<FieldLine>,
    /// What the entry does to each kind of access; empty for an entry that points to a table.
    pub effects: Vec<Effect>,
    /// Remarks, problems first.
    pub notes: Vec<Note>,
}

/// Explains `raw` as the value of an entry of `level`.
pub fn explain(resolved: &Resolved, raw: u64, level: u8) -> Explanation {
    let layout = &resolved.layout;
    let decoded = layout.decode(raw, level);
    let runs = layout.bit_runs(decoded.state, level);
    let fields = runs.iter().filter_map(|&run| fields::field_line(layout, &decoded, run)).collect();
    let mut notes = notes::notes(layout, &decoded, resolved.kernel.map(|k| k.value));
    notes.extend(resolved.notes.iter().map(|text| Note { kind: NoteKind::Layout, text: text.clone() }));
    notes.sort_by_key(|n| n.kind);
    Explanation {
        decoded,
        headline: headline(layout, &decoded),
        refused: layout.refuses(&decoded),
        effects: effects::effects(layout, &decoded),
        runs,
        fields,
        notes,
    }
}

/// The permissions of an entry in letters, `-` for one it lacks: `rwx`, with user-execute where the layout has it, and `u` where the
/// format has a user bit.
pub fn permissions(d: &Decoded) -> String {
    let letter = |on: Option<bool>, c: char| match on {
        Some(true) => String::from(c),
        Some(false) => String::from("-"),
        None => String::new(),
    };
    let mut text = letter(d.r, 'r') + &letter(d.w, 'w');
    match d.xu {
        Some(xu) if Some(xu) != d.x => {
            text += if xu { "-" } else { "s" };
            text += if xu { "u" } else { "-" };
        }
        _ => text += &letter(d.x, 'x'),
    }
    text + &letter(d.u, 'u')
}

/// The size that an entry of a level maps: `4 KiB` (level 1), `2 MiB` … `256 TiB` (level 5).
pub const fn size_name(level: u8) -> &'static str {
    match level {
        0 | 1 => "4 KiB",
        2 => "2 MiB",
        3 => "1 GiB",
        4 => "512 GiB",
        _ => "256 TiB",
    }
}

/// The name of an EPT memory type (0 to 7).
pub const fn memtype_name(memtype: u8) -> &'static str {
    match memtype {
        0 => "uncached (UC)",
        1 => "write-combining (WC)",
        4 => "write-through (WT)",
        5 => "write-protected (WP)",
        6 => "write-back (WB)",
        _ => "not a memory type",
    }
}

fn headline(layout: &Layout, d: &Decoded) -> String {
    match d.state {
        State::Present if layout.is_mmio_and_present(d.raw) => format!(
            "present to KVM, as a {} page at pfn {:#x}, and marked as the MMIO SPTE of guest frame {:#x}",
            size_name(d.level),
            d.pfn.unwrap_or(0),
            layout.mmio_gfn.get(d.raw)
        ),
        State::Present => {
            let pfn = d.pfn.unwrap_or(0);
            let mut text = format!(
                "present: maps a {} page at pfn {pfn:#x} (host physical {:#x}), ",
                size_name(d.level),
                pfn << 12
            );
            if d.access_tracked == Some(true) {
                let kept =
                    d.restored.map(|raw| permissions(&layout.decode(raw, d.level))).unwrap_or_default();
                text += &format!("access-tracked: no permissions now, {kept} when next touched");
            } else {
                text += &permissions(d);
            }
            if layout.refuses(d) {
                text += "; malformed";
            }
            text
        }
        State::Table => format!(
            "table: points to a level-{} table at host physical {:#x}{}",
            d.level.saturating_sub(1).max(1),
            d.pfn.unwrap_or(0) << 12,
            if layout.refuses(d) { "; malformed" } else { "" }
        ),
        State::Mmio => format!(
            "mmio: guest frame {:#x} (guest physical {:#x}) is emulated; memslot generation {:#x}",
            d.gfn.unwrap_or(0),
            d.gfn.unwrap_or(0) << 12,
            d.mmio_generation.unwrap_or(0)
        ),
        State::Removed => String::from(
            "removed: a thread of the TDP MMU is changing this entry, or its table is being torn down",
        ),
        State::Nonpresent if d.host_entry => {
            String::from("nonpresent to KVM: a root entry PVM copied from the host's own page table")
        }
        State::Nonpresent if d.nonzero_nonpresent => String::from(
            "nonpresent: a non-present, non-zero word that is neither MMIO nor removed nor the zapped value",
        ),
        State::Nonpresent if d.raw == 0 && layout.zapped != 0 => {
            String::from("nonpresent: zero, though this kernel fills and zaps entries with another value")
        }
        State::Nonpresent => String::from("nonpresent: zapped, or never filled"),
    }
}

fn yes_no(on: bool, yes: &str, no: &str) -> String {
    if on { yes } else { no }.to_string()
}

/// The verb for the set bits of a mask: in its first form for one bit, in the second for several.
pub const fn bit_verb(mask: u64, one: &'static str, more: &'static str) -> &'static str {
    if mask.is_power_of_two() { one } else { more }
}

/// The set bits of a mask in words: `bit 12`, `bits 51:46, 7`.
pub fn bit_list(mask: u64) -> String {
    let mut text = String::new();
    let mut high = 63i32;
    let mut runs = 0;
    while high >= 0 {
        if mask >> high & 1 == 0 {
            high -= 1;
            continue;
        }
        let mut low = high;
        while low > 0 && mask >> (low - 1) & 1 != 0 {
            low -= 1;
        }
        if runs > 0 {
            text += ", ";
        }
        if low == high {
            text += &format!("{high}");
        } else {
            text += &format!("{high}:{low}");
        }
        runs += 1;
        high = low - 1;
    }
    let word = if mask.is_power_of_two() { "bit " } else { "bits " };
    format!("{word}{text}")
}
