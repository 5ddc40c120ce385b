use super::*;
use mmuscope_replay::{ReplayOptions, replay};
use std::fmt::Write as _;

fn exit(vcpu: u32, reason: &str) -> String {
    format!(
        "kvm_exit: vcpu {vcpu} reason {reason} rip 0x1000 info1 0x0000000000000181 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
    )
}

/// Lines of the text of tracefs: microseconds, thread, event.
fn text(lines: &[(u64, u32, &str)]) -> String {
    let mut out = String::new();
    for (us, tid, event) in lines {
        writeln!(out, "vmm-{tid}  [001] ..... 5.{us:06}: {event}").expect("a string");
    }
    out
}

fn stat(text: &str, q: &Query) -> Stat {
    let trace = Trace::from_text(text).expect("a trace");
    Stat::new(&trace, &replay(&trace, &ReplayOptions::default()), q)
}

/// Name, count, and sum of the times in microseconds.
fn rows(stat: &Stat, whose: Whose, kind: Kind) -> Vec<(String, u64, u64)> {
    let mut rows: Vec<_> =
        stat.of(whose, kind).iter().map(|r| (r.name.to_string(), r.count, r.times.total / 1000)).collect();
    rows.sort();
    rows
}

const VM: Whose = Whose { vm: Some(0), vcpu: None, tid: None };
const FAULT: &str = "kvm_page_fault: vcpu 0 rip 0x1000 address 0x0000000abc000 error_code 0x181";

/// vCPU 0: 10 µs in the guest, a fault of 20, 10 in the guest, halted for 50, 10 in the guest, 4 in KVM and 16 in the VMM for port I/O.
fn vcpu0() -> Vec<(u64, u32, String)> {
    [
        (0, "kvm_entry: vcpu 0, rip 0x1000".to_owned()),
        (10, exit(0, "EPT_VIOLATION")),
        (11, FAULT.to_owned()),
        (12, "kvm_mmu_set_spte: gfn abc spte 6000001f4db77 (rwx-) level 1 at 55fe800".to_owned()),
        (30, "kvm_entry: vcpu 0, rip 0x1000".to_owned()),
        (40, exit(0, "HLT")),
        (90, "kvm_entry: vcpu 0, rip 0x1001".to_owned()),
        (100, exit(0, "IO_INSTRUCTION")),
        (104, "kvm_userspace_exit: reason KVM_EXIT_IO (2)".to_owned()),
        (120, "kvm_entry: vcpu 0, rip 0x1003".to_owned()),
    ]
    .into_iter()
    .map(|(us, e)| (us, 7, e))
    .collect()
}

fn of(lines: &[(u64, u32, String)]) -> String {
    let lines: Vec<(u64, u32, &str)> = lines.iter().map(|l| (l.0, l.1, l.2.as_str())).collect();
    text(&lines)
}

fn three(name: &str, count: u64, us: u64) -> (String, u64, u64) {
    (name.to_owned(), count, us)
}

#[test]
fn time_is_the_guests_the_mmus_kvms_or_the_vmms() {
    let s = stat(&of(&vcpu0()), &Query::default());
    let want = [
        three("fault", 1, 20),
        three("guest", 3, 30),
        three("halt", 1, 50),
        three("kvm", 1, 4),
        three("vmm", 1, 16),
    ];
    assert_eq!(rows(&s, VM, Kind::Time), want);
    // An exit lasts to the next entry, the VMM's time included.
    let want = [three("EPT_VIOLATION", 1, 20), three("HLT", 1, 50), three("IO_INSTRUCTION", 1, 20)];
    assert_eq!(rows(&s, VM, Kind::Exit), want);
    let vmm: Vec<_> = s.of(VM, Kind::Exit).iter().map(|r| (r.name.as_ref(), r.vmm)).collect();
    assert_eq!(vmm, [("HLT", Some(0)), ("EPT_VIOLATION", Some(0)), ("IO_INSTRUCTION", Some(16_000))]);
    assert_eq!(rows(&s, VM, Kind::Vmm), [three("IO", 1, 16)]);
    assert_eq!(rows(&s, VM, Kind::Fault), [three("fixed", 1, 20)]);
    assert_eq!(rows(&s, VM, Kind::Install), [three("4K", 1, 20)]);
    let reasons: Vec<_> = s.of(VM, Kind::Exit).iter().map(|r| r.reason).collect();
    assert_eq!(reasons, [12, 48, 30].map(|n| Some((n, Some(Isa::Vmx)))));
    assert_eq!(s.stays, []);
}

