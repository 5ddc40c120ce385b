//! Events of rules that no recording shows, and near misses; and that no rule is without either.

use super::fixtures::{mapped, only, read, repeated, silent, tree};
use super::{RULES, Severity};
use mmuscope_replay::{LayoutOverride, ReplayOptions, replay};
use mmuscope_spte::{HostSpec, Known, LayoutSpec, Provenance};
use mmuscope_testing::fixture;
use mmuscope_trace::snapshot::Slot;

const MAP: &str = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n";

#[test]
fn an_entry_that_stays_frozen() {
    let round = |t: &str| format!("+4000 {t} exit\n+1 {t} fault 5 w\n+1 {t} want 1 5 55\n+1 {t} entry 0\n");
    let frozen = format!("{MAP}+1 t1 entry 0\n+1 t9 tdp 1 5 W55 frozen\n");
    let both = [round("t1"), round("t2")].concat();
    let f = only("stuck-removed", &tree(&format!("{frozen}{}", both.repeat(6))));
    assert_eq!((f.severity, f.gfn), (Severity::Error, Some(5)));
    assert!(f.title.contains("level-1 entry of gfn 0x5 was left removed"), "{}", f.title);
    // One vCPU alone may be at fault itself; and two that lose a race prove nothing.
    silent("stuck-removed", &tree(&format!("{frozen}{}", round("t1").repeat(12))));
    silent("stuck-removed", &tree(&format!("{frozen}{both}")));
    // Somebody released it.
    let released = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W56\n+1 t1 entry 0\n";
    silent("stuck-removed", &tree(&format!("{frozen}{}{released}", both.repeat(6))));
}

#[test]
fn a_loop_that_an_invalidation_explains_is_said_once() {
    let zaps = repeated(4..8, "+1 t9 tdp 1 {x} W5{n} empty\n");
    let begin = format!("{}+1 t9 unmap 7f0000004000 7f0000008000\n{zaps}", mapped());
    let slow = "+1 t1 exit\n+1 t1 fault 5 w\n+10000 t1 entry 0\n".repeat(18);
    only("retry-invalidation", &tree(&format!("{begin}{slow}")));
    silent("fault-loop", &tree(&format!("{begin}{slow}")));
    // Without the invalidation, nothing explains it.
    only("fault-loop", &tree(&format!("{}{slow}", mapped())));
}

#[test]
fn zaps_that_probes_show_are_part_of_what_they_are_for() {
    let clear = "+1 t9 mmu_spte_clear_track_bits (mmu_spte_clear_track_bits+0x0/0x1b0 [kvm]) sptep=0xffff88800cfea000 old_spte=0x32b1825\n";
    let begin =
        "layout C/shadow64\nkernel 6.1.0\nvm 1 t1 t9\n1 t1 entry 0\n+1 t9 unmap 7f0000005000 7f0000007000\n";
    let text = format!("{begin}{clear}{clear}+1 t9 user 0 0\n{clear}+1 t9 user 0 0\n");
    let trace = fixture::trace(&text).unwrap_or_else(|e| panic!("{e}"));
    let causes = super::survey(&trace, &replay(&trace, &ReplayOptions::default())).causes;
    let of: Vec<String> =
        causes.iter().filter(|c| c.kind() == super::CauseKind::Notifier).map(|c| c.text(&trace)).collect();
    // The third comes after the thread went on.
    assert!(matches!(&of[..], [one] if one.contains("2 entries zapped")), "{of:?}");
}

#[test]
fn entries_at_the_wrong_place() {
    // The entry of gfn 5 is the sixth of its table: its address ends in 28.
    let set = |address: &str| tree(&format!("{MAP}+1 t1 set 1 5 W55 at {address}\n+1 t1 entry 0\n"));
    let f = only("invariant-index", &set("13030"));
    assert_eq!((f.severity, f.gfn, f.count), (Severity::Error, Some(5), 1));
    silent("invariant-index", &set("13028"));
}

#[test]
fn entries_of_tables_that_are_gone() {
    let cut = "+1 t1 entry 0\n+1 t9 tdp 2 0 T13 empty\n+1 t9 zappage 1 0\n";
    let late = "+1 t9 tdp 1 6 empty W56\n+1 t1 exit\n+1 t1 entry 0\n";
    let f = only("invariant-dead-table", &tree(&format!("{MAP}{cut}{late}")));
    assert_eq!((f.severity, f.gfn), (Severity::Error, Some(6)));
    // A new table may hold it.
    let again = "+1 t1 exit\n+1 t1 fault 6 w\n+1 t1 page 1 0\n+1 t1 tdp 2 0 empty T15\n+1 t1 tdp 1 6 empty W56\n+1 t1 entry 0\n";
    silent("invariant-dead-table", &tree(&format!("{MAP}{cut}{again}")));
}

