//! An answer for a person: what a value is, field by field, and what it would do.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    AdType, BitRun, Decoded, FieldKind, Format, GfnRule, Kernel, Layout, Mode, PresentRule, Resolved, State,
    bits,
};

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteKind {
    /// The value cannot be right, or the kernel would warn.
    Problem,
    /// A bug of the kernel that wrote or read the value.
    KernelBug,
    /// Good to know.
    Hint,
    /// About the layout the answer rests on.
    Layout,
}

/// A sentence beside the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// The sentence.
    pub text: String,
}

/// One field of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLine {
    /// Where it is.
    pub run: BitRun,
    /// Its value, in the form people read it.
    pub value: String,
    /// What that means here.
    pub meaning: String,
    /// Whether the value is out of order.
    pub odd: bool,
}

/// What the entry does to one kind of access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// `read`, `write`, `fetch`, or `any`.
    pub access: &'static str,
    /// Whether the CPU lets it pass.
    pub allowed: bool,
    /// What happens.
    pub text: String,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decoded value.
    pub decoded: Decoded,
    /// What it is, in one line.
    pub headline: String,
    /// The CPU would refuse it: reserved bits or a bad memory type.
    pub refused: bool,
    /// Every run of bits from 63 to 0.
    pub runs: Vec<BitRun>,
    /// The fields that say something.
    pub fields: Vec<FieldLine>,
    /// What it does to accesses.
    pub effects: Vec<Effect>,
    /// What else should be said, problems first.
    pub notes: Vec<Note>,
}

/// Explains `raw` in an entry of `level`.
pub fn explain(resolved: &Resolved, raw: u64, level: u8) -> Explanation {
    let layout = &resolved.layout;
    let decoded = layout.decode(raw, level);
    let runs = layout.bit_runs(decoded.state, level);
    let fields = runs.iter().filter_map(|&run| field_line(layout, &decoded, run)).collect();
    let mut notes = notes(layout, &decoded, resolved.kernel.map(|k| k.value));
    notes.extend(resolved.notes.iter().map(|text| Note { kind: NoteKind::Layout, text: text.clone() }));
    notes.sort_by_key(|n| n.kind);
    Explanation {
        decoded,
        headline: headline(layout, &decoded),
        refused: layout.refuses(&decoded),
        effects: effects(layout, &decoded),
        runs,
        fields,
        notes,
    }
}

/// `rwx` and its gaps; with user-execute where the layout has it.
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

/// `4 KiB`, `2 MiB` …
pub const fn size_name(level: u8) -> &'static str {
    match level {
        0 | 1 => "4 KiB",
        2 => "2 MiB",
        3 => "1 GiB",
        4 => "512 GiB",
        _ => "256 TiB",
    }
}

/// Name of an EPT memory type.
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

fn field_line(layout: &Layout, d: &Decoded, run: BitRun) -> Option<FieldLine> {
    let value = run.get(d.raw);
    let on = value != 0;
    let whole = |field: Option<u64>| field.unwrap_or(value);
    let mut odd = false;
    let mut shown = format!("{value:#x}");
    if run.high == run.low || value < 10 {
        shown = format!("{value}");
    }
    let tracked = d.access_tracked == Some(true);
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
        FieldKind::User => yes_no(on, "guest user code may access", "guest kernel only"),
        FieldKind::Accessed => match (d.ad_type, layout.ad_rule) {
            (Some(AdType::Disabled), crate::AdRule::ByType) => {
                odd = on;
                String::from("no A/D bits here: hardware ignores it")
            }
            (Some(AdType::Disabled), crate::AdRule::Bits) => {
                yes_no(on, "accessed, kept in software", "not accessed since it was cleared (software)")
            }
            _ => yes_no(on, "accessed since last cleared", "not accessed since it was cleared"),
        },
        FieldKind::Dirty => match (d.ad_type, layout.ad_rule) {
            (Some(AdType::Disabled), crate::AdRule::ByType) => {
                odd = on;
                String::from("no A/D bits here: hardware ignores it, writable means dirty")
            }
            (Some(AdType::Disabled), crate::AdRule::Bits) => {
                yes_no(on, "dirty, kept in software", "clean (software)")
            }
            _ => yes_no(on, "written since last cleared", "not written since it was cleared"),
        },
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
            match d.ad_type {
                Some(AdType::Enabled) => "A/D bits in use",
                Some(AdType::Disabled) => "A/D bits off: access tracking instead",
                Some(AdType::WrprotOnly) => {
                    "A in hardware, dirty logging by write protection (nested guest under PML)"
                }
                _ => "no kernel writes this",
            }
            .to_string()
        }
        FieldKind::SavedRead | FieldKind::SavedExecute | FieldKind::SavedUserExecute => {
            let what = match run.kind {
                FieldKind::SavedRead => "read",
                FieldKind::SavedExecute => "execute",
                _ => "user-execute",
            };
            if tracked {
                format!(
                    "{what} permission {} when tracking ends",
                    if on { "comes back" } else { "stays off" }
                )
            } else if on {
                odd = true;
                format!("a saved {what} permission though the entry is not access-tracked")
            } else {
                return None;
            }
        }
        FieldKind::SuppressVe => {
            odd = !on;
            yes_no(on, "no #VE into the guest", "clear: a fault here may raise #VE in the guest")
        }
        FieldKind::Encryption => yes_no(on, "encrypted with the host's SME key", "not encrypted"),
        FieldKind::PageState => String::from(match value {
            0 => "no owner recorded",
            1 => "owned",
            2 => "shared with others, owned here",
            _ => "borrowed from its owner",
        }),
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
            shown = format!("{acc}");
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
        FieldKind::L1tf => {
            odd = value != run.mask() >> run.low;
            String::from("set so that the address never hits the L1 cache (L1TF)")
        }
        FieldKind::DisplacedGfn => String::from("the frame's own bits under the L1TF bits, five higher"),
        FieldKind::Zapped => {
            yes_no(on, "the value zapped and new entries hold", "clear: not the zapped value of this kernel")
        }
        FieldKind::Removed => String::from("part of the constant"),
    };
    Some(FieldLine { run, value: shown, meaning, odd })
}

