//! How a question may be put: frames, moments, names, formats; and what is said of those that a trace does not have.

use crate::{Csv, run, stdout};
use std::fs;

const TRACE: &str = "samples/6.1-npt/trace.txt.zst";

/// What a run that must be refused says.
fn refused(args: &[&str]) -> String {
    let out = run(args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(out.stdout.is_empty(), "{args:?} answers nothing");
    said
}

#[test]
fn frames_are_hex_everywhere() {
    let story = stdout(&["page", TRACE, "0x2001"]);
    assert!(story.starts_with("gfn 0x2001: "), "{story}");
    for same in [&["2001"][..], &["0d8193"], &["8193", "--decimal"]] {
        assert_eq!(stdout(&[&["page", TRACE], same].concat()), story, "{same:?}");
    }
    for command in ["state", "spans", "faults", "events"] {
        let by = |more: &[&str]| stdout(&[&[command, TRACE, "-f", "csv"], more].concat());
        let want = by(&["--gfn", "0x100-0x10f"]);
        assert!(want.lines().count() > 2, "{command}");
        assert_eq!(by(&["--gfn", "100-10f"]), want, "{command}");
        assert_eq!(by(&["--gfn", "256+16", "--decimal"]), want, "{command}");
    }
    let filter = |f: &str| stdout(&["events", TRACE, "-f", "csv", "--where", f]);
    assert_eq!(filter("gfn == 2001"), filter("gfn == 0x2001"));
    assert_eq!(filter("gfn == 0d8193"), filter("gfn == 0x2001"));
}

#[test]
fn several_pages_are_told_one_after_another() {
    let one = |gfn: &str| stdout(&["page", TRACE, gfn]);
    let all = stdout(&["page", TRACE, "100", "2001-2002"]);
    assert_eq!(all, format!("{}\n{}\n{}", one("100"), one("2001"), one("2002")));
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&stdout(&[&["page", TRACE, "-f", "json"], args].concat())).expect("JSON")
    };
    assert_eq!(json(&["100", "2001"]).as_array().map(Vec::len), Some(2));
    assert_eq!(json(&["2001"])["gfn"], "0x2001");
    assert!(refused(&["page", TRACE, "0-ffffff"]).contains("mmuscope spans --gfn"));
}

#[test]
fn a_time_without_a_unit_is_in_seconds() {
    let at = |t: &str| stdout(&["state", TRACE, "--at", t, "-f", "csv"]);
    assert_eq!(at("0.3"), at("300ms"));
    assert_eq!(at("0"), at("start"));
    assert_ne!(at("0.3"), at("end"));
    let events = |from: &str, to: &str| stdout(&["events", TRACE, "-f", "csv", "--from", from, "--to", to]);
    assert_eq!(events("0.1", ".101"), events("100ms", "101000us"));
    // Copied from a column, which holds nanoseconds.
    let out = run(&["state", TRACE, "--at", "300000000", "-f", "csv"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), at("300ms"));
    assert!(String::from_utf8_lossy(&out.stderr).contains("write 300000000ns"), "and it is said");
}

#[test]
fn a_moment_outside_of_the_trace_is_no_moment_of_it() {
    for args in [
        &["state", TRACE, "--at", "100s"][..],
        &["memory", TRACE, "--at", "1"],
        &["spans", TRACE, "--from", "2s"],
        &["events", TRACE, "--from", "2s"],
        &["faults", TRACE, "--absolute", "--to", "1s"],
    ] {
        let said = refused(args);
        assert!(said.contains("is outside of the trace, which goes from "), "{args:?}: {said}");
    }
    // A stretch may reach over the end.
    assert!(stdout(&["events", TRACE, "--from", "0.7", "--to", "10s"]).lines().count() > 1);
}