#[test]
fn tables_with_two_links() {
    let link = |pfn: &str| {
        tree(&format!(
            "+1 t1 exit\n+1 t1 fault 400 w\n+1 t1 page 1 400\n+1 t1 tdp 2 400 empty T{pfn}\n+1 t1 entry 0\n"
        ))
    };
    let f = only("invariant-shared-table", &link("13"));
    assert_eq!((f.severity, f.gfn), (Severity::Error, Some(0x400)));
    silent("invariant-shared-table", &link("15"));
}

#[test]
fn values_that_the_cpu_refuses() {
    let ids = |width: Option<u8>, value: &str| {
        let text =
            tree(&format!("+1 t1 exit\n+1 t1 fault 6 w\n+1 t1 tdp 1 6 empty {value}\n+1 t1 entry 0\n"));
        let trace = fixture::trace(&text).unwrap_or_else(|e| panic!("{e}"));
        let known = width.map(|value| Known { value, from: Provenance::Given });
        let host = HostSpec { maxphyaddr: known, ..HostSpec::default() };
        let spec = LayoutSpec { host, ..LayoutSpec::default() };
        let options = ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() };
        let all = super::find(&trace, &replay(&trace, &options));
        all.iter().filter(|f| f.id == "invariant-reserved").count()
    };
    // Bit 50 of the address.
    let beyond = "4000000056867";
    assert_eq!(ids(Some(46), beyond), 1);
    assert_eq!(ids(Some(52), beyond), 0, "the CPU has so many bits");
    assert_eq!(ids(None, beyond), 0, "how many bits the CPU has is not known");
    assert_eq!(ids(Some(46), "W56"), 0);
}

#[test]
fn reserved_bits_in_a_leaf() {
    let fault = |after: u64, how: &str| {
        tree(&format!("{MAP}+1 t1 entry 0\n+{after} t1 exit\n+1 t1 fault 5 {how}\n+1 t1 entry 0\n"))
    };
    let f = only("reserved-on-present", &fault(2000, "wp rsvd"));
    assert_eq!((f.severity, f.gfn, f.count), (Severity::Error, Some(5), 1));
    silent("reserved-on-present", &fault(2000, "wp"));
    // The entry may have been an MMIO SPTE when the vCPU read it.
    silent("reserved-on-present", &fault(500, "wp rsvd"));
    // MMIO SPTEs have reserved bits on purpose.
    let mmio = "+1 t1 exit\n+1 t1 fault 6 w\n+1 t1 tdp 1 6 empty M5\n+1 t1 entry 0\n+2000 t1 exit\n+1 t1 fault 6 wp rsvd\n+1 t1 entry 0\n";
    silent("reserved-on-present", &tree(mmio));
}

#[test]
fn slots_that_cannot_be_huge() {
    let map = "+1 t1 exit\n+1 t1 fault {x} w\n+1 t1 tdp 1 {x} empty W5{x}\n+1 t1 entry 0\n";
    let faults = |n: u64| tree(&format!("1000 t1 exit\n+1 t1 entry 0\n{}", repeated(0x10..0x10 + n, map)));
    let slot = |hva| vec![Slot { as_id: 0, id: 3, gfn: 0, pages: 0x400, hva, flags: 0 }];
    let all = read("slot-misaligned", &faults(64), 500, slot(0x7f00_0000_1000), None);
    assert_eq!((all.len(), all[0].count, all[0].severity), (1, 64, Severity::Warning), "{all:#?}");
    assert!(
        all[0].title.starts_with("memory slot 3 (4 MiB at guest address 0x0, host address 0x7f0000001000)"),
        "{}",
        all[0].title
    );
    let mut rom = slot(0x7f00_0000_1000);
    rom[0].flags = 2;
    assert_eq!(read("slot-misaligned", &faults(64), 500, rom, None)[0].severity, Severity::Info);
    assert_eq!(read("slot-misaligned", &faults(64), 500, slot(0x7f00_0020_0000), None), []);
    assert_eq!(read("slot-misaligned", &faults(63), 500, slot(0x7f00_0000_1000), None), []);
}