fn generation_meaning(layout: &Layout, d: &Decoded) -> String {
    let generation = d.mmio_generation.unwrap_or(0);
    let kept = layout.generation.kept() | layout.generation.get(u64::MAX) & 0x1ff;
    let width = 32 - kept.leading_zeros();
    // Up to 5.0 the low bit is never stored: all generations are even.
    let space = if kept & 1 == 0 {
        ""
    } else if generation & 1 == 0 {
        "; even: the normal address space"
    } else {
        "; odd: the SMM address space"
    };
    format!("memslot generation {generation:#x} ({width} bits kept){space}")
}

fn effects(layout: &Layout, d: &Decoded) -> Vec<Effect> {
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
                format!("{how}: no fast way to tell MMIO on this host, KVM walks the memslots each time")
            } else {
                format!(
                    "{how}; if generation {:#x} is current KVM emulates at once, else it rebuilds the entry",
                    d.mmio_generation.unwrap_or(0)
                )
            })
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

fn notes(layout: &Layout, d: &Decoded, kernel: Option<Kernel>) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut add = |kind, text: String| notes.push(Note { kind, text });
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
    if d.nonzero_nonpresent && !d.host_entry {
        add(NoteKind::Problem, nonzero_text(layout, d.raw));
    }
    if d.host_entry {
        add(NoteKind::Hint, String::from("PVM host mapping: do not follow it as an SPTE"));
    }
    if crate::bugs::is_mmio_and_present(layout, d.raw) {
        add(
            NoteKind::Problem,
            format!(
                "two answers at once: it passes the MMIO test ({:#x} under {:#x}), as an MMIO SPTE of frame {:#x} does, and carries MMU-present, \
                 as an entry for pfn {:#x} does; KVM asks for MMU-present first and takes it for present. \
                 No kernel makes such a value: corruption, or an MMIO generation that ran into the present bit",
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
    if d.state == State::Present {
        leaf_notes(layout, d, kernel, &mut add);
    }
    if present {
        let unknown = layout
            .bit_runs(d.state, d.level)
            .iter()
            .filter(|r| r.kind == FieldKind::Unused)
            .fold(0, |mask, r| mask | r.mask())
            & d.raw
            & !d.reserved_bits;
        if unknown != 0 {
            add(
                NoteKind::Problem,
                format!(
                    "{} mean nothing in this layout: wrong kernel or paging mode, or corruption",
                    bit_list(unknown)
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

fn leaf_notes(layout: &Layout, d: &Decoded, kernel: Option<Kernel>, add: &mut impl FnMut(NoteKind, String)) {
    // The kernel checks (and warns) since 5.18; the combinations were wrong before, too.
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
                    "kernel bug (5.2 to 5.6 under SME): {} mark the SPTE and are read back as part of the frame number; \
                     it was made for guest frame {gfn:#x}",
                    bit_list(clash)
                ),
            );
        }
        // An entry the kernel made encodes back to itself.
        let again =
            layout.mmio(d.gfn.unwrap_or(0), d.mmio_access.unwrap_or(0), d.mmio_generation.unwrap_or(0));
        if clash == 0 && !layout.generation.is_buggy() && again != d.raw {
            add(
                NoteKind::Problem,
                format!(
                    "an MMIO SPTE this kernel made for that frame would be {again:#x}: {} differ (other host width, other kernel, or corruption)",
                    bit_list(again ^ d.raw)
                ),
            );
        }
    }
}

impl Layout {
    /// The marks of MMIO SPTEs as they are really written.
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

/// `bit 12`, `bits 51:46, 7`.
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
