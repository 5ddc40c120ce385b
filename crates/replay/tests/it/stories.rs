//! What is said of causes and ends. The expectations are what the kernel's paths can and cannot do.

use crate::made::run;
use crate::replayed::load;
use std::path::Path;

use mmuscope_replay::{MmuKind, Outcome, PageStory, Timeline, VmId};
use mmuscope_trace::Trace;

fn story(text: &str, gfn: u64) -> PageStory {
    let (trace, t) = run(text);
    t.page_story(&trace, VmId(0), 0, gfn)
}

/// The one line of a story that holds a word.
fn line(s: &PageStory, word: &str) -> String {
    let found: Vec<&str> = s.lines.iter().map(|l| l.text.as_str()).filter(|t| t.contains(word)).collect();
    assert_eq!(found.len(), 1, "one line with {word:?} in {:#?}", s.lines);
    found[0].to_owned()
}

/// Root, and tables 0x10 (level 3), 0x11 (level 2) and 0x12 (level 1) for frame 0.
const TREE: &str = "
    100 t1 root
    +1  t1 page 3 0
    +1  t1 tdp 4 0 empty T10
    +1  t1 page 2 0
    +1  t1 tdp 3 0 empty T11
    +1  t1 page 1 0
    +1  t1 tdp 2 0 empty T12
    +1  t1 tdp 1 2 empty W77
";

/// Frame 2 and everything above it goes, as `tdp_mmu_zap_root` of 6.1 shows it, by thread 9.
const ROOT_ZAPPED: &str = "
    +1 t9 tdp 4 0 T10 empty
    +1 t9 zappage 3 0
    +1 t9 tdp 3 0 T11 frozen
    +1 t9 zappage 2 0
    +1 t9 tdp 2 0 T12 frozen
    +1 t9 zappage 1 0
    +1 t9 tdp 1 2 W77 frozen
";

#[test]
fn all_roots_gone_and_nothing_built_again_is_the_end_of_a_vm() {
    // The kernel's own thread is merely the last to let go: what it does then is no recovery of huge pages.
    for name in ["qemu", "kvm-nx-lpage-re"] {
        let text = format!("name t9 {name}\n{TREE}+1 t1 entry 0\n+1 t1 exit\n+1 t1 user 0 -4\n{ROOT_ZAPPED}");
        let (trace, t) = run(&text);
        let end = t.vms()[0].ended.clone().expect("an end");
        assert_eq!((end.tid, end.comm.as_str()), (9, name));
        assert_eq!(end.by_nx_recovery(), name != "qemu");
        assert!(end.by().contains("the last"), "{}", end.by());
        let s = t.page_story(&trace, VmId(0), 0, 2);
        assert!(s.headline.ends_with("not mapped: the VM was torn down"), "{}", s.headline);
        for word in ["unlinked", "4K entry zapped"] {
            let text = line(&s, word);
            assert!(text.contains("as the VM is torn down"), "{text}");
            assert!(!text.contains("huge page"), "{text}");
        }
    }
}

#[test]
fn zaps_that_a_vm_outlives_are_not_its_end() {
    let end = |text: String| run(&text).1.vms()[0].ended.clone();
    let gone = format!("{TREE}{ROOT_ZAPPED}");
    assert!(end(gone.clone()).is_some());
    assert_eq!(end(format!("{gone}+1 t1 root")), None, "a root is made again");
    assert_eq!(end(format!("{gone}+1 t1 entry 0")), None, "the guest runs again");
    assert_eq!(
        end(format!("{gone}+1 t9 unmap 7f0000000000 7f0000001000")),
        None,
        "the host's memory is still KVM's"
    );
    // A memslot goes: all roots become obsolete.
    assert_eq!(end(format!("{TREE}+1 t9 zapall\n{ROOT_ZAPPED}")), None);
    // A vCPU frees a root on its way back into the guest, where the trace ends.
    let own = ROOT_ZAPPED.replace("t9", "t1");
    assert_eq!(end(format!("{TREE}+1 t1 user 0 0\n+1 t1 entry 0\n+1 t1 exit\n{own}")), None);
    // Nor is that its end where returns to user space are not traced, unless the vCPU stays away.
    let inside = format!("{TREE}+1 t1 entry 0\n+1 t1 exit\n{own}");
    assert_eq!(end(inside.clone()), None);
    assert_eq!(end(format!("{inside}+5000 t9 mark later")), None, "it may have been preempted");
    assert!(end(format!("{inside}+500000 t9 mark later")).is_some());
    // Only leaves go, as for a notifier.
    assert_eq!(end(format!("{TREE}+1 t9 tdp 1 2 W77 empty")), None);
    // What was built meanwhile is not in the trace.
    assert_eq!(end(format!("{gone}+1 t1 lost 5")), None);
}

