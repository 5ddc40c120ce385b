//! The difference of two values of one entry: what changed, and which path of the kernel makes that change.
//!
//! The main function is [`changes`]; `decode A B` and the stories of pages call it. It judges the two values only, never the trace.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{AdType, Decoded, FieldKind, Layout, Mode, Resolved, State, explain::permissions};

/// A field that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The name of the field.
    pub field: &'static str,
    /// Its value before.
    pub old: String,
    /// Its value after.
    pub new: String,
}

/// What a change of value amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The change in one line.
    pub headline: String,
    /// The fields that changed.
    pub fields: Vec<Change>,
    /// The paths of the kernel that make such a change; several where the values do not decide between them.
    pub paths: Vec<&'static str>,
    /// The reason why such a change should not happen, if it should not.
    pub problem: Option<&'static str>,
}

/// Why a leaf lost Writable, judged by which of its two software bits was cleared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteLoss {
    /// Host-writable was cleared: the host made its page read-only (copy-on-write after `fork`, `mprotect`, KSM).
    Host,
    /// MMU-writable was cleared: KVM tracks writes to the frame, which holds a page table of the guest. `KVM_CLEAR_DIRTY_LOG` clears it in a huge
    /// page as well, so that the next write splits the page.
    Tracking,
    /// Neither was cleared: this is dirty logging, and the next write fault sets Writable again.
    Logging,
}

/// Why a leaf lost Writable; `None` where it did not, or where its values do not show it.
pub fn write_loss(old: &Decoded, new: &Decoded) -> Option<WriteLoss> {
    let fell = |f: fn(&Decoded) -> Option<bool>| f(old) == Some(true) && f(new) == Some(false);
    // Access tracking clears all permissions and saves them in other bits.
    if !fell(|d| d.w) || old.pfn != new.pfn || new.access_tracked == Some(true) {
        return None;
    }
    // An entry that is not host-writable is never MMU-writable either.
    if fell(|d| d.host_writable) {
        Some(WriteLoss::Host)
    } else if fell(|d| d.mmu_writable) {
        Some(WriteLoss::Tracking)
    } else {
        (new.mmu_writable == Some(true) && new.host_writable != Some(false)).then_some(WriteLoss::Logging)
    }
}

/// Compares two values of one entry at `level`. `tdp` says that the TDP MMU is known to have made the change in one step, as
/// `kvm_tdp_mmu_spte_changed` and its errors state; else the paths of other MMUs are possible as well, and there may have been values between.
pub fn changes(resolved: &Resolved, old: u64, new: u64, level: u8, tdp: bool) -> Changes {
    let layout = &resolved.layout;
    let (a, b) = (layout.decode(old, level), layout.decode(new, level));
    let mut fields = Vec::new();
    let mut add = |field, old: String, new: String| {
        if old != new {
            fields.push(Change { field, old, new });
        }
    };
    let hex = |v: Option<u64>| v.map_or_else(|| "–".to_string(), |v| format!("{v:#x}"));
    let flag = |v: Option<bool>| match v {
        Some(true) => "1".to_string(),
        Some(false) => "0".to_string(),
        None => "–".to_string(),
    };
    let number = |v: Option<u8>| v.map_or_else(|| "–".to_string(), |v| format!("{v}"));
    add("state", a.state.name().to_string(), b.state.name().to_string());
    add("pfn", hex(a.pfn), hex(b.pfn));
    add("gfn", hex(a.gfn), hex(b.gfn));
    let letters = |d: &Decoded| if d.r.is_some() { permissions(d) } else { "–".to_string() };
    add("permissions", letters(&a), letters(&b));
    add("accessed", flag(a.accessed), flag(b.accessed));
    add("dirty", flag(a.dirty), flag(b.dirty));
    let ad = |d: &Decoded| d.ad_type.map_or("–", AdType::name).to_string();
    add("A/D type", ad(&a), ad(&b));
    add("host-writable", flag(a.host_writable), flag(b.host_writable));
    add("MMU-writable", flag(a.mmu_writable), flag(b.mmu_writable));
    add("access-tracked", flag(a.access_tracked), flag(b.access_tracked));
    add("memory type", number(a.memtype), number(b.memtype));
    add("ignore PAT", flag(a.ignore_pat), flag(b.ignore_pat));
    add("suppress #VE", flag(a.suppress_ve), flag(b.suppress_ve));
    add("encrypted", flag(a.encrypted), flag(b.encrypted));
    add("generation", hex(a.mmio_generation.map(u64::from)), hex(b.mmio_generation.map(u64::from)));
    add("access", number(a.mmio_access), number(b.mmio_access));
    let named: u64 = layout
        .bit_runs(b.state, level)
        .iter()
        .filter(|r| r.kind != FieldKind::Unused)
        .fold(0, |mask, r| mask | r.mask());
    if a.state == b.state && (old ^ new) & !named != 0 {
        add("other bits", format!("{:#x}", old & !named), format!("{:#x}", new & !named));
    }
    let (headline, paths, problem) = path(resolved, &a, &b, tdp);
    Changes { headline, fields, paths, problem }
}

