//! How well one decoded value fits what KVM writes: points, each with its reason. The main function is [`fit`]; `tries.rs` calls it for
//! each value under each layout. It looks at one value at a time and never at its neighbours.

use alloc::{format, string::String, vec::Vec};

use super::evidence::{Letters, Role, Value};
use crate::{AdType, Decoded, Format, GfnRule, Layout, Mode, PresentRule, State, bits, explain::bit_list};

/// The points so far, and the reasons for them where they are wanted.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) score: i32,
    /// Whether reasons are kept. They cost time that trying a layout does not have.
    pub(super) wordy: bool,
    pub(super) reasons: Vec<(i32, String)>,
}

impl Tally {
    pub(super) fn add(&mut self, points: i32, reason: impl FnOnce() -> String) {
        self.score += points;
        if self.wordy && points != 0 {
            self.reasons.push((points, reason()));
        }
    }
}

/// The letters that `kvm_mmu_set_spte` prints for a value: `r` also where every present entry has a present mask, `u` only where the layout
/// has a user mask.
pub fn printed_letters(layout: &Layout, raw: u64) -> Letters {
    let m = &layout.masks;
    let user = if m.xu_mask != 0 { m.xu_mask } else { m.user_mask };
    Letters {
        r: m.present_mask != 0 || raw & 1 != 0,
        w: raw & 2 != 0,
        x: layout.is_executable(raw),
        u: (user != 0).then_some(raw & user != 0),
    }
}

/// Whether `kvm_mmu_set_spte` would print these letters for the value.
pub fn letters_fit(layout: &Layout, d: &Decoded, letters: Letters) -> bool {
    let ours = printed_letters(layout, d.raw);
    // 5.3, early 5.4, and trace-cmd and perf of that time print `u` even where there is no user mask.
    ours.r == letters.r
        && ours.w == letters.w
        && ours.x == letters.x
        && (ours.u == letters.u || ours.u.is_none())
}

/// The most likely level of a value whose level is not known, under a layout.
pub fn likely_level(layout: &Layout, raw: u64) -> u8 {
    best_level(layout, &Value::bare(raw), false).level
}

/// Decodes a value at its level, or at the level where it fits best.
pub(super) fn best_level(layout: &Layout, value: &Value, reserved: bool) -> Decoded {
    if let Some(level) = value.level {
        return layout.decode(value.raw, level);
    }
    let mut best = (layout.decode(value.raw, 1), i32::MIN);
    for level in 1..=4u8 {
        let decoded = layout.decode(value.raw, level);
        let mut tally = Tally::default();
        fit(layout, &decoded, value, reserved, &mut tally);
        // Level 1 is by far the most common, so a tie goes to the lower level.
        let score = tally.score - i32::from(level > 1) * 2 - i32::from(level > 2);
        if score > best.1 {
            best = (decoded, score);
        }
    }
    best.0
}

/// Adds how well a decoded value fits what KVM writes; the sum is negative where KVM would not write it. With `reserved`, the text says that
/// this entry or another one of its walk had reserved bits set, so that such bits count neither for nor against the layout.
pub(super) fn fit(layout: &Layout, d: &Decoded, value: &Value, reserved: bool, tally: &mut Tally) {
    fit_role(layout, d, value, tally);
    if layout.is_mmio_and_present(d.raw) {
        // The value fits neither of the two kinds it claims to be.
        return tally.add(-45, || String::from("it passes the MMIO test and carries MMU-present"));
    }
    match d.state {
        State::Removed => tally.add(50, || String::from("it is the word of a removed entry")),
        State::Nonpresent if d.host_entry => tally.add(-10, String::new),
        State::Nonpresent if d.nonzero_nonpresent => {
            tally.add(-90, || String::from("it would be neither present nor anything else"));
        }
        State::Nonpresent if d.raw == 0 && layout.zapped != 0 => {
            tally.add(-8, || format!("this kernel empties entries with {:#x}, not zero", layout.zapped));
        }
        State::Nonpresent if d.raw == 0 => tally.add(2, || String::from("zero is its empty entry")),
        State::Nonpresent => tally.add(40, || String::from("it is the word of an empty entry")),
        State::Mmio => fit_mmio(layout, d, value, tally),
        State::Table => fit_table(layout, d, reserved, tally),
        State::Present => fit_leaf(layout, d, reserved, tally),
    }
}

