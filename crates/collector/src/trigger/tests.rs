use std::time::Duration;

use super::*;
use crate::tracefs::Tracefs;

fn parse(s: &str) -> Trigger {
    s.parse().unwrap()
}

#[test]
fn the_language() {
    let t = parse("reserved-bits or faults(gfn) > 100/10ms or exit == internal_error");
    assert_eq!(
        t.any,
        [
            Condition::ReservedBits,
            Condition::Faults(Per::Gfn, Rate { more_than: 100, within: Duration::from_millis(10) }),
            Condition::Exit(Exit::Reason(17)),
        ]
    );
    assert_eq!(parse("exit==KVM_EXIT_MEMORY_FAULT").any, [Condition::Exit(Exit::Reason(39))]);
    assert_eq!(parse("exit == efault").any, [Condition::Exit(Exit::Error(Some(14)))]);
    assert_eq!(parse("fault-time > 5ms").any, [Condition::FaultTime(Duration::from_millis(5))]);
    assert_eq!(
        parse("zap-all > 3/s").any,
        [Condition::ZapAll(Some(Rate { more_than: 3, within: Duration::from_secs(1) }))]
    );
    assert_eq!(
        parse("event kvmmmu:kvm_mmu_split_huge_page { errno != 0 } > 2 / 1s, zap-all").any,
        [
            Condition::Event {
                name: "kvmmmu:kvm_mmu_split_huge_page".into(),
                filter: Some("errno != 0".into()),
                rate: Some(Rate { more_than: 2, within: Duration::from_secs(1) }),
            },
            Condition::ZapAll(None),
        ]
    );
}

#[test]
fn errors_say_where_and_what() {
    for (text, wanted) in [
        ("", "expected reserved-bits"),
        ("faults > ", "a number of events"),
        ("faults > 3", "\"/\" and a time"),
        ("faults(page) > 3/s", "gfn, vcpu or vm"),
        ("faults > 3/parsec", "is no time"),
        ("exit == sideways", "how KVM_RUN returns"),
        ("exit", "\"==\""),
        ("zap-all zap-all", "\"or\" or the end"),
        ("event x {a", "\"}\""),
        ("fault-time", "\">\""),
    ] {
        let e = text.parse::<Trigger>().unwrap_err();
        assert!(e.contains(wanted), "{text:?}: {e}");
    }
}

/// A tracefs with the events the triggers watch, as 6.18 describes them.
fn fs() -> (tempfile::TempDir, Tracefs) {
    let d = tempfile::tempdir().unwrap();
    for (system, name, id, fields) in [
        (
            "kvm",
            "kvm_userspace_exit",
            10,
            "\tfield:__u32 reason;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:int errno;\toffset:12;\tsize:4;\tsigned:1;\n",
        ),
        (
            "kvm",
            "kvm_page_fault",
            11,
            "\tfield:unsigned int vcpu_id;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:u64 fault_address;\toffset:24;\tsize:8;\tsigned:0;\n",
        ),
        ("kvm", "kvm_entry", 12, "\tfield:unsigned int vcpu_id;\toffset:8;\tsize:4;\tsigned:0;\n"),
        ("kvmmmu", "kvm_mmu_zap_all_fast", 13, ""),
    ] {
        let dir = d.path().join("events").join(system).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("id"), format!("{id}\n")).unwrap();
        std::fs::write(dir.join("format"), fields).unwrap();
    }
    let t = Tracefs::at(d.path());
    (d, t)
}

fn raw(id: u16, words: &[(usize, u64)]) -> Vec<u8> {
    let mut r = vec![0u8; 40];
    r[..2].copy_from_slice(&id.to_ne_bytes());
    for &(at, v) in words {
        r[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    r
}

#[test]
fn conditions_on_real_records() {
    let (_d, t) = fs();
    let trigger = parse("exit == internal_error or faults(gfn) > 2/1ms or fault-time > 5ms or reserved-bits");
    let (mut w, watched) = Watcher::new(&trigger, &t).unwrap();
    let mut names: Vec<_> = watched.iter().map(|w| w.tracepoint.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["kvm_entry", "kvm_page_fault", "kvm_userspace_exit"]);
    let mut see = |tid: u32, time: u64, raw: &[u8]| w.see(Hit { pid: 1, tid, time, raw }).map(str::to_owned);
    // KVM_EXIT_IO and EINTR are ordinary returns.
    assert_eq!(see(1, 0, &raw(10, &[(8, 2)])), None);
    assert_eq!(see(1, 0, &raw(10, &[(8, (u64::from((-4i32) as u32) << 32) + 10)])), None);
    assert_eq!(see(1, 0, &raw(10, &[(8, 17)])).as_deref(), Some("exit == internal_error"));
    assert_eq!(
        see(1, 0, &raw(10, &[(8, u64::from((-22i32) as u32) << 32)])).as_deref(),
        Some("reserved-bits")
    );
    // The same frame faults three times within 1 ms, on different vCPUs.
    let fault = |gfn: u64| raw(11, &[(24, gfn << 12 | 0x123)]);
    assert_eq!(see(1, 0, &fault(5)), None);
    assert_eq!(see(2, 100, &fault(6)), None);
    assert_eq!(see(2, 400_000, &fault(5)), None);
    assert_eq!(see(1, 900_000, &fault(5)).as_deref(), Some("faults(gfn) > 2/1ms"));
    // One fault is slow.
    assert_eq!(see(3, 1_000_000, &fault(9)), None);
    assert_eq!(see(3, 7_000_000, &raw(12, &[])).as_deref(), Some("fault-time > 5ms"));
    assert_eq!(see(3, 9_000_000, &raw(12, &[])), None, "only the first entry after the fault ends it");
    assert_eq!(see(3, 0, &[]), None);
}

#[test]
fn an_event_the_kernel_does_not_have() {
    let (_d, t) = fs();
    let e = Watcher::new(&parse("event kvm_nothing"), &t).err().unwrap();
    assert!(e.contains("kvm_nothing"), "{e}");
    let e = Watcher::new(&parse("event kvm_entry {vcpu_id==1} or event kvm_entry {vcpu_id==2}"), &t)
        .err()
        .unwrap();
    assert!(e.contains("one condition"), "{e}");
}