#[test]
fn each_phase_of_a_name_can_be_asked_for() {
    let marks = Csv::of(&["events", TRACE, "--event", "tracing_mark_write"]);
    let of = |name: &str| -> Vec<String> {
        marks.select(["ts", "text"]).iter().filter(|m| m[1] == name).map(|m| format!("{}ns", m[0])).collect()
    };
    let at = of("dirty-log-get");
    assert_eq!(at.len(), 2, "the sample reads its dirty log twice");
    let state = |t: &str| stdout(&["state", TRACE, "--at", t, "-f", "csv"]);
    assert_eq!(state("dirty-log-get"), state(&at[0]));
    assert_eq!(state("dirty-log-get#2"), state(&at[1]));
    assert_ne!(state("dirty-log-get#1"), state("dirty-log-get#2"));
    let said = refused(&["state", TRACE, "--at", "dirty-log-get#3"]);
    assert!(said.contains("dirty-log-get (2 times"), "{said}");
}

#[test]
fn names_that_do_not_exist_are_refused_with_those_that_do() {
    for (args, there) in [
        (&["events", TRACE, "--event", "kvm_nope"][..], "fast_page_fault, handle_mmio_page_fault, kvm_entry"),
        (&["events", TRACE, "--event", "kvm_entry,kvm_nope*"], "`kvm_nope*`"),
        (&["events", TRACE, "--vm", "7"], "the trace has 0"),
        (&["events", TRACE, "--tid", "5"], "the trace has 111, 114, 115"),
        (&["events", TRACE, "--cpu", "77"], "the trace has 0, 1"),
        (&["state", TRACE, "--vm", "7"], "the trace has 0 (load)"),
        (&["spans", TRACE, "--vm", "1"], "the trace has 0 (load)"),
        (&["faults", TRACE, "--vm", "1"], "the trace has 0 (load)"),
        (&["memory", TRACE, "--vm", "1"], "the trace has 0 (load)"),
        (&["page", TRACE, "100", "--vm", "1"], "the trace has 0 (load)"),
        (&["state", TRACE, "--as-id", "1"], "the trace has 0"),
        (
            &["state", TRACE, "--columns", "gfn,pfm"],
            "there is no column `pfm`; the columns of `state` are: vm, as_id",
        ),
    ] {
        let said = refused(args);
        assert!(said.contains(there), "{args:?}: {said}");
    }
    // What was recorded and never happened is there, and its answer is empty: this host's perf.data describes its events.
    let recorded = Csv::of(&["events", TRACE, "--event", "lost"]);
    assert!(recorded.rows.is_empty());
}