/// Loops on many pages that all ended are one finding; one that goes on to the end of the trace is not among them.
#[test]
fn loops_on_many_pages_are_one_finding() {
    let on = |x: u64| {
        let tries =
            "+1 t1 exit\n+1 t1 fault {x} w\n+10000 t1 entry 0\n".replace("{x}", &format!("{x:x}")).repeat(18);
        format!(
            "{tries}+1 t1 exit\n+1 t1 fault {x:x} w\n+1 t1 tdp 1 {x:x} empty W5{x:x}\n+1 t1 entry 0\n+1 t1 exit 78\n+1 t1 entry 0\n"
        )
    };
    let pages = |n: u64| (0x20..0x20 + n).map(on).collect::<String>();
    let f = only("fault-loop", &tree(&pages(4)));
    assert_eq!((f.count, f.gfn), (72, None));
    assert!(
        f.title.contains("on gfn 0x20 again") && f.title.contains("3 more pages with 54 faults"),
        "{}",
        f.title
    );
    let three = super::fixtures::findings(&tree(&pages(3)));
    assert_eq!(three.iter().filter(|f| f.id == "fault-loop").count(), 3);
    let last = "+1 t1 exit\n+1 t1 fault 40 w\n+10000 t1 entry 0\n".repeat(18);
    let both = super::fixtures::findings(&tree(&format!("{}{last}", pages(4))));
    let titles: Vec<&str> = both.iter().filter(|f| f.id == "fault-loop").map(|f| f.title.as_str()).collect();
    assert!(
        titles.len() == 2 && titles.iter().any(|t| t.contains("gfn 0x40") && t.contains("up to the end")),
        "{titles:?}"
    );
}

const RETRY: &str = "+1 t1 exit\n+1 t1 fault 5 w\n+2 t1 entry 0\n";
const GOES_ON: &str = "+1 t9 kvm_pml_full vcpu 0: PML full\n";

/// KVM forgets which frames are invalidated when no invalidation is open, not when one of several ends.
#[test]
fn retries_after_an_invalidation_that_another_one_keeps() {
    let own =
        "+1 t1 exit\n+1 t1 fault 5 wp\n+1 t1 unmap 7f0000005000 7f0000006000\n+1 t1 tdp 1 5 W55 empty\n";
    let other = "+1 t9 unmap 7f0000007000 7f0000008000\n+1 t9 tdp 1 7 W57 empty\n";
    let back = "+1 t1 entry 0\n";
    let tries = RETRY.repeat(8);
    let f = only("retry-invalidation", &tree(&format!("{}{own}{other}{back}{tries}{GOES_ON}", mapped())));
    assert!(f.title.contains("as task-9 was invalidating hva 0x7f0000007000"), "{}", f.title);
    assert!(f.title.contains("no invalidation was open"), "{}", f.title);
    // The first was over when the other began.
    silent("retry-invalidation", &tree(&format!("{}{own}{back}{other}{tries}{GOES_ON}", mapped())));
}

#[test]
fn retries_where_a_snapshot_shows_the_slot() {
    let events = "vm 1 t1 t2 t9\nfact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,kvm:kvm_unmap_hva_range,kvmmmu:kvm_tdp_mmu_spte_changed,kvmmmu:kvm_mmu_get_page,probe:__kvm_set_memory_region\n";
    let text = tree(&format!("1000 t9 unmap 7f0000004000 7f0000008000\n{}{GOES_ON}", RETRY.repeat(8)))
        .replace("vm 1 t1 t2 t9\n", events);
    let slot = |hva| vec![Slot { as_id: 0, id: 0, gfn: 0, pages: 0x400, hva, flags: 0 }];
    let all = read("retry-invalidation", &text, 500, slot(0x7f00_0000_0000), None);
    assert_eq!((all.len(), all[0].count), (1, 8), "{all:#?}");
    assert_eq!(read("retry-invalidation", &text, 500, slot(0x7f00_1000_0000), None), []);
}

