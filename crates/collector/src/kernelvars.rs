//! Reads the values of KVM's own variables from the running kernel's memory: `/proc/kallsyms` has their addresses, `/proc/kcore` their
//! contents. It never writes, and where the host does not allow reading, the reason becomes a fact of the capture.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::kcore::Kcore;

/// The width of a variable in bytes.
type Width = u8;

/// The SPTE masks. Each is a u64; they are global since 5.10, and static before (so in kallsyms only with `CONFIG_KALLSYMS_ALL`).
pub(crate) const MASKS: &[&str] = &[
    "shadow_nx_mask",
    "shadow_x_mask",
    "shadow_xs_mask",
    "shadow_xu_mask",
    "shadow_user_mask",
    "shadow_accessed_mask",
    "shadow_dirty_mask",
    "shadow_present_mask",
    "shadow_acc_track_mask",
    "shadow_me_mask",
    "shadow_me_value",
    "shadow_mmio_mask",
    "shadow_mmio_value",
    "shadow_mmio_access_mask",
    "shadow_host_writable_mask",
    "shadow_mmu_writable_mask",
    "shadow_nonpresent_or_rsvd_mask",
    "shadow_nonpresent_or_rsvd_lower_gfn_mask",
    "shadow_memtype_mask",
    "shadow_nonpresent_or_rsvd_mask_len",
    "shadow_acc_track_saved_bits_mask",
    "shadow_acc_track_saved_bits_shift",
    "sme_me_mask",
    "physical_mask",
];

/// Other variables on which the MMU's behaviour depends.
pub(crate) const VARS: &[(&str, Width)] = &[
    ("shadow_phys_bits", 1),
    ("kvm_ad_enabled", 1),
    ("enable_mmio_caching", 1),
    ("allow_mmio_caching", 1),
    ("tdp_enabled", 1),
    ("tdp_mmu_enabled", 1),
    ("tdp_mmu_allowed", 1),
    ("nx_huge_pages", 4),
    ("enable_ept", 1),
    ("enable_ept_ad_bits", 1),
    ("enable_pml", 1),
    ("enable_mbec", 1),
    ("enable_tdx", 1),
    ("npt_enabled", 1),
    ("gmet_enabled", 1),
    ("max_huge_page_level", 4),
    ("max_tdp_level", 4),
    ("page_offset_base", 8),
];

fn width(name: &str) -> Option<Width> {
    if MASKS.contains(&name) {
        return Some(8);
    }
    VARS.iter().find(|v| v.0 == name).map(|v| v.1)
}

/// The values that were read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelVars {
    /// The masks, by the kernel's names.
    pub masks: BTreeMap<&'static str, u64>,
    /// The other variables, by the kernel's names.
    pub vars: BTreeMap<&'static str, u64>,
    /// What could not be read and why; the name `*` stands for all variables.
    pub unread: Vec<(String, String)>,
}

/// Finds the addresses of the variables in the text of kallsyms. `Err` says why there are none at all.
pub(crate) fn addresses(mut kallsyms: impl Read) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut text = Vec::new();
    kallsyms.read_to_end(&mut text).map_err(|e| format!("/proc/kallsyms: {e}"))?;
    let mut found = BTreeMap::new();
    let (mut kvm_here, mut any_address) = (false, false);
    for line in text.split(|&b| b == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let mut parts = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        any_address |= address.bytes().any(|b| b != b'0');
        kvm_here |= name == "kvm_mmu_page_fault";
        if !matches!(kind, "b" | "B" | "d" | "D" | "r" | "R") {
            continue;
        }
        // Another module may have a static variable of the same name, so only those of kvm's modules and of vmlinux count.
        if !matches!(parts.next(), None | Some("[kvm]" | "[kvm_intel]" | "[kvm_amd]")) {
            continue;
        }
        let Some(name) = MASKS.iter().copied().chain(VARS.iter().map(|v| v.0)).find(|n| *n == name) else {
            continue;
        };
        if let Ok(a) = u64::from_str_radix(address, 16) {
            found.entry(name).or_insert(a);
        }
    }
    if !any_address {
        return Err(
            "/proc/kallsyms shows no addresses to this user (kernel.kptr_restrict, CAP_SYSLOG)".into()
        );
    }
    if found.is_empty() {
        return Err(if kvm_here {
            "/proc/kallsyms has no data symbols of KVM (kernel without CONFIG_KALLSYMS_ALL)".into()
        } else {
            "KVM's symbols are not in /proc/kallsyms (is kvm loaded?)".into()
        });
    }
    Ok(found)
}

/// Reads what can be read with these two files.
pub(crate) fn read_from(kallsyms: impl Read, core: io::Result<impl FileExt>) -> KernelVars {
    let mut out = KernelVars::default();
    let found = match addresses(kallsyms) {
        Ok(f) => f,
        Err(why) => {
            out.unread.push(("*".into(), why));
            return out;
        }
    };
    let core = match core.and_then(Kcore::of) {
        Ok(c) => c,
        Err(e) => {
            out.unread.push(("*".into(), kcore_reason(&e)));
            return out;
        }
    };
    for (name, address) in found {
        let Some(width) = width(name) else { continue };
        match core.variable(address, usize::from(width)) {
            Ok(v) if MASKS.contains(&name) => drop(out.masks.insert(name, v)),
            Ok(v) => drop(out.vars.insert(name, v)),
            Err(why) => out.unread.push((name.into(), why)),
        }
    }
    out
}

