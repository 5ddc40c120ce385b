//! `union kvm_mmu_page_role`: one word, four layouts.
//!
//! ```text
//! bits      up to 5.0      5.1 to 5.16        5.17 to 7.1       7.2 and later
//! 0-3       level          =                  =                 =
//! 4         cr4_pae        gpte_is_8_bytes    has_4_byte_gpte   =
//! 5-6       quadrant       =                  =                 =
//! 7         direct         =                  =                 =
//! 8-10      access x w u   =                  =                 8-11: r w u x
//! 11        invalid        =                  =                 12
//! 12        nxe            =                  efer_nx           13
//! 16        ad_disabled    =                  =                 =
//! 17        guest_mode     =                  =                 =
//! 19        -              -                  is_mirror (6.14)  =
//! 24-31     smm            =                  =                 =
//! ```

use crate::info::RoleWord;
use crate::schema::values::Role;

/// Splits a role word into its fields.
#[inline]
pub(crate) fn decode(word: u32, layout: RoleWord) -> Role {
    let bit = |n: u32| word >> n & 1 != 0;
    let direct = bit(7);
    let (access, up) = match layout {
        RoleWord::AccessRead => ((bit(8), bit(9), bit(10), bit(11)), 1),
        _ => ((true, bit(9), bit(10), bit(8)), 0),
    };
    let gpte_bytes = match layout {
        // Without PAE, a direct page still has 8-byte entries: the bit describes the guest's tables.
        RoleWord::Cr4Pae => (!direct).then_some(if bit(4) { 8 } else { 4 }),
        RoleWord::GpteIs8Bytes => Some(if bit(4) { 8 } else { 4 }),
        RoleWord::Has4ByteGpte | RoleWord::AccessRead => Some(if bit(4) { 4 } else { 8 }),
    };
    Role {
        raw: Some(word),
        level: (word & 15) as u8,
        gpte_bytes,
        quadrant: (word >> 5 & 3) as u8,
        direct,
        r: access.0,
        w: access.1,
        u: access.2,
        x: access.3,
        invalid: bit(11 + up),
        nxe: Some(bit(12 + up)),
        ad_disabled: bit(16),
        guest_mode: Some(bit(17)),
        smm: Some(word >> 24 != 0),
        mirror: matches!(layout, RoleWord::Has4ByteGpte | RoleWord::AccessRead).then_some(bit(19)),
    }
}

/// The layout that the `print fmt` of a shadow-page event shows.
pub(crate) fn layout_of(print_fmt: &str) -> Option<RoleWord> {
    if print_fmt.contains("\"rwux\"") || print_fmt.contains("\"r---\"") {
        Some(RoleWord::AccessRead)
    } else if print_fmt.contains("has_4_byte_gpte") {
        Some(RoleWord::Has4ByteGpte)
    } else if print_fmt.contains("gpte_is_8_bytes") {
        Some(RoleWord::GpteIs8Bytes)
    } else if print_fmt.contains("cr4_pae") {
        Some(RoleWord::Cr4Pae)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The words and their texts are from real runs: 6.1 printed 14212 = 0x3784 as `l4 8-byte q0 direct wux nxe ad`.
    #[test]
    fn six_one() {
        let r = decode(14212, RoleWord::Has4ByteGpte);
        assert_eq!((r.level, r.gpte_bytes, r.quadrant, r.direct), (4, Some(8), 0, true));
        assert_eq!(
            (r.w, r.u, r.x, r.invalid, r.nxe, r.ad_disabled),
            (true, true, true, false, Some(true), false)
        );
    }

    #[test]
    fn four_bits_of_access() {
        // level 3, direct, rwux, efer_nx, cr0_wp.
        let r = decode(3 | 1 << 7 | 0xf << 8 | 1 << 13 | 1 << 14, RoleWord::AccessRead);
        assert_eq!(
            (r.level, r.r, r.w, r.u, r.x, r.invalid, r.nxe),
            (3, true, true, true, true, false, Some(true))
        );
    }
}