#[test]
fn two_vms_end_each_for_itself() {
    let tree =
        |t: &str, n: &str| TREE.replace("100 t1", "+1 t1").replace("t1", t).replace(" T1", &format!(" T{n}"));
    let (_, t) = run(&format!(
        "vm 10 t1 t8\nvm 20 t5 t9\n1 t1 mark go{}{}+1 t5 entry 0\n+1 t1 entry 0\n{}+1 t1 exit",
        tree("t1", "2"),
        tree("t5", "3"),
        ROOT_ZAPPED.replace(" T1", " T3")
    ));
    let ends: Vec<_> = t.vms().iter().map(|v| v.ended.as_ref().map(|e| e.tid)).collect();
    assert_eq!(ends, [None, Some(9)]);
}

/// No entries into the guest and no returns to user space are recorded: what an event says of the fault before it is all there is.
fn after_fault(events: &str) -> String {
    format!("{TREE}+1 t1 fault 2 wp\n{events}")
}

#[test]
fn a_fault_ends_before_what_no_fault_can_do() {
    let zap = "+1 t1 tdp 1 2 W77 empty";
    // Copy-on-write invalidates the one page of the fault.
    let own = story(&after_fault(&format!("+1 t1 unmap 7f0000002000 7f0000003000\n{zap}")), 2);
    assert!(
        line(&own, "zapped").contains("invalidates 4K at hva 0x7f0000002000 in this fault (copy-on-write)")
    );
    // A write-fault on another page may reclaim this one; that is not its copy-on-write.
    let other = "+1 t1 tdp 1 3 empty W78\n+1 t1 fault 3 wp\n+1 t1 unmap 7f0000002000 7f0000003000\n+1 t1 tdp 1 2 W77 empty";
    let other = story(&format!("{TREE}{other}"), 2);
    assert!(line(&other, "4K entry zapped").contains("during the fault on 0x3"), "{:#?}", other.lines);
    // 16M at once are fork, madvise or munmap.
    let fork = after_fault(&format!("+1 t1 unmap 7f0000000000 7f0001000000\n{zap}"));
    let text = line(&story(&fork, 2), "zapped");
    assert!(text.contains("invalidates 16M") && !text.contains("fault"), "{text}");
    // Neither has the fault a known end then.
    let f =
        run(&format!("{fork}\n+5 t1 unmap 7f0000000000 7f0000001000")).1.faults().next().expect("a fault");
    assert_eq!((f.outcome, f.end_ts), (Outcome::Retry, None));
}

#[test]
fn open_faults_end_at_ioctls_and_markers() {
    let outcome = |events: &str| {
        let (_, t) = run(&after_fault(events));
        let f = t.faults().next().expect("a fault");
        (f.outcome, f.end_ts)
    };
    assert_eq!(outcome("").0, Outcome::Unfinished);
    assert_eq!(outcome("+1 t1 tdp 1 2 W77 R77").0, Outcome::Retry, "the dirty log is read");
    assert_eq!(outcome("+1 t1 mark next").0, Outcome::Retry);
    assert_eq!(outcome("+1 t1 zapall").0, Outcome::Retry);
    assert_eq!(outcome("+1 t1 split 2 200 W200").0, Outcome::Retry, "huge pages are split for dirty logging");
    assert_eq!(
        outcome("+1 t1 tdp 1 2 W77 W77-a").0,
        Outcome::Unfinished,
        "reclaim in the fault may age pages"
    );
    // A zap of something else, for no notifier.
    let mut e = outcome("+1 t1 tdp 2 400 W400 empty");
    assert_eq!(e.0, Outcome::Unfinished, "in the table the fault walks through");
    e = outcome("+1 t1 tdp 1 400 W400 empty");
    assert_eq!(e, (Outcome::Retry, None));
    // Where entries are recorded the fault still ends at the next one.
    let (_, t) = run(&format!(
        "{TREE}+1 t1 entry 0\n+1 t1 exit\n+1 t1 fault 2 wp\n+1 t1 tdp 1 400 W400 empty\n+1 t1 entry 0"
    ));
    assert!(t.faults().next().is_some_and(|f| f.end_ts.is_some()));
}