#[test]
fn the_name_of_a_file_says_its_format() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, more: &[&str]| {
        let file = dir.path().join(name);
        let args = ["state", TRACE, "--where", "level == 2", "-o", file.to_str().expect("a path")];
        let out = run(&[&args[..], more].concat());
        (
            out.status.code(),
            fs::read(&file).unwrap_or_default(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };
    for (name, begins) in [
        ("x.csv", &b"vm,as_id,"[..]),
        ("x.json", b"[{\"vm\":0"),
        ("x.jsonl", b"{\"vm\":0"),
        ("x.parquet", b"PAR1"),
        ("x.arrow", b"ARROW1"),
        ("x.md", b"| vm | as_id |"),
        ("x.txt", b"VM  AS_ID  "),
        ("X.CSV", b"vm,as_id,"),
        ("none", b"VM  AS_ID  "),
    ] {
        let (code, bytes, said) = write(name, &[]);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{name}");
        assert!(bytes.starts_with(begins), "{name}");
    }
    for name in ["x.xls", "x.csv.gz", "x.html"] {
        let (code, bytes, said) = write(name, &[]);
        assert!(code == Some(2) && bytes.is_empty() && said.contains("--format"), "{name}: {said}");
    }
    let (code, bytes, said) = write("odd.json", &["-f", "csv"]);
    assert!(code == Some(0) && bytes.starts_with(b"vm,as_id"), "what is asked for wins");
    assert!(said.contains("will hold csv"), "{said}");
    assert!(write("x.dat", &["-f", "csv"]).1.starts_with(b"vm,as_id"));
    assert!(refused(&["report", TRACE, "-o", "/tmp/x.pdf"]).contains(".html, .md or .json"));
}

#[test]
fn columns_can_be_chosen_in_any_format() {
    let args = ["faults", TRACE, "-n", "3", "--columns", "event,gfn,ts", "-f"];
    let with = |f: &str| stdout(&[&args[..], &[f]].concat());
    let csv = with("csv");
    assert!(csv.starts_with("event,gfn,ts\n") && csv.lines().count() == 4, "{csv}");
    assert!(with("table").starts_with("EVENT"));
    let json: Vec<serde_json::Value> = serde_json::from_str(&with("json")).expect("JSON");
    assert!(json.iter().all(|o| o.as_object().is_some_and(|o| o.len() == 3)), "{json:?}");
    // A filter may name columns that are not printed.
    let some =
        stdout(&["faults", TRACE, "--columns", "gfn", "--where", "outcome == fixed", "-f", "csv", "-n", "1"]);
    assert_eq!(some.lines().count(), 2);
}

#[test]
fn the_number_of_an_event_joins_the_tables() {
    let events = Csv::of(&["events", TRACE]);
    let ids = events.select(["event_id", "event", "ts"]);
    assert!(ids.iter().enumerate().all(|(n, [id, ..])| id.parse() == Ok(n)), "they count from 0");
    let faults = Csv::of(&["faults", TRACE, "--where", "event is not null"]);
    assert!(faults.rows.len() > 1000);
    for [event, ts] in faults.select(["event", "ts"]) {
        let n: usize = event.parse().expect("a number");
        let [_, name, at] = ids[n];
        assert!(
            matches!(name, "kvm_page_fault" | "kvm_exit" | "handle_mmio_page_fault" | "kvm_mmio"),
            "{name}"
        );
        assert_eq!(at, ts, "event {n}");
    }
    for [opened, by] in Csv::of(&["spans", TRACE, "--where", "opened_event is not null"])
        .select(["opened_event", "opened_by"])
    {
        let n: usize = opened.parse().expect("a number");
        assert_eq!(ids[n][1], by);
    }
    // A part of the events keeps its numbers.
    let later = Csv::of(&["events", TRACE, "--from", "0.3", "-n", "5"]);
    for [id, name, ts] in later.select(["event_id", "event", "ts"]) {
        assert_eq!(ids[id.parse::<usize>().expect("a number")], [id, name, ts]);
    }
}

/// Two VMs of a trace without processes; the thread with the higher number begins.
fn two_vms() -> String {
    let mut text = String::from("# tracer: nop\n#\n");
    for round in 0..20 {
        for (n, tid, gfn, pfn, table) in [(0, 900, 0x100, 0x7e000, 0x55fe), (1, 200, 0x300, 0x8e000, 0x66fe)]
        {
            let (gfn, pfn) = (gfn + round, pfn + round);
            let t = 10 * round + 5 * n;
            let line = |at: u64, event: &str| {
                format!("            qemu-{tid}     [00{n}] .....     4.{:06}: {event}\n", 100 + t + at)
            };
            text += &line(0, "kvm_entry: vcpu 0, rip 0x6000");
            text += &line(
                1,
                &format!(
                    "kvm_exit: vcpu 0 reason npf rip 0x6000 info1 0x0000000100000006 info2 0x{:016x} intr_info 0x00000000 error_code 0x00000000",
                    gfn << 12
                ),
            );
            text += &line(
                2,
                &format!(
                    "kvm_page_fault: vcpu 0 rip 0x6000 address 0x{:016x} error_code 0x100000006",
                    gfn << 12
                ),
            );
            text += &line(
                3,
                &format!(
                    "kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level 1 old_spte 0 new_spte {pfn:x}e67"
                ),
            );
            text += &line(
                4,
                &format!(
                    "kvm_mmu_set_spte: gfn {gfn:x} spte {pfn:x}e67 (rwxu) level 1 at {table:x}{:03x}",
                    (8 * gfn) & 0xfff
                ),
            );
        }
    }
    text
}

#[test]
fn a_vm_has_one_number_in_every_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("two.txt");
    fs::write(&file, two_vms()).expect("a trace");
    let file = file.to_str().expect("a path");
    let first = Csv::of(&["events", file, "-n", "1"]);
    assert_eq!(first.select(["vm", "tid"]), [["0", "900"]], "who comes first is VM 0");
    for (vm, tid, gfn) in [("0", "900", "0x100"), ("1", "200", "0x300")] {
        let events = Csv::of(&["events", file, "--vm", vm]);
        assert_eq!(events.rows.len(), 100);
        assert!(events.select(["tid"]).iter().all(|t| t[0] == tid));
        let faults = Csv::of(&["faults", file, "--vm", vm]);
        assert!(faults.rows.len() == 20 && faults.select(["tid"]).iter().all(|t| t[0] == tid));
        let state = Csv::of(&["state", file, "--vm", vm, "--level", "1"]);
        assert_eq!(state.select(["gfn"])[0], [gfn]);
        assert!(stdout(&["page", file, gfn, "--vm", vm]).contains(&format!("qemu-{tid}")));
    }
    let summary: serde_json::Value =
        serde_json::from_str(&stdout(&["summary", file, "-f", "json"])).expect("JSON");
    assert_eq!(summary["vms"][0]["vcpus"][0]["tid"], 900);
    assert_eq!(summary["vms"][1]["vcpus"][0]["tid"], 200);
}

