//! Recordings of one run in several formats must give the same events.

use std::ops::ControlFlow;

use mmuscope_trace::{
    Body, ErrorEncoding, Event, FormatKind, Isa, ReadOptions, RoleWord, Strings, Trace, stream,
};

use crate::support::{counts, dat, load, perf, plain, sample, small};

/// The part of an event that a text can have: times in microseconds, and only fields that are printed.
fn as_text(e: &Event, round: u64) -> Event {
    let body = match e.body {
        Body::Entry { vcpu, rip, immediate_exit, intr_info, error_code } => {
            // The flag is printed only when it is set.
            Body::Entry { vcpu, rip, immediate_exit: immediate_exit.filter(|i| *i), intr_info, error_code }
        }
        Body::UserspaceExit { errno, .. } if errno < 0 => Body::UserspaceExit { reason: 0, errno },
        b => b,
    };
    // Task lists exist only in perf.data, and the text of an event has no process id.
    Event { ts: (e.ts + round) / 1000 * 1000, pid: None, body, ..*e }
}

fn same(a: &Trace, b: &Trace, map: impl Fn(&Event) -> Event) {
    let left: Vec<Event> = a.events.iter().filter(|e| !matches!(e.body, Body::Task { .. })).collect();
    let right: Vec<Event> = b.events.iter().filter(|e| !matches!(e.body, Body::Task { .. })).collect();
    assert_eq!(left.len(), right.len());
    for (i, (x, y)) in left.iter().zip(&right).enumerate() {
        assert_eq!(plain(&map(x), &a.strings), plain(&Event { pid: None, ..*y }, &b.strings), "event {i}");
    }
}

#[test]
fn trace_dat_in_all_versions() {
    let v7 = load("6.1-npt/trace.dat");
    assert_eq!((v7.info.format, v7.events.len(), v7.info.damage.len()), (FormatKind::TraceDatV7, 68_615, 0));
    for (name, kind) in [
        ("6.1-npt/trace-v6.dat.zst", FormatKind::TraceDatV6),
        ("6.1-npt/trace-v7-none.dat.zst", FormatKind::TraceDatV7),
    ] {
        let other = load(name);
        assert_eq!(other.info.format, kind);
        same(&v7, &other, |e| *e);
    }
}

#[test]
fn trace_cmd_text_is_the_trace_dat() {
    // trace-cmd rounds to microseconds, perf truncates.
    same(&load("6.1-npt/trace.dat"), &load("6.1-npt/dat-report.txt.zst"), |e| as_text(e, 500));
}

#[test]
fn perf_text_is_the_perf_data() {
    same(&load("6.1-npt/perf.data.zst"), &load("6.1-npt/perf-script.txt.zst"), |e| as_text(e, 0));
}

/// The numbers are those that `perf script` prints for this file, by event name.
#[test]
fn pipe_mode() {
    let t = load("6.1-npt/perf-pipe.data.zst");
    let c = counts(&t);
    assert_eq!(t.info.format, FormatKind::PerfPipe);
    for (name, n) in [
        ("kvm_tdp_mmu_spte_changed", 33_385),
        ("kvm_exit", 7_040),
        ("kvm_entry", 7_040),
        ("kvm_page_fault", 6_875),
        ("kvm_mmu_spte_requested", 3_763),
        ("kvm_mmu_set_spte", 3_459),
        ("fast_page_fault", 2_418),
        ("kvm_mmu_prepare_zap_page", 72),
        ("kvm_mmu_zap_all_fast", 1),
    ] {
        assert_eq!(c.get(name), Some(&n), "{name}");
    }
    let h = &t.info.host;
    assert_eq!(h.os_release.as_deref(), Some("6.1.0-55-cloud-amd64"));
    assert_eq!((h.cpu_family, h.cpu_model, h.nr_cpus), (Some(23), Some(1), Some(2)));
}

#[test]
fn every_container_of_the_same_records() {
    let raw = small(3_000);
    let base = Trace::from_bytes(dat(&raw), "a.dat").unwrap();
    assert_eq!((base.events.len(), base.info.damage.len()), (3_000, 0));
    for (pipe, zstd) in [(false, false), (false, true), (true, false), (true, true)] {
        let t = Trace::from_bytes(perf(&raw, pipe, zstd), "perf.data").unwrap();
        assert_eq!(t.info.damage, [], "pipe {pipe}, zstd {zstd}");
        same(&base, &t, |e| *e);
    }
}

#[test]
fn order_across_and_within_cpus() {
    for name in
        ["6.1-npt/trace.dat", "6.1-npt/perf.data.zst", "6.1-npt/perf-pipe.data.zst", "linux-boot/trace.dat"]
    {
        let t = load(name);
        assert!(t.events.iter().is_sorted_by_key(|e| e.ts), "{name}");
        assert_eq!(t.events.late(), 0, "{name}");
    }
}