#[test]
fn no_fault_is_the_cause_of_what_it_cannot_zap() {
    // The thread's last fault is open, and then it tears the VM down.
    let text = after_fault(&ROOT_ZAPPED.replace("t9", "t1"));
    let s = story(&text.replace("fault 2 wp", "fault 5400 w"), 2);
    assert!(s.lines.iter().all(|l| !l.text.contains("by the fault")), "{:#?}", s.lines);
}

#[test]
fn which_bit_fell_tells_who_took_the_right_to_write() {
    let lost = |value: &str| {
        let s = story(&format!("{TREE}+1 t9 tdp 1 2 W77 {value}"), 2);
        (s.headline.contains("write-protected once"), line(&s, "after"))
    };
    let (counted, text) = lost("R77");
    assert!(counted && text.contains("write-protected to log writes"), "{text}");
    let (counted, text) = lost("R77-m");
    assert!(counted && text.contains("as a page table of the guest"), "{text}");
    let (counted, text) = lost("O77");
    assert!(!counted && text.contains("made read-only by the host"), "{text}");
}

#[test]
fn a_huge_page_loses_both_bits_for_dirty_logging_too() {
    // kvm_mmu_slot_gfn_write_protect, which KVM_CLEAR_DIRTY_LOG calls for huge pages in initially-all-set mode.
    let s = story(&format!("{TREE}+1 t1 tdp 2 200 empty W400\n+1 t9 tdp 2 200 W400 R400-m"), 0x201);
    assert!(line(&s, "write-protected until").contains("KVM_CLEAR_DIRTY_LOG"), "{:#?}", s.lines);
}

#[test]
fn a_fault_of_a_nested_guest_is_not_on_a_frame_of_this_vm() {
    // KVM walks the tables that the hypervisor within made, at the very address and as user, and hands the fault on.
    let (trace, t) = run(&format!(
        "{TREE}+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 walk 2000 6\n+1 t1 walkererror\n+1 t1 entry 0"
    ));
    let f = t.faults().next().expect("a fault");
    assert_eq!((f.outcome, f.gfn, f.gpa), (Outcome::Guest, None, None));
    assert!(t.page_story(&trace, VmId(0), 0, 2).faults.is_empty());
    // Where it maps something, events name this VM's own frame.
    let (_, t) = run(&format!(
        "{TREE}+1 t1 exit\n+1 t1 fault 9 w\n+1 t1 walk 9000 6\n+1 t1 want 1 2 77\n+1 t1 entry 0"
    ));
    assert_eq!(t.faults().next().and_then(|f| f.gfn), Some(2));
    // The emulator walks as the guest's kernel, also where its addresses are its frames'.
    let (_, t) = run(&format!("{TREE}+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 walk 2000 2\n+1 t1 entry 0"));
    assert_eq!(t.faults().next().and_then(|f| f.gfn), Some(2));
}

/// Shadow paging of 6.1: pages 0x10 (level 2) and 0x12 (level 1), and frame 2 mapped writable. Ranges of notifiers are traced.
const SHADOW: &str = "
    layout C/shadow64
    kernel 6.1.0
    100 t9 unmap 7f0000900000 7f0000901000
    +2000001 t9 mark go
    +1 t1 exit
    +1 t1 gfault 2000 w
    +1 t1 want 1 2 77
    +1 t1 shadow 1 5
    +1 t1 set 1 2 W77 at 12010
    +1 t1 entry 0