#[test]
fn a_window_cuts_time_and_counts_what_begins_in_it() {
    // From the middle of the fault to the middle of the halt, in nanoseconds of the trace's clock.
    let q = Query { from: Some(5_000_020_000), to: Some(5_000_065_000), ..Query::default() };
    let s = stat(&of(&vcpu0()), &q);
    assert_eq!(
        rows(&s, VM, Kind::Time),
        [three("fault", 1, 10), three("guest", 1, 10), three("halt", 1, 25)],
        "the window is 45 µs"
    );
    assert_eq!(rows(&s, VM, Kind::Exit), [three("HLT", 1, 50)]);
    assert_eq!(rows(&s, VM, Kind::Fault), []);
}

#[test]
fn each_vcpu_on_its_own() {
    let mut lines = vcpu0();
    lines.push((130, 8, "kvm_entry: vcpu 1, rip 0x1000".to_owned()));
    lines.push((137, 8, exit(1, "CPUID")));
    lines.push((139, 8, "kvm_entry: vcpu 1, rip 0x1002".to_owned()));
    let s = stat(&of(&lines), &Query { by_vcpu: true, ..Query::default() });
    let vcpu = |n| Whose { vcpu: Some(n), ..VM };
    assert_eq!(s.whose(), [vcpu(0), vcpu(1)]);
    assert_eq!(rows(&s, vcpu(1), Kind::Time), [three("guest", 1, 7), three("kvm", 1, 2)]);
    let only = stat(&of(&lines), &Query { vcpu: Some(1), ..Query::default() });
    assert_eq!(rows(&only, VM, Kind::Exit), [three("CPUID", 1, 2)]);
}

#[test]
fn time_across_a_loss_is_not_known() {
    let mut lines = vcpu0();
    lines.push((125, 7, exit(0, "CPUID")));
    let lost = "CPU:1 [LOST 5 EVENTS]\n";
    let late = text(&[(175, 7, "kvm_entry: vcpu 0, rip 0x1005")]);
    let s = stat(&format!("{}{lost}{late}", of(&lines)), &Query::default());
    let time = rows(&s, VM, Kind::Time);
    assert!(time.contains(&three("unknown", 1, 50)), "{time:?}");
    let cpuid = s.of(VM, Kind::Exit).iter().find(|r| r.name == "CPUID").expect("the exit is counted");
    assert_eq!((cpuid.count, cpuid.times.measured, cpuid.times.max), (1, 0, None));
}

#[test]
fn what_was_not_recorded_is_not_zero() {
    // No return to the VMM, no entry.
    let without = |word: &str| -> String {
        of(&vcpu0().into_iter().filter(|l| !l.2.starts_with(word)).collect::<Vec<_>>())
    };
    let s = stat(&without("kvm_userspace_exit"), &Query::default());
    assert!(s.of(VM, Kind::Exit).iter().all(|r| r.vmm.is_none()));
    assert_eq!(s.of(VM, Kind::Vmm), []);
    assert!(s.missing.iter().any(|m| m.starts_with("kvm_userspace_exit is not known")), "{:?}", s.missing);
    let s = stat(&without("kvm_entry"), &Query::default());
    assert_eq!(s.of(VM, Kind::Time), []);
    assert!(s.of(VM, Kind::Exit).iter().all(|r| r.count == 1 && r.times.measured == 0));
    assert!(s.of(VM, Kind::Fault).iter().all(|r| r.times.measured == 0));
    assert!(s.missing.iter().any(|m| m.starts_with("kvm_entry is not known")), "{:?}", s.missing);
}

#[test]
fn a_vcpu_that_does_not_come_back_is_named() {
    let mut lines = vcpu0();
    lines.push((121, 7, exit(0, "EPT_VIOLATION")));
    // Another thread goes on for longer than any exit took.
    lines.push((200, 8, "kvm_entry: vcpu 1, rip 0x1000".to_owned()));
    let s = stat(&of(&lines), &Query::default());
    let stays: Vec<_> = s.stays.iter().map(|s| (s.reason.as_ref(), s.since)).collect();
    assert_eq!(stays, [("EPT_VIOLATION", 5_000_121_000)]);
    // 40 µs are no longer than the halt was.
    lines.last_mut().expect("a line").0 = 161;
    assert_eq!(stat(&of(&lines), &Query::default()).stays, []);
}

#[test]
fn a_reason_without_a_name_is_a_number() {
    let lines = [
        (0, 7, "kvm_entry: vcpu 0, rip 0x1000".to_owned()),
        (1, 7, exit(0, "0x80000021")),
        (2, 7, "kvm_entry: vcpu 0, rip 0x1000".to_owned()),
        (3, 7, exit(0, "0x53")),
    ];
    let s = stat(&of(&lines), &Query::default());
    // Without a name, nothing says which back-end's number it is.
    assert_eq!(rows(&s, VM, Kind::Exit), [three("reason 0x53", 1, 0), three("reason 0x80000021", 1, 1)]);
}
