//! What follows from a host: address widths, the L1TF split, generations, reserved bits; and what the kernel traces, which follows from its
//! release. [`super::LayoutSpec::resolve`] calls it.

use alloc::{format, string::String, vec::Vec};

use super::settings::{Settings, Terms};
use crate::{
    Error, Host, MarkMmio, Masks, PageLevel, Resize, SetSpte, Traces, Unlink, Vendor, ZapAll, bits, mmio,
};

/// What the kernel traces.
pub(super) fn traces(s: &Settings<'_>) -> Result<Traces, Error> {
    let flag = |key| s.flag("traces", key);
    let word = |key, words: &[&'static str]| s.word("traces", key, words);
    let resize = |key| {
        Ok::<_, Error>(match word(key, &["zap", "in-place"])? {
            "zap" => Resize::Zap,
            _ => Resize::InPlace,
        })
    };
    Ok(Traces {
        changes: flag("changes")?,
        set_spte: match word("set_spte", &["never", "once", "before-and-after", "twice"])? {
            "never" => SetSpte::Never,
            "once" => SetSpte::Once,
            "twice" => SetSpte::Twice,
            _ => SetSpte::BeforeAndAfter,
        },
        freeze: flag("freeze")?,
        release: flag("release")?,
        page_zaps: flag("page_zaps")?,
        page_level: match word("page_level", &["own", "above"])? {
            "own" => PageLevel::Own,
            _ => PageLevel::Above,
        },
        zap_all: match word("zap_all", &["in-place", "obsolete"])? {
            "in-place" => ZapAll::InPlace,
            _ => ZapAll::Obsolete,
        },
        unlink: match word("unlink", &["first", "last"])? {
            "first" => Unlink::First,
            _ => Unlink::Last,
        },
        fast_faults: flag("fast_faults")?,
        notifiers: flag("notifiers")?,
        change_pte: flag("change_pte")?,
        mark_mmio: match word("mark_mmio", &["before", "after"])? {
            "before" => MarkMmio::Before,
            _ => MarkMmio::After,
        },
        mmio_set_spte: flag("mmio_set_spte")?,
        eager_splits: flag("eager_splits")?,
        fault_splits: resize("fault_splits")?,
        recovery: resize("recovery")?,
        slot_leaves: flag("slot_leaves")?,
    })
}

pub(super) fn width(s: &Settings<'_>, host: &Host) -> Result<u32, Error> {
    let keyids = host.vendor.value == Vendor::Intel && host.phys_bits.value != host.maxphyaddr.value;
    let width = match s.word("host", "width", &["phys", "tme", "cpuid"])? {
        "phys" => host.phys_bits.value,
        // These kernels asked CPUID only on CPUs with TME, which take KeyIDs out of the width.
        "tme" if !keyids => host.phys_bits.value,
        _ => host.maxphyaddr.value,
    };
    Ok(u32::from(width))
}

/// Computes `shadow_nonpresent_or_rsvd_mask` and the mask of the frame bits below it.
pub(super) fn l1tf(s: &Settings<'_>, host: &Host) -> Result<(u64, u64), Error> {
    let phys = u32::from(host.phys_bits.value);
    let bits = match s.word("mmio", "l1tf_width", &["phys", "cache"])? {
        "phys" => phys,
        _ => u32::from(host.cache_bits.value),
    };
    let rule = s.word("mmio", "l1tf", &["none", "every-cpu", "buggy-cpus"])?;
    let wanted = match rule {
        "none" => false,
        "every-cpu" => true,
        _ => host.l1tf.value,
    };
    let len = mmio::GfnRule::SHIFT;
    Ok(if wanted && bits < 52 - len && bits > 12 + len {
        (bits::range(bits - 1, bits - len), bits::range(bits - len - 1, 12))
    } else {
        // Kernels that split on every CPU used the same width without the split; later kernels use the physical one.
        let bits = if rule == "every-cpu" { bits } else { phys };
        (0, bits::range(bits.saturating_sub(1), 12))
    })
}

pub(super) fn generation(s: &Settings<'_>, mmio_mask: u64) -> Result<mmio::Generation, Error> {
    let pieces = |key: &str, from_g: bool| -> Result<[mmio::Piece; 2], Error> {
        let (file, line, list) = s.list("mmio", key)?;
        if list.is_empty() || list.len() > 2 {
            return Err(Settings::wrong("mmio", key, file, line, ""));
        }
        let mut pieces = [mmio::Piece::default(); 2];
        for (piece, text) in pieces.iter_mut().zip(list) {
            *piece = parse_piece(text, from_g)
                .ok_or_else(|| Settings::wrong("mmio", key, file, line, &format!("not `{text}`")))?;
        }
        Ok(pieces)
    };
    let clear = match s.word("mmio", "generation_clear", &["mask", "none"])? {
        "mask" => mmio_mask,
        _ => 0,
    };
    Ok(mmio::Generation {
        store: pieces("generation_store", true)?,
        read: pieces("generation_read", false)?,
        clear,
    })
}

/// The masks that the kernel computes at module load, with the MMIO value it starts with.
pub(super) fn computed_masks(
    s: &Settings<'_>,
    host: &Host,
    terms: &Terms<'_>,
    notes: &mut Vec<String>,
) -> Result<Masks, Error> {
    let mask = |section: &str, key: &str| s.mask(section, key, terms);
    let (split, lower) = l1tf(s, host)?;
    let mut m = Masks {
        nonpresent_or_rsvd_mask: split,
        nonpresent_or_rsvd_lower_gfn_mask: lower,
        me_value: mask("masks", "me_value")?,
        me_mask: mask("masks", "me")?,
        base_addr_mask: mask("bits", "address")? & !terms.sme(),
        user_mask: mask("masks", "user")?,
        nx_mask: mask("masks", "nx")?,
        x_mask: mask("masks", "x")?,
        xu_mask: mask("masks", "xu")?,
        accessed_mask: mask("masks", "accessed")?,
        dirty_mask: mask("masks", "dirty")?,
        present_mask: mask("masks", "present")?,
        acc_track_mask: mask("masks", "acc_track")?,
        host_writable_mask: mask("masks", "host_writable")?,
        mmu_writable_mask: mask("masks", "mmu_writable")?,
        mmio_access_mask: mask("mmio", "access")?,
        ..Masks::default()
    };
    // The MMIO value is the default, or the one that SVM sets where memory encryption is on.
    let encrypted = host.vendor.value == Vendor::Amd && host.c_bit.is_some() && host.mem_encrypt.value;
    let value_item =
        if encrypted && s.has("mmio", "value_mem_encrypt") { "value_mem_encrypt" } else { "value" };
    m.mmio_value = mask("mmio", value_item)?;
    m.mmio_mask = if mask_follows_value(s) { m.mmio_value } else { mask("mmio", "mask")? };
    if caching(s)? != "always" {
        if !host.mmio_caching.value {
            m.mmio_value = 0;
        }
        if m.mmio_value & (split << mmio::GfnRule::SHIFT) != 0 {
            m.mmio_value = 0;
            notes.push(
                "the MMIO value collides with the L1TF bits: this kernel then uses no MMIO SPTEs".into(),
            );
        }
    } else if !host.mmio_caching.value {
        notes.push("kernels before 5.13 cannot turn MMIO caching off".into());
    }
    Ok(m)
}

/// Whether the kernel uses the MMIO value as the mask as well.
pub(super) fn mask_follows_value(s: &Settings<'_>) -> bool {
    !s.has("mmio", "mask")
}

/// When the kernel uses MMIO SPTEs: one of the words of the key `caching`.
pub(super) fn caching(s: &Settings<'_>) -> Result<&'static str, Error> {
    s.word("mmio", "caching", &["always", "nonzero", "narrow", "never"])
}

/// Parses `g[8:0] -> b[11:3]`, or the same with both sides exchanged.
pub(super) fn parse_piece(text: &str, from_g: bool) -> Option<mmio::Piece> {
    let (left, right) = text.split_once("->")?;
    let (g, b) = if from_g { (left, right) } else { (right, left) };
    let run = |text: &str, letter: char| -> Option<(u8, u8)> {
        let inner = text.trim().strip_prefix(letter)?.strip_prefix('[')?.strip_suffix(']')?;
        let (high, low) = inner.split_once(':')?;
        let (high, low): (u8, u8) = (high.parse().ok()?, low.parse().ok()?);
        (high >= low && high < 64).then_some((high, low))
    };
    let (g_high, g_low) = run(g, 'g')?;
    let (b_high, b_low) = run(b, 'b')?;
    let width = g_high - g_low + 1;
    (g_high < 32 && b_high - b_low + 1 == width).then_some(mmio::Piece {
        spte_bit: b_low,
        generation_bit: g_low,
        width,
    })
}

pub(super) fn reserved(s: &Settings<'_>, host: &Host, m: &Masks, width: u32) -> Result<[[u64; 6]; 2], Error> {
    let mut table = [[0u64; 6]; 2];
    let kind = s.word("reserved", "table", &["ept", "legacy", "none"])?;
    let no_1g = bits::when(!host.pages_1g.value, bits::bit(7));
    match kind {
        "ept" => {
            let high = bits::range(51, width);
            let no_1g = if s.flag("reserved", "large_pages")? { no_1g } else { 0 };
            for column in &mut table {
                column[4] = high | bits::range(7, 3);
                column[5] = column[4];
                column[1] = high;
            }
            table[0][3] = high | bits::range(6, 3) | no_1g;
            table[1][3] = high | bits::range(29, 12) | no_1g;
            table[0][2] = high | bits::range(6, 3);
            table[1][2] = high | bits::range(20, 12);
        }
        "legacy" => {
            let nx = match s.word("reserved", "nx", &["guest", "always", "never"])? {
                "always" => true,
                "never" => false,
                _ => !host.guest_nx.value,
            };
            let nx = bits::when(nx, bits::bit(63));
            if host.root_level.value <= 3 {
                let high = bits::range(62, width);
                for column in &mut table {
                    *column = [0, high | nx, high | nx, 0, 0, 0];
                    column[3] = high | bits::bit(63) | bits::range(8, 5) | bits::range(2, 1);
                }
                table[1][2] |= bits::range(20, 13);
            } else {
                let high = bits::range(51, width) | nx;
                let b8 = bits::when(s.flag("reserved", "level3_b8")?, bits::bit(8));
                for column in &mut table {
                    let top = high | bits::range(8, 7);
                    *column = [0, high, high, high, top, top];
                }
                table[0][3] |= b8;
                table[1][3] |= bits::range(29, 13) | no_1g;
                table[1][2] |= bits::range(20, 13);
            }
        }
        _ => {}
    }
    let encryption = s.word("reserved", "encryption", &["exempt", "checked", "ignored"])?;
    for mask in table.as_flattened_mut() {
        match encryption {
            "exempt" => *mask &= !m.me_mask,
            "checked" => *mask = (*mask | m.me_mask) & !m.me_value,
            _ => {}
        }
    }
    Ok(table)
}

/// Computes which of the 64 combinations of permissions (bits 2:0) and memory type (bits 5:3) EPT hardware refuses.
pub(super) fn bad_mt_xwr(s: &Settings<'_>, host: &Host) -> Result<u64, Error> {
    if s.word("reserved", "table", &["ept", "legacy", "none"])? != "ept" {
        return Ok(0);
    }
    let exec_only = s.word("reserved", "exec_only", &["host", "never"])? == "host" && host.exec_only.value;
    let mut bad = 0;
    for combination in 0..64u32 {
        let (rwx, memtype) = (combination & 7, combination >> 3);
        if matches!(memtype, 2 | 3 | 7) || matches!(rwx, 2 | 6) || rwx == 4 && !exec_only {
            bad |= 1u64 << combination;
        }
    }
    Ok(bad)
}