";

#[test]
fn a_value_set_again_says_what_had_happened_to_it() {
    let again = |access: &str| {
        story(
            &format!(
                "{SHADOW}+5 t1 exit\n+1 t1 gfault 2000 {access}\n+1 t1 want 1 2 77\n+1 t1 set 1 2 W77 at 12010\n+1 t1 entry 0"
            ),
            2,
        )
    };
    let s = again("wp");
    let text = line(&s, "made writable again");
    assert!(text.contains("it had been write-protected since, which this MMU does not trace"), "{text}");
    assert!(s.headline.contains("write-protected once, made writable again once"), "{}", s.headline);
    let s = again("w");
    assert!(line(&s, "mapped anew").contains("it had been zapped since"), "{:#?}", s.lines);
    // Filled beside another page.
    let s = story(
        &format!(
            "{SHADOW}+5 t1 exit\n+1 t1 gfault 3000 w\n+1 t1 want 1 3 78\n+1 t1 set 1 3 W78 at 12018\n+1 t1 set 1 2 W77-a at 12010\n+1 t1 entry 0"
        ),
        2,
    );
    assert!(line(&s, "mapped anew").contains("it had been zapped since"), "{:#?}", s.lines);
    // fork made the host's page read-only; a read found nothing and mapped it so.
    let s = story(
        &format!(
            "{SHADOW}+5 t1 exit\n+1 t1 gfault 2000 r\n+1 t1 want 1 2 77\n+1 t1 set 1 2 O77 at 12010\n+1 t1 entry 0"
        ),
        2,
    );
    assert!(line(&s, "mapped anew").contains("the host made its page read-only"), "{:#?}", s.lines);
    assert!(!s.headline.contains("write-protected"), "{}", s.headline);
    assert!(s.lines.iter().all(|l| !l.text.contains("confirmed")));
}

#[test]
fn pages_that_shadow_different_tables_are_told_apart() {
    let s = story(
        &format!(
            "{SHADOW}+5 t1 exit\n+1 t1 gfault 7f000 r\n+1 t1 want 1 2 77\n+1 t1 shadow 1 6\n+1 t1 set 1 2 R77 at 13010\n+1 t1 entry 0\n+9 t1 exit"
        ),
        2,
    );
    assert!(line(&s, "mapped writable").contains("at 0x12000 of the guest's table 0x5"), "{:#?}", s.lines);
    assert!(line(&s, "mapped read-only").contains("at 0x13000 of the guest's table 0x6"), "{:#?}", s.lines);
    assert!(
        s.notes.iter().any(|n| n.contains("several page tables map this frame at once")),
        "{:#?}",
        s.notes
    );
    assert!(shares(&s) <= 100.0, "{:#?}", s.notes);
}

/// What the notes of a story say that states last, in percent of the trace, summed.
fn shares(s: &PageStory) -> f64 {
    let share = |n: &String| n.strip_suffix(" % of the trace")?.rsplit(' ').next()?.parse::<f64>().ok();
    s.notes.iter().filter_map(share).sum()
}

/// Tables 0x10 and 0x11 above, and 0x20 for the 2 MiB at frame 0x200, with frame 0x201 mapped.
fn second_table(then: &str) -> String {
    format!(
        "{TREE}+1 t1 page 1 200\n+1 t1 tdp 2 200 empty T20\n+1 t1 tdp 1 201 empty W401\n+1 t1 entry 0\n+1 t1 user 0 0\n{then}"
    )
}