fn fit_role(layout: &Layout, d: &Decoded, value: &Value, tally: &mut Tally) {
    let mut mmio_install = false;
    match (value.role, d.state) {
        (Role::Unknown, _) => {}
        (Role::Leaf | Role::Installed, State::Present) => {
            tally.add(40, || String::from("it is a leaf, as where it stands says"));
        }
        (Role::Table, State::Table) | (Role::Empty, State::Nonpresent) | (Role::Frozen, State::Removed) => {
            tally.add(40, String::new);
        }
        // Up to 5.12 the event is emitted for MMIO SPTEs as well, and its letters mean nothing then.
        (Role::Installed, State::Mmio) if layout.present == PresentRule::NotSpecial => mmio_install = true,
        (Role::Mmio { gfn, generation }, State::Mmio) => {
            let frame = gfn.is_none_or(|g| d.gfn == Some(g));
            let same = generation.is_none_or(|g| d.mmio_generation == Some(g));
            let points = if frame { if same { 60 } else { 20 } } else { -60 };
            tally.add(points, || {
                String::from(match (frame, gfn, same) {
                    (true, Some(_), true) => "it is an MMIO SPTE of the frame and generation named beside it",
                    (true, _, true) => "it is an MMIO SPTE, as where it stands says",
                    (true, ..) => "its generation would not be the one named beside it",
                    (false, ..) => "its MMIO frame would not be the one named beside it",
                })
            });
        }
        (Role::Installed, state) => tally.add(-80, || {
            format!(
                "kvm_mmu_set_spte installs leaves, and it would be {}",
                if state == State::Nonpresent { "not present" } else { state.name() }
            )
        }),
        (_, state) => {
            tally.add(-80, || format!("it would be {}, which is not what stands there", state.name()));
        }
    }
    if let Some(letters) = value.letters.filter(|_| !mmio_install) {
        let fits = letters_fit(layout, d, letters);
        tally.add(if fits { 8 } else { -60 }, || {
            String::from(if fits {
                "the letters printed are those it has"
            } else {
                "the event printed other permissions than it would have"
            })
        });
    }
    if let Some(mask) = value.printed_mask {
        let difference = layout.reserved_mask(d.raw, d.level) ^ mask;
        let points = if difference == 0 { 25 } else { -(24 + 8 * difference.count_ones() as i32).min(60) };
        tally.add(points, || {
            if difference == 0 {
                format!(
                    "the reserved mask printed, {mask:#x}, is the one of this layout at level {}",
                    d.level
                )
            } else {
                format!("its reserved mask would differ from the one printed in {}", bit_list(difference))
            }
        });
    }
}

fn fit_mmio(layout: &Layout, d: &Decoded, value: &Value, tally: &mut Tally) {
    let gfn = d.gfn.unwrap_or(0);
    let generation = d.mmio_generation.unwrap_or(0);
    let again = layout.mmio(gfn, d.mmio_access.unwrap_or(0), generation);
    if again == d.raw {
        tally.add(30, || String::from("the MMIO SPTE that this kernel makes for its frame is the same word"));
    } else {
        let points = if let GfnRule::Plain { .. } = layout.mmio_gfn { -20 } else { -40 };
        tally
            .add(points, || format!("an MMIO SPTE of its frame would differ in {}", bit_list(again ^ d.raw)));
    }
    // Emulated devices sit below 4 GiB or in a window below the end of guest memory.
    let named = matches!(value.role, Role::Mmio { gfn: Some(_), .. });
    if gfn >= 1 << 28 && !named {
        tally.add(-15, || format!("the MMIO frame {gfn:#x} would be beyond a tebibyte"));
    }
    // Generations grow from zero by small steps (or, up to 5.0, from near the end of the range).
    if generation > 0x1000 && generation < 0xfff00 {
        tally.add(-6, || format!("the generation {generation:#x} would be unusually high"));
    }
}

