//! Which guest frames an event names: the first and one past the last.

use super::values::{ErrorEncoding, Isa, Page};

/// The number of 4 KiB pages that a leaf of this level maps. A level that no hardware has maps everything.
fn pages_of(level: u8) -> u64 {
    1 << (9 * level.saturating_sub(1).min(5))
}

/// A single frame.
pub(super) fn one(gfn: u64) -> (u64, u64) {
    (gfn, gfn.saturating_add(1))
}

/// All frames that the entry of this level maps in which `gfn` lies.
pub(super) fn sized(gfn: u64, level: u8) -> (u64, u64) {
    let n = pages_of(level);
    let first = gfn / n * n;
    (first, first.saturating_add(n))
}

/// The frames that an entry of this level covers, from its first one on.
pub(super) fn covered(gfn: u64, level: u8) -> (u64, u64) {
    (gfn, gfn.saturating_add(pages_of(level)))
}

/// The frames that a table covers, from its first one on.
pub(super) fn above(p: &Page) -> Option<(u64, u64)> {
    Some(covered(p.gfn?, p.role.level.saturating_add(1)))
}

/// The frames of a range of guest-physical addresses, of which both ends are known.
pub(super) fn region(gpa: Option<u64>, size: Option<u64>) -> Option<(u64, u64)> {
    let (gpa, size) = (gpa?, size.filter(|s| *s > 0)?);
    Some((gpa >> 12, gpa.saturating_add(size).div_ceil(1 << 12)))
}

/// What a table stands for: a direct one is named by what it maps, a shadow page by the guest's table that it stands for.
pub(super) fn table(p: &Page) -> Option<(u64, u64)> {
    let gfn = p.gfn?;
    Some(if p.role.direct { sized(gfn, p.role.level.saturating_add(1)) } else { one(gfn) })
}

/// The frame of a fault's address, where its encoding says that the address is guest-physical.
pub(super) fn physical(address: u64, encoding: ErrorEncoding) -> Option<u64> {
    matches!(encoding, ErrorEncoding::EptQualification | ErrorEncoding::NestedPageFault).then_some(address)
}

/// A fault's address, where its encoding says that it is guest-virtual.
pub(super) fn linear(address: u64, encoding: ErrorEncoding) -> Option<u64> {
    (encoding == ErrorEncoding::PageFault).then_some(address)
}

/// `kvm_exit` of a nested page fault on SVM, which names the guest-physical address.
const SVM_EXIT_NPF: u32 = 0x400;

/// The guest-physical address of an exit that is a nested page fault on SVM.
pub(super) fn nested_fault(isa: Option<Isa>, reason: Option<u32>, info2: Option<u64>) -> Option<u64> {
    info2.filter(|_| isa == Some(Isa::Svm) && reason == Some(SVM_EXIT_NPF))
}