#[test]
fn a_table_given_up_when_dirty_logging_ends_is_told_so() {
    let collapse = "
        +50000 t9 tdp 2 200 T20 frozen
        +1 t9 zappage 1 200
        +1 t9 tdp 1 201 W401 frozen";
    let s = story(&second_table(collapse), 0x201);
    // The leaf goes for the same reason as its table.
    for word in ["unlinked", "4K entry zapped"] {
        assert!(line(&s, word).contains("dirty logging ended for its memslot"), "{:#?}", s.lines);
    }
    // From 7.2 on the link is shown to be cut after the entries.
    let late = "
        layout E/npt
        +50000 t9 zappage 1 200
        +1 t9 tdp 1 201 W401 frozen
        +1 t9 tdp 2 200 T20 empty";
    let s = story(&format!("layout E/npt\n{}", second_table(late)), 0x201);
    for word in ["unlinked", "4K entry zapped"] {
        assert!(line(&s, word).contains("dirty logging ended for its memslot"), "{:#?}", s.lines);
    }
    // Of 1 GiB the tables below go too.
    let s = story(
        &second_table(
            "+50000 t9 tdp 3 0 T11 frozen\n+1 t9 zappage 2 0\n+1 t9 tdp 2 200 T20 frozen\n+1 t9 zappage 1 200\n+1 t9 tdp 1 201 W401 frozen",
        ),
        0x201,
    );
    for word in ["unlinked", "4K entry zapped"] {
        assert!(line(&s, word).contains("dirty logging ended for its memslot"), "{:#?}", s.lines);
    }
    // From 6.13 on the huge page is put in its place at once.
    let s = story(&second_table("+50000 t9 tdp 2 200 T20 W400"), 0x201);
    assert!(
        line(&s, "in place of its table").contains("dirty logging ended for its memslot"),
        "{:#?}",
        s.lines
    );
    // A fault that maps the huge page is no end of dirty logging.
    let fault =
        "+9 t1 exit\n+1 t1 fault 201 w\n+1 t1 want 2 201 401\n+1 t1 tdp 2 200 T20 W400\n+1 t1 entry 0";
    let s = story(&second_table(fault), 0x201);
    assert!(!line(&s, "in place of its table").contains("dirty logging"), "{:#?}", s.lines);
    // Nor is what recovers huge pages from the NX mitigation, or a memslot that goes.
    let s = story(&format!("name t9 kvm-nx-lpage-re\n{}", second_table(collapse)), 0x201);
    assert!(line(&s, "unlinked").contains("NX huge pages"), "{:#?}", s.lines);
    let s = story(&second_table(&format!("+49999 t9 zapall{}", collapse.replace("50000", "1"))), 0x201);
    assert!(line(&s, "unlinked").contains("kvm_mmu_zap_all_fast"), "{:#?}", s.lines);
}

#[test]
fn a_notifier_is_the_cause_of_what_its_range_can_hold() {
    // A range within a huge page zaps it whole.
    let huge = format!(
        "{TREE}+1 t1 tdp 2 200 empty W400\n+1 t1 entry 0\n+1 t9 unmap 7f0000010000 7f0000050000\n+1 t9 tdp 2 200 W400 empty"
    );
    assert!(line(&story(&huge, 0x201), "2M entry zapped").contains("invalidates 256K"));
    // A range of one page unlinks no table.
    let s = story(
        &second_table(
            "+1 t9 unmap 7f0000010000 7f0000011000\n+1 t9 tdp 2 200 T20 frozen\n+1 t9 zappage 1 200\n+1 t9 tdp 1 201 W401 frozen",
        ),
        0x201,
    );
    assert!(s.lines.iter().all(|l| !l.text.contains("mmu_notifier")), "{:#?}", s.lines);
}

#[test]
fn huge_pages_that_may_not_be_executed_are_told_so() {
    let nx = format!(
        "{TREE}+1 t1 exit\n+1 t1 fault 201 w\n+1 t1 want 2 201 401\n+1 t1 tdp 2 200 empty N400\n+1 t1 set 2 200 N400 at 11008\n+1 t1 entry 0
        +1 t1 exit\n+1 t1 fault 203 xp\n+1 t1 want 1 203 403\n+1 t1 tdp 2 200 N400 T30\n+1 t1 entry 0"
    );
    let s = story(&nx, 0x201);
    assert!(
        line(&s, "mapped writable by a 2M page").contains("not executable (NX huge pages)"),
        "{:#?}",
        s.lines
    );
    let split = line(&s, "split into a table");
    assert!(
        split.contains("as code in it is fetched (NX huge pages)") && split.contains("by the fault on 0x203"),
        "{split}"
    );
    // What the fault mapped is small, out of the page that it split.
    let levels: Vec<_> = run(&nx).1.faults().map(|f| f.level).collect();
    assert_eq!(levels, [Some(2), Some(1)]);
    let plain = story(&format!("{TREE}+1 t1 tdp 2 200 empty W400"), 0x201);
    assert!(!line(&plain, "mapped writable by a 2M page").contains("NX"));
}