fn fit_present(layout: &Layout, d: &Decoded, reserved: bool, tally: &mut Tally) {
    let unknown = layout.unknown_bits(d) & if reserved { !d.reserved_bits } else { u64::MAX };
    if unknown != 0 {
        tally.add(-40 * unknown.count_ones().min(3) as i32, || {
            format!("{} would mean nothing", bit_list(unknown))
        });
    }
    if layout.refuses(d) && !reserved {
        tally.add(-50, || String::from("it would be malformed"));
    }
    if layout.suppress_ve != 0 {
        let set = d.suppress_ve == Some(true);
        tally.add(if set { 10 } else { -60 }, || {
            String::from(if set {
                "suppress-#VE (bit 63) is set, as in every entry since 6.10"
            } else {
                "suppress-#VE (bit 63) is clear, which 6.10 and later set in every entry"
            })
        });
    }
    if layout.present != PresentRule::NotSpecial {
        // One bit in the right place is weak evidence: half of all random words have it.
        tally.add(4, || String::from("MMU-present is set"));
    }
    if d.pfn == Some(0) {
        // The host keeps its first page for the BIOS.
        tally.add(-25, || String::from("it would map frame 0"));
    }
    if d.pfn.unwrap_or(0) >= 1 << 34 {
        tally.add(-25, || format!("frame {:#x} would lie beyond 64 TiB", d.pfn.unwrap_or(0)));
    }
    let expected = match d.ad_type {
        Some(AdType::Enabled) => !matches!(layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd),
        Some(AdType::Disabled) => matches!(layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd),
        Some(AdType::WrprotOnly) => layout.mode.is_nested(),
        Some(AdType::Reserved) => false,
        None => true,
    };
    if !expected {
        tally.add(-45, || {
            format!("its A/D type would be \"{}\"", d.ad_type.map_or("", AdType::name).replace('_', "-"))
        });
    }
}

fn fit_table(layout: &Layout, d: &Decoded, reserved: bool, tally: &mut Tally) {
    let made = layout.table(d.pfn.unwrap_or(0), d.ad_type.unwrap_or(AdType::Enabled));
    let mut difference = (made ^ d.raw) & !layout.masks.accessed_mask;
    if reserved {
        difference &= !d.reserved_bits;
    }
    fit_present(layout, d, reserved, tally);
    tally.add(if difference == 0 { 30 } else { -30 }, || {
        if difference == 0 {
            String::from("it is the word this kernel makes to link a table")
        } else {
            format!("a link to that table would differ in {}", bit_list(difference))
        }
    });
    if d.level == 1 {
        tally.add(-50, || String::from("level 1 links no tables"));
    }
}

fn fit_leaf(layout: &Layout, d: &Decoded, reserved: bool, tally: &mut Tally) {
    fit_present(layout, d, reserved, tally);
    tally.add(6, String::new);
    match (d.host_writable, d.mmu_writable, d.w) {
        (None, ..) => {}
        (Some(true), Some(true), _) => {
            tally.add(8, || String::from("host-writable and MMU-writable are set together"));
        }
        (Some(_), Some(false), Some(false)) => tally.add(2, String::new),
        (hw, mw, w) => tally.add(-35, || {
            let on = |flag: Option<bool>| u8::from(flag == Some(true));
            format!("host-writable {}, MMU-writable {}, W {} do not go together", on(hw), on(mw), on(w))
        }),
    }
    let saved = d.raw & layout.saved_mask();
    if d.access_tracked == Some(true) {
        let points = if saved != 0 { 15 } else { -10 };
        tally.add(points, || String::from("it would be access-tracked"));
    } else if saved != 0 {
        tally.add(-40, || format!("saved permissions ({}) without access tracking", bit_list(saved)));
    } else if d.r != Some(true) {
        tally.add(-35, || String::from("it would not be readable"));
    }
    match layout.format {
        Format::Ept => {
            let points = match (d.memtype, d.ignore_pat) {
                (Some(6), _) => 8,
                (Some(0), Some(false)) => 0,
                (Some(0), _) => -8,
                (Some(1 | 4 | 5), _) => -16,
                _ if reserved => 0,
                _ => -30,
            };
            tally.add(points, || format!("memory type {}", d.memtype.unwrap_or(0)));
        }
        Format::Legacy => {
            let npt = layout.mode == Mode::Npt && layout.ad_type.shift != 60;
            if d.u == Some(false) && (npt || layout.mode == Mode::Pvm) {
                tally.add(-40, || String::from("the user bit would be clear, which these tables always set"));
            }
            if d.raw & bits::range(4, 3) != 0 {
                tally.add(-10, || String::from("PWT or PCD would be set, which KVM never does"));
            }
        }
    }
    if d.dirty == Some(true) && d.accessed == Some(false) && d.ad_type == Some(AdType::Enabled) {
        tally.add(-12, || String::from("it would be dirty but not accessed"));
    }
    // With A/D in software (6.13 and later), a writable entry is made dirty, and clearing Dirty clears Writable as well.
    if d.dirty == Some(false) && d.w == Some(true) && d.ad_type == Some(AdType::Disabled) {
        tally.add(-25, || {
            String::from(
                "it is writable and clean, which an entry without A/D bits in hardware is only up to 6.12",
            )
        });
    }
}