fn path(
    resolved: &Resolved,
    a: &Decoded,
    b: &Decoded,
    tdp: bool,
) -> (String, Vec<&'static str>, Option<&'static str>) {
    let plain = |text: &str, paths: &[&'static str]| (text.to_string(), paths.to_vec(), None);
    if a.raw == b.raw {
        return plain("the same value twice", &["a spurious fault: another vCPU had installed it already"]);
    }
    if b.nonzero_nonpresent && !b.host_entry {
        let problem = "KVM writes no such word: another kernel or paging mode, or corruption";
        return ("becomes neither present nor empty".to_string(), Vec::new(), Some(problem));
    }
    match (a.state, b.state) {
        (State::Nonpresent, State::Present) => plain(
            "mapped",
            &[
                "a guest fault installs a leaf: direct_page_fault → make_spte",
                "a prefetch of neighbours (shadow MMU), KVM_PRE_FAULT_MEMORY",
            ],
        ),
        (State::Nonpresent, State::Table) => {
            plain("a page table is linked", &["a guest fault builds the walk down: make_nonleaf_spte"])
        }
        (State::Nonpresent | State::Present, State::Mmio) => plain(
            "becomes MMIO",
            &["a fault on a frame without memslot: make_mmio_spte (event mark_mmio_spte)"],
        ),
        (State::Mmio, State::Mmio) if a.gfn == b.gfn => plain(
            "the MMIO SPTE is rebuilt",
            &["the memslots changed (new generation) and the frame was touched again: make_mmio_spte"],
        ),
        (State::Mmio, State::Mmio) => (
            "MMIO of another frame".to_string(),
            Vec::new(),
            Some("one entry stands for one guest frame: these are two entries, or two tables"),
        ),
        (State::Mmio, State::Present) => plain(
            "MMIO becomes memory",
            &["a memslot now covers the frame and the guest touched it: make_spte"],
        ),
        (State::Mmio | State::Present | State::Table, State::Nonpresent) => {
            ("zapped".to_string(), zapped(tdp), None)
        }
        (_, State::Removed) => ("frozen".to_string(), frozen(resolved), None),
        (State::Removed, State::Nonpresent) => {
            plain("the zap is finished", &["the TLBs are flushed, the entry may be used again"])
        }
        (State::Removed, _) => {
            plain("unfrozen", &["a TDX mirror update is done, or was undone after a failure"])
        }
        (State::Table, State::Present) => plain(
            "a table becomes one large page",
            &["recovery of huge pages after dirty logging or NX: recover_huge_pages_range"],
        ),
        (State::Present, State::Table) => plain(
            "a large page is split",
            &["dirty logging begins (eager split), or a fault needs 4 KiB (NX huge pages, attributes)"],
        ),
        (State::Table, State::Table) => table(&resolved.layout, a, b, tdp),
        (State::Present, State::Present) => leaf(&resolved.layout, a, b, tdp),
        (State::Nonpresent, State::Nonpresent) => plain("not present before and after", &[]),
        (State::Table, State::Mmio) => {
            ("a table becomes MMIO".to_string(), Vec::new(), Some("KVM zaps before it installs an MMIO SPTE"))
        }
        (State::Mmio, State::Table) => {
            plain("a page table is linked", &["a memslot now covers part of the range"])
        }
    }
}

/// What zaps an entry.
fn zapped(tdp: bool) -> Vec<&'static str> {
    let mut paths = alloc::vec![
        "the host took the page (MMU notifier: reclaim, migration, KSM, munmap …)",
        "a memslot was deleted or moved, or all roots were zapped",
    ];
    if tdp {
        paths
            .push("a root that no vCPU uses any more is freed, as after a guest changed CR0.WP, CR4 or EFER");
    } else {
        paths.push("a write to a shadowed guest page table (shadow MMU)");
    }
    paths.push("recovery of huge pages, NX recovery");
    paths
}

/// What freezes an entry, where the kernel does so.
fn frozen(resolved: &Resolved) -> Vec<&'static str> {
    let mut paths = Vec::new();
    if resolved.traces.freeze {
        paths.push(
            "zapped under the shared lock: tdp_mmu_zap_spte_atomic, the flush comes before the final value (5.12 to 6.9)",
        );
    }
    paths.push("the table it lies in is being removed: handle_removed_pt");
    if resolved.layout.mode == Mode::TdxMirror {
        paths.push("an entry of the mirror while the TDX module is asked");
    }
    paths
}