#[test]
fn pages_that_the_host_gives_late() {
    let fault = |us: &str| {
        format!(
            "+1 t1 exit\n+1 t1 fault {{x}} w\n+{us} t1 want 1 {{x}} 5{{n}}\n+1 t1 tdp 1 {{x}} empty W5{{n}}\n+1 t1 entry 0\n"
        )
    };
    let slow = |n: u64| repeated(0x10..0x10 + n, &fault("10000"));
    let f = only("host-page-slow", &tree(&slow(8)));
    assert_eq!((f.count, f.severity, f.cost), (8, Severity::Warning, Some(8 * 10_003_000)));
    assert!(f.title.starts_with("8 faults of vCPU 0 on gfn 0x10–0x17 waited 10 ms or longer"), "{}", f.title);
    silent("host-page-slow", &tree(&slow(7)));
    silent("host-page-slow", &tree(&repeated(0x10..0x18, &fault("4990"))));
    // Faults that map nothing take most of the time.
    let other = "+1 t1 exit\n+1 t1 fault 1ff w\n+900000 t1 entry 0\n";
    silent("host-page-slow", &tree(&format!("{}{other}", slow(8))));
    // A thread that waits after it had the page has no CPU.
    let no_cpu = slow(8).replace("+1 t1 tdp", "+10000 t1 tdp").replace("+10000 t1 want", "+1 t1 want");
    silent("host-page-slow", &tree(&no_cpu));
    silent(
        "host-page-slow",
        &tree(&format!("{}{}", slow(8), no_cpu.replace(" 1 1", " 1 2").replace("fault 1", "fault 2"))),
    );
    // One alone that takes a second.
    only("host-page-slow", &tree(&repeated(0x10..0x11, &fault("1000000"))));
    // How long it took is not known where entries into the guest were not recorded.
    silent("host-page-slow", &tree(&slow(8)).replace("t1 entry 0", "t9 age 7f0000005000 7f0000006000"));
}

/// Lines of the text of tracefs of one vCPU.
fn fault_and(address: &str, rest: &str) -> String {
    format!("layout C/ept\nkernel 6.1.0\nvm 1 t1\n1 t1 entry 0\n+1 t1 exit\n+1 t1 fault {address} r\n{rest}")
}

#[test]
fn faults_that_end_well_are_no_errors() {
    // The VMM handled the exit that a fault ended in; no error came back.
    let to_vmm =
        |errno: i32, reason: u32| fault_and("5", &format!("+1 t1 user {reason} {errno}\n+1 t1 entry 0\n"));
    assert_eq!(only("fault-error", &to_vmm(-14, 0)).severity, Severity::Error);
    silent("fault-error", &to_vmm(0, 6));
    assert_eq!(only("internal-error", &to_vmm(0, 17)).severity, Severity::Error);
    silent("internal-error", &to_vmm(0, 6));
    // SVM's shutdown, and a halt.
    let exit =
        |reason: &str| format!("layout C/npt\nkernel 6.1.0\nvm 1 t1\n1 t1 entry 0\n+1 t1 exit {reason}\n");
    only("triple-fault", &exit("7f"));
    silent("triple-fault", &exit("78"));
    // 48 bits are what four levels translate.
    only("beyond-tables", &fault_and("1000000000", ""));
    silent("beyond-tables", &fault_and("fffffffff", ""));
    // One nested page fault is enough to show that the guest does not run on shadow page tables.
    let shadow = "layout C/shadow64\nkernel 6.1.0\nvm 1 t1\n1 t1 entry 0\n+1 t1 exit\n+1 t1 gfault 66000 w\n+1 t1 entry 0\n";
    only("pf-intercepts", shadow);
    silent("pf-intercepts", &fault_and("5", "+1 t1 entry 0\n"));
}

/// Rules whose fixtures are texts of tracefs, each beside its near miss in `tests.rs`, or in `memory_that_differs`.
const ELSEWHERE: [&str; 4] = ["fault-loop", "request-loop", "notifier-storm", "snapshot-differs"];

/// A rule without a fixture may never fire, and one without a near miss may fire on anything.
#[test]
fn every_rule_has_a_fixture_and_a_near_miss() {
    let text = [include_str!("fixtures.rs"), include_str!("tests.rs"), include_str!("rare.rs")].concat();
    let has = |call: &str, id: &str| text.contains(&format!("{call}(\"{id}\""));
    let all = |id: &str| {
        // Fixtures in a table have what fires and what does not beside the id; `read` and `count` give all findings of a rule.
        let table = text.contains(&format!("(\"{id}\", \""));
        let both =
            has("only", id) && has("silent", id) || text.matches(&format!("read(\"{id}\"")).count() > 1;
        table || both || text.contains(&format!("f.id == \"{id}\").count()")) || ELSEWHERE.contains(&id)
    };
    let without: Vec<&str> = RULES.iter().map(|r| r.id).filter(|id| !all(id)).collect();
    assert!(without.is_empty(), "without a fixture that fires, or without a near miss: {without:?}");
}