#[test]
fn a_trace_alone_is_summarised() {
    assert_eq!(stdout(&[TRACE]), stdout(&["summary", TRACE]));
    assert!(refused(&["missing.dat"]).contains("missing.dat"));
    assert!(refused(&["sumary"]).contains("similar subcommand"), "a similar command is suggested");
    // An option of another command is not called similar to anything.
    let said = refused(&["summary", TRACE, "--at", "1s"]);
    assert!(said.contains("unexpected argument '--at'") && !said.contains("tip:"), "{said}");
}

#[test]
fn a_trace_without_kvm_says_what_to_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("sched.txt");
    let line = "          <idle>-0       [000] d..2.     4.000001: sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b next_pid=2\n";
    fs::write(&file, format!("# tracer: nop\n#\n{}", line.repeat(3))).expect("a trace");
    let file = file.to_str().expect("a path");
    for command in [&["state"][..], &["spans"], &["faults"], &["memory"], &["report"], &["page", "--", "0x1"]]
    {
        let mut args = vec![command[0], file];
        args.extend(command.iter().skip(2));
        let said = refused(&args);
        assert!(said.contains("no event of KVM") && said.contains("mmuscope record"), "{command:?}: {said}");
    }
    let summary = stdout(&["summary", file]);
    assert!(summary.contains("note       the trace has no event of KVM. Record kvmmmu"), "{summary}");
    assert_eq!(Csv::of(&["events", file]).rows.len(), 3);
}

#[test]
fn stack_traces_between_events_have_a_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("stacks.txt");
    let text = "# tracer: nop\n#\n            load-111     [001] d..1.     4.000001: kvm_entry: vcpu 1, rip 0x6000\n            load-111     [001] d..1.     4.000002: <stack trace>\n => vcpu_enter_guest\n => kvm_arch_vcpu_ioctl_run\n            load-111     [001] d..1.     4.000003: <user stack trace>\n =>  <00007f0000001234>\n";
    fs::write(&file, text).expect("a trace");
    let events = Csv::of(&["events", file.to_str().expect("a path")]);
    let names: Vec<&str> = events.select(["event"]).iter().map(|e| e[0]).collect();
    assert_eq!(names, ["kvm_entry", "kernel_stack", "user_stack"]);
}

