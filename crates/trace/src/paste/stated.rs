//! What a text states about paging apart from its values: functions of a call trace, registers, errors returned to the VMM.

use super::words::{after, hex};

/// A statement of a text about paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// The text has a function, exit or message that only EPT has.
    Ept,
    /// The text has a function or message that only NPT has.
    Npt,
    /// The fault was handled for a guest-physical address, so the paging mode is EPT or NPT.
    Tdp,
    /// The fault was handled in the shadow of a nested guest's EPT.
    NestedEpt,
    /// The text has the value of the EPT pointer.
    EptPointer(u64),
    /// KVM_RUN returned with this error.
    RunError(u32),
}

/// Functions and words with what they state. A function name counts only where a symbol of KVM stands (`name+0x…`).
const WORDS: [(&str, Stated); 12] = [
    ("handle_ept_misconfig", Stated::Ept),
    ("handle_ept_violation", Stated::Ept),
    ("EPT_VIOLATION", Stated::Ept),
    ("EPT_MISCONFIG", Stated::Ept),
    ("npf_interception", Stated::Npt),
    ("reason npf", Stated::Npt),
    ("EXIT_NPF", Stated::Npt),
    ("kvm_tdp_mmu_map", Stated::Tdp),
    ("tdp_mmu_map_handle_target_level", Stated::Tdp),
    ("kvm_tdp_page_fault", Stated::Tdp),
    ("tdp_page_fault", Stated::Tdp),
    ("ept_page_fault+", Stated::NestedEpt),
];

/// All statements of a text, each with the words that make it.
pub(super) fn stated(text: &str) -> Vec<(Stated, String)> {
    let mut list: Vec<(Stated, String)> = Vec::new();
    for (word, what) in WORDS {
        if text.contains(word) && !list.iter().any(|(s, _)| *s == what) {
            list.push((what, word.trim_end_matches('+').to_owned()));
        }
    }
    for line in text.lines() {
        let pointer =
            after(line, "EPT pointer").or_else(|| after(line, "EPTP")).or_else(|| after(line, "eptp"));
        if let Some((value, _)) = pointer.and_then(hex)
            && value & 7 == 6
            && matches!(value >> 3 & 7, 3 | 4)
        {
            list.push((Stated::EptPointer(value), format!("EPT pointer {value:#x}")));
            break;
        }
    }
    for line in text.lines().filter(|l| l.contains("kvm_userspace_exit")) {
        let number = line.split_once("reason error (").and_then(|(_, rest)| rest.split_once(')'));
        if let Some(errno) = number.and_then(|(n, _)| n.parse().ok()) {
            list.push((Stated::RunError(errno), format!("kvm_userspace_exit: error {errno}")));
            break;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::{Stated, stated};

    fn only(text: &str) -> Vec<Stated> {
        stated(text).into_iter().map(|(s, _)| s).collect()
    }

    #[test]
    fn functions_registers_and_errors() {
        assert_eq!(only("RIP: 0010:handle_ept_misconfig+0x42/0x90 [kvm_intel]"), [Stated::Ept]);
        assert_eq!(
            only(" npf_interception+0x55/0x90 [kvm_amd]\n kvm_tdp_mmu_map+0x3"),
            [Stated::Npt, Stated::Tdp]
        );
        assert_eq!(only("kvm_intel: EPT pointer = 0x0000000107d2e01e"), [Stated::EptPointer(0x1_07d2_e01e)]);
        assert_eq!(only("EPT pointer = 0x1234"), [], "no pointer has these low bits");
        assert_eq!(only("x-1 [0] 1.0: kvm_userspace_exit: reason error (14)"), [Stated::RunError(14)]);
        assert_eq!(only("x-1 [0] 1.0: kvm_userspace_exit: reason KVM_EXIT_IO (2)"), []);
        // handle_ept_violation also ends in ept_violation, but it is not a fault of a nested guest.
        assert_eq!(only("handle_ept_violation+0x10"), [Stated::Ept]);
    }
}