/// The reason in words why `/proc/kcore` cannot be read.
pub(crate) fn kcore_reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no /proc/kcore (kernel without CONFIG_PROC_KCORE)".into(),
        io::ErrorKind::PermissionDenied => {
            let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            if lockdown.contains("[confidentiality]") {
                "/proc/kcore: kernel lockdown (confidentiality)".into()
            } else {
                "/proc/kcore: permission denied (needs root: CAP_SYS_RAWIO)".into()
            }
        }
        _ => format!("/proc/kcore: {e}"),
    }
}

/// Reads the variables of the running kernel.
pub(crate) fn read() -> KernelVars {
    match File::open("/proc/kallsyms") {
        Ok(k) => read_from(k, File::open("/proc/kcore")),
        Err(e) => {
            KernelVars { unread: vec![("*".into(), format!("/proc/kallsyms: {e}"))], ..KernelVars::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // These addresses and values were printed by a 6.1 host.
    const KALLSYMS: &str = "ffffffff81000000 T _text\nffffffffc0a55e60 D shadow_mmio_value\t[kvm]\n\
        ffffffffc0a55e68 b shadow_phys_bits\t[kvm]\nffffffffc0a55e70 t shadow_nx_mask\t[kvm]\n\
        ffffffffc0b00000 d enable_pml\t[other]\nffffffff82a39660 d shadow_timekeeper\n";

    /// A core file with one segment at 0xffffffffc0a55000.
    fn core() -> tempfile::NamedTempFile {
        let mut b = vec![0u8; 0x3000];
        b[..6].copy_from_slice(b"\x7fELF\x02\x01");
        b[32..40].copy_from_slice(&64u64.to_le_bytes());
        b[54..56].copy_from_slice(&56u16.to_le_bytes());
        b[56..58].copy_from_slice(&1u16.to_le_bytes());
        b[64..68].copy_from_slice(&1u32.to_le_bytes());
        b[72..80].copy_from_slice(&0x1000u64.to_le_bytes());
        b[80..88].copy_from_slice(&0xffffffffc0a55000u64.to_le_bytes());
        b[104..112].copy_from_slice(&0x2000u64.to_le_bytes());
        b[0x1e60..0x1e68].copy_from_slice(&0x0008000000000001u64.to_le_bytes());
        b[0x1e68..0x1e70].copy_from_slice(&0x10128u64.to_le_bytes());
        let f = tempfile::NamedTempFile::new().unwrap();
        fs::write(f.path(), b).unwrap();
        f
    }

    #[test]
    fn values_come_out_of_kernel_memory() {
        let f = core();
        let v = read_from(KALLSYMS.as_bytes(), File::open(f.path()));
        assert_eq!(v.masks.get("shadow_mmio_value"), Some(&0x0008000000000001));
        assert_eq!(v.vars.get("shadow_phys_bits"), Some(&0x28), "one byte, not the eight that kvars shows");
        assert!(!v.masks.contains_key("shadow_nx_mask"), "a function of that name is not the variable");
        assert!(!v.vars.contains_key("enable_pml"), "another module's variable is not KVM's");
        assert!(v.unread.is_empty());
    }

    #[test]
    fn reasons_are_named() {
        let zero = "0000000000000000 D shadow_mmio_value\t[kvm]\n";
        let why = |k: &str| read_from(k.as_bytes(), File::open("/nonexistent")).unread.remove(0).1;
        assert!(why(zero).contains("kptr_restrict"));
        assert!(why("ffffffff81000000 T kvm_mmu_page_fault\n").contains("CONFIG_KALLSYMS_ALL"));
        assert!(why("ffffffff82a39660 d x\n").contains("is kvm loaded"));
        assert!(why(KALLSYMS).contains("CONFIG_PROC_KCORE"));
        let outside = KALLSYMS.replace("ffffffffc0a55e60", "ffffffffd0000000");
        let f = core();
        let v = read_from(outside.as_bytes(), File::open(f.path()));
        assert_eq!(v.unread.len(), 1);
        assert!(v.unread[0].0 == "shadow_mmio_value" && v.unread[0].1.contains("no segment"));
    }

    #[test]
    fn a_broken_core_is_an_error_not_a_crash() {
        for n in [0, 10, 64, 100, 120] {
            let f = tempfile::NamedTempFile::new().unwrap();
            let whole = fs::read(core().path()).unwrap();
            fs::write(f.path(), &whole[..n]).unwrap();
            let v = read_from(KALLSYMS.as_bytes(), File::open(f.path()));
            assert!(!v.unread.is_empty() && v.masks.is_empty() && v.vars.is_empty(), "{n} bytes");
        }
    }
}