fn table(
    layout: &Layout,
    a: &Decoded,
    b: &Decoded,
    tdp: bool,
) -> (String, Vec<&'static str>, Option<&'static str>) {
    if a.pfn == b.pfn {
        // Once linked, only the CPU changes a table entry.
        let set = a.raw ^ b.raw == layout.masks.accessed_mask && b.raw & layout.masks.accessed_mask != 0;
        let paths = if set { alloc::vec!["the CPU set Accessed"] } else { Vec::new() };
        ("attributes of a table entry".to_string(), paths, None)
    } else {
        (
            "points to another table".to_string(),
            Vec::new(),
            Some(if tdp {
                "KVM zaps a table entry before it points elsewhere"
            } else {
                "KVM zaps a table entry before it points elsewhere: it was zapped between the two values, or they are of two entries"
            }),
        )
    }
}

fn leaf(
    layout: &Layout,
    a: &Decoded,
    b: &Decoded,
    tdp: bool,
) -> (String, Vec<&'static str>, Option<&'static str>) {
    if a.pfn != b.pfn {
        return (
            "another page".to_string(),
            Vec::new(),
            Some(if tdp {
                "KVM zaps an entry before it maps another page: on this change the TDP MMU calls BUG()"
            } else {
                "KVM zaps an entry before it maps another page: it was zapped between the two values, or they are of two entries"
            }),
        );
    }
    let was = |f: fn(&Decoded) -> Option<bool>| (f(a) == Some(true), f(b) == Some(true));
    let (w, mw) = (was(|d| d.w), was(|d| d.mmu_writable));
    let (accessed, dirty, tracked) = (was(|d| d.accessed), was(|d| d.dirty), was(|d| d.access_tracked));
    let mut paths = Vec::new();
    let mut words = Vec::new();
    if tracked == (false, true) {
        words.push("access tracking begins");
        paths.push("aging on EPT without A/D bits: mark_spte_for_access_track");
    } else if tracked == (true, false) {
        words.push("access tracking ends");
        paths.push("the guest touched the page: fast_page_fault → restore_acc_track_spte");
    }
    match (w, mw) {
        ((true, false), _) if tracked != (false, true) => match write_loss(a, b) {
            Some(WriteLoss::Host) => {
                words.push("read-only in the host");
                paths.push(
                    "the host made its page read-only (copy-on-write after fork, mprotect, KSM): the MMU notifier zapped the entry and a read \
                     mapped the page again, make_spte without host-writable; up to 6.9 change_pte may have set it at once",
                );
            }
            Some(WriteLoss::Tracking) if b.large => {
                words.push("write-protected until it is split, or for good");
                paths.push(
                    "KVM_CLEAR_DIRTY_LOG in initially-all-set mode, so that the next write splits the page; \
                     or a frame in it became a guest page table (or is write-tracked)",
                );
            }
            Some(WriteLoss::Tracking) => {
                words.push("write-protected for good");
                paths.push("the frame became a guest page table (or is write-tracked): spte_write_protect without lockless repair");
            }
            Some(WriteLoss::Logging) => {
                words.push("write-protected");
                paths
                    .push("dirty logging: KVM_GET/CLEAR_DIRTY_LOG write-protects; the fast path can undo it");
            }
            None => words.push("write-protected"),
        },
        ((false, true), (true, true)) => {
            words.push("writable again");
            paths.push("fast_page_fault set W without the MMU lock (event fast_page_fault, no kvm_tdp_mmu_spte_changed)");
        }
        ((false, true), _) => {
            words.push("writable");
            paths.push("a write fault on the slow path: the host gave a writable page, make_spte");
        }
        _ => {}
    }
    if accessed == (true, false) && tracked != (false, true) {
        words.push("Accessed cleared");
        paths.push("aging by the host: kvm_age_gfn (MMU notifier clear_flush_young / clear_young)");
    } else if accessed == (false, true) && tracked != (true, false) {
        words.push("Accessed set");
        paths.push("the CPU set A on an access: no event is traced for that");
    }
    if dirty == (true, false) && w.0 == w.1 {
        words.push("Dirty cleared");
        paths.push("dirty logging with A/D bits (PML): clear_dirty_gfn_range / KVM_CLEAR_DIRTY_LOG");
    } else if dirty == (false, true) && w.0 == w.1 {
        words.push("Dirty set");
        paths.push("the CPU set D on a write: no event is traced for that");
    }
    if a.x == Some(false) && b.x == Some(true) {
        words.push("executable");
        paths.push("an instruction fetch faulted: make_spte");
    } else if a.x == Some(true) && b.x == Some(false) && tracked != (false, true) {
        words.push("no longer executable");
        paths.push("NX huge pages, or the guest's own page table changed (shadow MMU)");
    }
    if (a.memtype, a.ignore_pat) != (b.memtype, b.ignore_pat) {
        words.push("memory type changed");
        paths.push(
            "a device with non-coherent DMA came or went, or the guest's MTRR/PAT view changed (up to 6.11)",
        );
    }
    if words.is_empty() {
        words.push("attributes changed");
    }
    let problem = (layout.is_fixable(b.raw)
        && !layout.is_fixable(a.raw)
        && a.mmu_writable == Some(false)
        && w == (true, true))
        .then_some("MMU-writable appeared on an entry that was writable without it");
    (words.join(", "), paths, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdType, Format, LayoutSpec, Leaf};

    /// `make_spte` sets MMU-writable only where the host allows writes, clears both MMU-writable and Writable in an entry of a frame that must be
    /// tracked, and dirty logging clears Writable alone.
    #[test]
    fn the_bits_cleared_with_writable_show_who_cleared_it() {
        for name in ["B/npt", "B/ept", "C/npt", "C/ept", "D/npt", "D/ept", "E/npt", "E/ept"] {
            let r = LayoutSpec::named(name).and_then(|s| s.resolve()).expect("a layout");
            let l = r.layout;
            let ept = l.format == Format::Ept;
            let leaf = |pfn, w, host_writable, mmu_writable| {
                l.leaf(&Leaf {
                    pfn,
                    r: true,
                    w,
                    x: true,
                    xu: true,
                    u: true,
                    accessed: true,
                    dirty: w,
                    host_writable,
                    mmu_writable,
                    large: false,
                    ad_type: AdType::Enabled,
                    memtype: if ept { 6 } else { 0 },
                    ignore_pat: ept,
                    suppress_ve: true,
                    encrypted: false,
                })
            };
            let old = leaf(0x77, true, true, true);
            for (new, loss, word) in [
                (leaf(0x77, false, false, false), WriteLoss::Host, "fork"),
                (leaf(0x77, false, true, false), WriteLoss::Tracking, "guest page table"),
                (leaf(0x77, false, true, true), WriteLoss::Logging, "dirty logging"),
            ] {
                assert_eq!(write_loss(&l.decode(old, 1), &l.decode(new, 1)), Some(loss), "{name}");
                let c = changes(&r, old, new, 1, true);
                let matching: Vec<_> = c.paths.iter().filter(|p| p.contains(word)).collect();
                assert_eq!(matching.len(), 1, "{name}: {:?}", c.paths);
                assert_eq!(c.paths.len(), 1, "{name}: {:?}", c.paths);
            }
            for new in [old, leaf(0x78, false, true, true)] {
                assert_eq!(write_loss(&l.decode(old, 1), &l.decode(new, 1)), None, "{name}");
            }
        }
    }

    #[test]
    fn what_the_cpu_does_to_a_table_entry_is_to_set_accessed() {
        let r = LayoutSpec::named("C/ept").and_then(|s| s.resolve()).expect("a layout");
        let (clear, set) = (0x2_c583_e807, 0x2_c583_e907);
        assert_eq!(changes(&r, clear, set, 2, true).paths, ["the CPU set Accessed"]);
        for (old, new) in [(set, clear), (set, set & !4), (clear, set & !2)] {
            assert_eq!(changes(&r, old, new, 2, true).paths.len(), 0, "{old:#x} to {new:#x}");
        }
    }

    #[test]
    fn paths_are_those_of_this_kernel_and_mmu() {
        let of = |name: &str| LayoutSpec::named(name).and_then(|s| s.resolve()).expect("a layout");
        let says = |name: &str, new: u64, tdp: bool, word: &str| {
            changes(&of(name), 0x2c583e907, new, 2, tdp).paths.iter().any(|p| p.contains(word))
        };
        let removed = |name: &str| of(name).layout.removed.expect("a removed value");
        assert!(says("C/ept", 0, false, "shadow MMU") && !says("C/ept", 0, true, "shadow MMU"));
        assert!(says("C/ept", 0, true, "root") && !says("C/ept", 0, false, "CR0.WP"));
        assert!(says("C/ept", removed("C/ept"), true, "shared lock"));
        assert!(!says("D/ept", removed("D/ept"), true, "shared lock"));
        assert!(!says("D/ept", removed("D/ept"), true, "TDX"));
        assert!(says("D/tdx-mirror", removed("D/tdx-mirror"), true, "TDX"));
    }
}