#[test]
fn every_sample_reads_clean() {
    let mut n = 0;
    for dir in std::fs::read_dir(crate::support::sample("")).unwrap().flatten() {
        let Ok(files) = std::fs::read_dir(dir.path()) else { continue };
        for f in files.flatten() {
            let name = f.file_name().into_string().unwrap();
            let trace =
                ["trace.txt", "perf.data", "trace.dat", "perf-pipe", "trace-v", "dat-report", "perf-script"];
            if !trace.iter().any(|p| name.starts_with(p)) {
                continue;
            }
            let t = crate::support::load_paths(&[f.path()]);
            assert_eq!(t.info.damage, [], "{}", f.path().display());
            let other = t.events.iter().filter(|e| matches!(e.body, Body::Other { .. })).count();
            assert_eq!(other, 0, "{}: all events of the samples have a type", f.path().display());
            let open = t
                .events
                .iter()
                .filter(|e| matches!(e.body, Body::PageFault { encoding: ErrorEncoding::Ambiguous, .. }))
                .count();
            assert_eq!(open, 0, "{}: exits or bits decide every error code", f.path().display());
            n += 1;
        }
    }
    assert!(n >= 15, "only {n} traces in samples/");
}

#[test]
fn dialects() {
    let role = |t: &Trace| t.info.dialect.role.as_ref().map(|r| r.value);
    let npt = load("6.1-npt/trace.dat");
    assert_eq!(role(&npt), Some(RoleWord::Has4ByteGpte));
    // 6.1's print format says `REC->ret == 5, REC->ret == 4` (spurious, fixed).
    assert_eq!(npt.info.dialect.ret_pf.as_ref().map(|r| (r.value.spurious, r.value.fixed)), Some((5, 4)));
    assert_eq!(npt.info.dialect.isa.as_ref().map(|i| i.value), Some(Isa::Svm));
    let ten = load("5.10-npt-tdp/perf.data.zst");
    assert_eq!(role(&ten), Some(RoleWord::GpteIs8Bytes));
    assert_eq!(ten.info.dialect.ret_pf.as_ref().map(|r| (r.value.spurious, r.value.fixed)), Some((4, 3)));
    assert_eq!(load("6.1-ept-ad/trace.dat").info.dialect.isa.as_ref().map(|i| i.value), Some(Isa::Vmx));
}

#[test]
fn encodings_of_error_codes() {
    for (name, want) in [
        ("6.1-npt/trace.dat", ErrorEncoding::NestedPageFault),
        ("6.1-ept-ad/trace.dat", ErrorEncoding::EptQualification),
        ("6.1-shadow32/trace.dat", ErrorEncoding::PageFault),
        ("5.10-npt-tdp/trace.txt.zst", ErrorEncoding::NestedPageFault),
    ] {
        let t = load(name);
        let mut n = 0;
        for e in &t.events {
            if let Body::PageFault { encoding, .. } = e.body {
                assert_eq!(encoding, want, "{name}");
                n += 1;
            }
        }
        assert!(n > 1_000, "{name}");
    }
}

#[test]
fn people() {
    let t = load("6.1-npt/perf.data.zst");
    assert!(
        !t.info.vm_hints.is_empty() && t.info.vm_hints.iter().all(|v| v.pid.is_some()),
        "perf records processes"
    );
    let boot = load("linux-boot/trace.dat");
    let mut vcpus: Vec<u32> = boot.info.vm_hints.iter().flat_map(|v| v.vcpus.iter().map(|v| v.1)).collect();
    vcpus.sort_unstable();
    assert_eq!(vcpus, [0, 1], "two vCPUs, known by their faults alone");
}

/// A file gives the same events however it is read: on one thread, on several, as a stream, and together with another file.
#[test]
fn threads_and_streams_agree() {
    let mut checked = 0;
    for name in
        ["6.1-npt/trace.dat", "6.1-npt/perf.data.zst", "6.1-npt/perf-pipe.data.zst", "6.1-npt/trace.txt.zst"]
    {
        let paths = [sample(name)];
        let with = |threads| {
            let t = Trace::load(&paths, &ReadOptions { threads, ..ReadOptions::default() }).unwrap();
            let events: Vec<String> = t.events.iter().map(|e| plain(&e, &t.strings)).collect();
            (events, t.info)
        };
        let (one, info) = with(1);
        for threads in [2, 5] {
            let (many, other) = with(threads);
            assert!(one == many, "{name} on {threads} threads");
            assert_eq!(info, other, "{name} on {threads} threads");
        }
        let mut streamed = Vec::new();
        let other = stream(&paths, &ReadOptions::default(), &mut |e: &Event, s: &Strings| {
            streamed.push(plain(e, s));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(one == streamed, "{name} as a stream");
        assert_eq!(
            (info.events, info.vm_hints, info.lost),
            (other.events, other.vm_hints, other.lost),
            "{name} as a stream"
        );
        checked += one.len();
    }
    assert!(checked > 200_000, "{checked}");
}
