//! Events of kprobes that somebody set by hand: which function they are on.
//!
//! `echo 'p:NAME FUNCTION sptep=%di …' > kprobe_events` and `perf probe` let the user choose the event's name. ftrace prints the function behind
//! it, in parentheses; perf prints an address there, and binary records have a field `__probe_ip`. A trace.dat has the kernel's symbols, in which
//! the function is looked up ([`places`]). Elsewhere the name is all there is: that of the function, or what ftrace and perf make of it
//! (`p_FUNCTION_0`, `FUNCTION_1`).
//!
//! Kernels that check indirect branches (CONFIG_X86_KERNEL_IBT) begin each function with an instruction of 4 bytes that only marks the place
//! (ENDBR64). A probe on the function is then on the instruction behind it, `FUNCTION+0x4`, and all arguments are where they were.

use crate::schema::{TRACEPOINTS, Tp, tracepoint};

/// The length of the instruction that marks the beginning of a function.
const MARK: u64 = 4;

/// The system of the entries for probes.
const SYSTEM: &str = "probe";

/// The tracepoint that a probe on this function stands for.
fn on(function: &[u8]) -> Option<Tp> {
    tracepoint(function).filter(|tp| is_probe(*tp))
}

/// Whether an event is of a kprobe.
pub(crate) fn is_probe(tp: Tp) -> bool {
    TRACEPOINTS.iter().any(|t| t.kind == tp.kind && t.system == SYSTEM)
}

/// The probe that an event of this name is, if the name says so.
pub(crate) fn by_name(name: &[u8]) -> Option<Tp> {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let stem = name[..name.len() - digits].strip_suffix(b"_").filter(|_| digits > 0).unwrap_or(name);
    [name, stem].into_iter().find_map(|n| on(n).or_else(|| on(n.strip_prefix(b"p_")?)))
}

/// Splits the text of a probe's event, `(FUNCTION+0x0/0x1a0 [kvm]) name=value …`, into the function, where it is named, and the values. Returns
/// `None` for any other text, and for a probe that is not at the beginning of its function.
pub(crate) fn split(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let inside = rest.strip_prefix(b"(")?;
    let end = inside.iter().position(|b| *b == b')')?;
    let (place, values) = (&inside[..end], &inside[end + 1..]);
    let function = match place.iter().position(|b| *b == b'+') {
        Some(n) => Some(
            place
                .get(n..)?
                .strip_prefix(b"+0x")
                .filter(|r| matches!(r, [b'0' | b'4', rest @ ..] if !rest.first().is_some_and(u8::is_ascii_hexdigit)))
                .map(|_| &place[..n])?,
        ),
        // perf prints the address alone, and without symbols ftrace does, too.
        None if place.iter().all(|b| b.is_ascii_hexdigit() || *b == b'x') => None,
        // `(caller <- function)` is a probe on the return.
        None => return None,
    };
    Some((function, values))
}

/// The probe that a text is of, and its values.
pub(crate) fn read<'a>(event: &[u8], rest: &'a [u8]) -> Option<(Tp, &'a [u8])> {
    let (function, values) = split(rest)?;
    let tp = function.map_or_else(|| by_name(event), on)?;
    Some((tp, values))
}

/// The probed functions that a copy of `/proc/kallsyms` has, by their addresses. Where the kernel hid those (zeros), none.
pub(crate) fn places(kallsyms: &[u8]) -> Vec<(u64, Tp)> {
    let place = |line: &[u8]| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        let (address, _, name) = (words.next()?, words.next()?, words.next()?);
        let tp = on(name)?;
        let address = u64::from_str_radix(std::str::from_utf8(address).ok()?, 16).ok()?;
        (address != 0).then_some((address, tp))
    };
    kallsyms.split(|b| *b == b'\n').filter_map(place).collect()
}

/// Whether a probe at this address is on the function that begins at `place`.
pub(crate) fn is_at(address: u64, place: u64) -> bool {
    address == place || address == place.wrapping_add(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    #[test]
    fn the_function_decides_and_the_name_where_there_is_none() {
        let kind = |event: &str, rest: &str| read(event.as_bytes(), rest.as_bytes()).map(|(tp, _)| tp.kind);
        let update = Some(Kind::ProbeSpteUpdate);
        assert_eq!(kind("mine", "(mmu_spte_update+0x0/0x1a0 [kvm]) sptep=0x1 new=0x2"), update);
        assert_eq!(kind("mine", "(mmu_spte_update+0x0) sptep=0x1"), update);
        assert_eq!(kind("mine", "(mmu_spte_update+0x4/0x1a0 [kvm]) sptep=0x1 new=0x2"), update);
        assert_eq!(kind("mine", "(mmu_spte_update+0x4) sptep=0x1"), update);
        assert_eq!(kind("mmu_spte_update", "(ffffffffc0a3b2c0) sptep=0x1 new=0x2"), update);
        assert_eq!(kind("p_mmu_spte_update_0", "(ffffffffc0a3b2c0)"), update);
        assert_eq!(kind("mmu_spte_update_1", "(0xffffffffc0a3b2c0)"), update);
        for other in [
            ("mmu_spte_update", "(drop_large_spte+0x0/0x10 [kvm]) a=1"),
            ("mmu_spte_update", "(mmu_spte_update+0x04/0x1a0 [kvm]) a=1"),
            ("mmu_spte_update", "(mmu_spte_update+0x3c/0x1a0 [kvm]) a=1"),
            ("mmu_spte_update", "(mmu_spte_update+0x40/0x1a0 [kvm]) a=1"),
            ("mmu_spte_update", "(mmu_spte_update+0x5/0x1a0 [kvm]) a=1"),
            ("mmu_spte_update", "(drop_spte+0x12/0x40 <- mmu_spte_update) a=1"),
            ("kvm_entry", "(ffffffffc0a3b2c0) vcpu_id=1"),
            ("mmu_spte_update", "sptep=0x1"),
        ] {
            assert_eq!(kind(other.0, other.1), None, "{other:?}");
        }
    }

    #[test]
    fn functions_are_found_among_the_symbols() {
        let text = "ffffffffc0a3b2c0 t mmu_spte_update\t[kvm]\n\
            ffffffffc0a3b300 t mmu_spte_update.isra.0\t[kvm]\n\
            ffffffffc0a3b400 t drop_large_spte [kvm]\n\
            0000000000000000 t mmu_spte_clear_track_bits\t[kvm]\n\
            ffffffffc0a3c000 T __kvm_set_memory_region\t[kvm]";
        let found: Vec<_> = places(text.as_bytes()).into_iter().map(|(at, tp)| (at, tp.kind)).collect();
        let wanted = [
            (0xffff_ffff_c0a3_b2c0, Kind::ProbeSpteUpdate),
            (0xffff_ffff_c0a3_c000, Kind::ProbeSetMemoryRegion),
        ];
        assert_eq!(found, wanted);
        assert!(is_at(0x1000, 0x1000) && is_at(0x1004, 0x1000) && !is_at(0x1005, 0x1000));
    }
}