#[test]
fn memory_can_be_asked_for_at_a_moment() {
    let at = |t: &str| Csv::of(&["memory", TRACE, "--at", t]);
    assert!(at("start").rows.is_empty(), "nothing is mapped at the first event");
    let ram = |t: &str| -> u64 {
        let all = at(t);
        let rows = all.select(["kind", "bytes"]);
        rows.iter().filter(|r| r[0] == "ram").map(|r| r[1].parse::<u64>().expect("bytes")).sum()
    };
    assert!(ram("0.1") > 0 && ram("0.1") != ram("end"));
    // What is present then, by `state`: each frame once.
    let state = Csv::of(&["state", TRACE, "--at", "0.1", "--where", "state == present"]);
    let mut frames = std::collections::BTreeSet::new();
    for [gfn, size] in state.select(["gfn", "size"]) {
        let first = crate::hex(gfn);
        frames.extend(first..first + size.parse::<u64>().expect("bytes") / 4096);
    }
    assert_eq!(ram("0.1"), 4096 * frames.len() as u64);
}

/// Numbers (with their units) and hex numbers of a text.
fn numbers(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let words: Vec<&str> = text.split([' ', '\n', '(', ')', ';']).filter(|w| !w.is_empty()).collect();
    for (n, w) in words.iter().enumerate() {
        let w = w.trim_end_matches([',', ':', '.']);
        if !w.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let unit = words.get(n + 1).map(|u| u.trim_end_matches([',', ':', '.']));
        match unit {
            Some(u @ ("ns" | "µs" | "ms" | "s" | "B" | "KiB" | "MiB" | "GiB" | "min")) => {
                out.push(format!("{w} {u}"));
            }
            _ => out.push(w.to_string()),
        }
    }
    out
}

/// Everything a JSON value holds, in every notation in which a text may show it.
fn notations(v: &serde_json::Value, out: &mut Vec<String>) {
    use serde_json::Value;
    match v {
        Value::Number(n) => {
            if let Some(n) = n.as_u64() {
                out.extend([
                    mmuscope_units::count(n),
                    mmuscope_units::duration(n),
                    mmuscope_units::bytes(n),
                    n.to_string(),
                ]);
            }
        }
        Value::String(s) => out.push(s.clone()),
        Value::Array(a) => {
            out.push(a.len().to_string());
            for v in a {
                notations(v, out);
            }
        }
        Value::Object(o) => {
            for (k, v) in o {
                out.push(k.clone());
                notations(v, out);
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

#[test]
fn the_summary_in_json_has_all_that_its_text_has() {
    for (trace, at_least) in [
        ("samples/6.1-npt/trace.txt.zst", 80),
        ("samples/linux-boot/trace.dat", 40),
        ("samples/5.10-shadow64/trace.txt.zst", 60),
        ("samples/6.18-npt/trace.txt.zst", 60),
    ] {
        let text = stdout(&["summary", trace]);
        let json = serde_json::from_str(&stdout(&["summary", trace, "-f", "json"])).expect("JSON");
        let mut known = Vec::new();
        notations(&json, &mut known);
        let all = numbers(&text);
        assert!(all.len() >= at_least, "{trace}: {} numbers\n{text}", all.len());
        for n in all {
            // What is part of a sentence (a note, a release, a layout) is there as such.
            let there = n == "0"
                || known.iter().any(|k| {
                    *k == n
                        || (k.len() > n.len()
                            && !k.chars().all(|c| c.is_ascii_digit() || c == ',')
                            && k.contains(&n))
                });
            assert!(there, "{trace}: `{n}` is in the text and not in the JSON\n{text}");
        }
        for line in text.lines().filter_map(|l| l.strip_prefix("note       ")) {
            assert!(json["notes"].as_array().is_some_and(|n| n.iter().any(|n| n == line)), "{line}");
        }
        for key in ["phases", "vms", "known", "top_faults", "top_zaps", "top_mmio", "lost", "by_event"] {
            assert!(!json[key].is_null(), "{trace}: {key}");
        }
    }
}
