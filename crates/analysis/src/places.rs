//! [`usually_in`]: what usually lies at a guest-physical address of a PC. It is a guess from the address alone, and every face says so.

/// First and last guest frame of a range, and what most chipsets and firmwares put there. The first match counts.
const PLACES: &[(u64, u64, &str)] = &[
    (0xa0, 0xbf, "VGA memory"),
    (0xc0, 0xef, "option ROMs"),
    (0xf0, 0xff, "BIOS"),
    (0xb0000, 0xbffff, "PCIe config space"),
    (0xe0000, 0xeffff, "PCIe config space"),
    (0xfec00, 0xfec00, "I/O APIC"),
    (0xfed00, 0xfed00, "HPET"),
    (0xfed40, 0xfed44, "TPM"),
    (0xfed1c, 0xfed1f, "chipset registers"),
    (0xfee00, 0xfee00, "local APIC"),
    (0xffc00, 0xfffff, "firmware flash"),
    (0xc0000, 0xfebff, "PCI device"),
];

/// What lies at this guest frame on most PCs.
fn usually(gfn: u64) -> Option<&'static str> {
    PLACES.iter().find(|(a, b, _)| (*a..=*b).contains(&gfn)).map(|p| p.2)
}

/// What lies in a range of guest frames (`end` is one past the last) on most PCs, at most three names. Only the first 64 frames are looked up.
pub fn usually_in(start: u64, end: u64) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for gfn in start..end.min(start.saturating_add(64)).max(start.saturating_add(1)) {
        match usually(gfn) {
            Some(n) if !names.contains(&n) && names.len() < 3 => names.push(n),
            _ => {}
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{usually, usually_in};

    #[test]
    fn the_first_match_is_the_most_specific() {
        // Addresses from the Intel SDM (APIC), the HPET and TPM specifications and QEMU's q35 memory map.
        for (gfn, what) in [
            (0xfee00, Some("local APIC")),
            (0xfec00, Some("I/O APIC")),
            (0xfed00, Some("HPET")),
            (0xb0000, Some("PCIe config space")),
            (0xfebff, Some("PCI device")),
            (0xa0, Some("VGA memory")),
            (0x1000, None),
            (0x100000, None),
        ] {
            assert_eq!(usually(gfn), what, "{gfn:#x}");
        }
        assert_eq!(usually_in(0xfebff, 0xfec01).as_deref(), Some("PCI device, I/O APIC"));
        assert_eq!(usually_in(u64::MAX, u64::MAX), None);
    }
}