#[test]
fn phases_of_two_processes_are_two_lists() {
    let (_, t) = run("vm 10 t1\nvm 20 t5
        100 t1 mark a1\n+10 t5 mark b1\n+10 t1 mark a2\n+10 t7 mark other\n+10 t5 mark b2\n+10 t1 entry 0");
    let told: Vec<_> = t
        .phases()
        .iter()
        .map(|p| (p.text.as_str(), p.start / 1000, p.end / 1000, p.vm.map(|v| v.0)))
        .collect();
    assert_eq!(
        told,
        [
            ("a1", 100, 120, Some(0)),
            ("b1", 110, 140, Some(1)),
            ("a2", 120, 150, Some(0)),
            ("other", 130, 150, None),
            ("b2", 140, 150, Some(1)),
        ]
    );
}

fn sample(name: &str, file: &str) -> (&'static Trace, &'static Timeline) {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(name).join(file))
}

#[test]
fn what_is_read_off_events_is_not_measured_and_shadow_paging_is_not_direct() {
    // A text that says nothing of its host.
    let (_, t) = sample("5.10-shadow64", "trace.txt.zst");
    assert_eq!(t.vms()[0].kind, MmuKind::Shadow);
    let info = t.layout(VmId(0));
    let measured: Vec<_> =
        info.parts.iter().filter(|p| p.from.name() == "measured").map(|p| &p.what).collect();
    assert!(measured.is_empty(), "{measured:?}");
    assert!(info.parts.iter().any(|p| p.what == "vendor" && p.value == "amd"));
}

/// Boots a Linux guest, then QEMU is ended: the trace has no entries into the guest, and the last fault stays open.
#[test]
fn the_last_events_of_a_boot_are_its_end() {
    let (trace, t) = sample("linux-boot", "trace.dat");
    let end = t.vms()[0].ended.clone().expect("torn down");
    // The last change unlinks the root's table; the thread is QEMU's second vCPU.
    assert_eq!((end.comm.as_str(), end.tid), ("qemu-system-x86", 173));
    // It is followed by one that names the page.
    assert_eq!(end.last_event as usize, trace.events.len() - 2);
    for gfn in [0x6, 0xe9, 0x5400, 0xc0000] {
        let s = t.page_story(trace, VmId(0), 0, gfn);
        let last = s.lines.last().expect("a line");
        assert!(last.text.contains("as the VM is torn down"), "{gfn:#x}: {}", last.text);
    }
    // Its last fault was over before; the other vCPU's may not have been.
    assert!(t.faults().all(|f| f.tid != 173 || f.outcome != Outcome::Unfinished));
}

#[test]
fn shares_of_time_are_no_more_than_all_of_it() {
    let mut pages = 0;
    for (name, file) in [
        ("5.10-ept-ad", "trace.txt.zst"),
        ("5.10-shadow64", "trace.txt.zst"),
        ("5.10pae-shadow", "trace.txt.zst"),
        ("6.1-shadow32", "trace.dat"),
        ("6.1-npt", "trace.dat"),
        ("7.3-npt", "trace.txt.zst"),
    ] {
        let (trace, t) = sample(name, file);
        for p in t.top_faults(12).iter().chain(&t.top_zaps(12)) {
            let s = t.page_story(trace, p.vm, p.as_id, p.gfn);
            // Each is rounded to a tenth.
            assert!(shares(&s) <= 100.3, "{name} {:#x}: {:#?}", p.gfn, s.notes);
            pages += 1;
        }
    }
    assert!(pages > 100, "{pages}");
}
