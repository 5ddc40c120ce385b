//! `mmuscope report`: a part of a trace holds what the tables hold of it, and several traces stand on one page.

use crate::{Csv, run, stdout};
use serde_json::Value;

const TRACE: &str = "samples/6.1-npt/trace.txt.zst";

fn report(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["report", TRACE, "--format", "json"], args].concat())).expect("JSON")
}

fn sum(rows: &Value, of: &str) -> u64 {
    rows.as_array().map_or(0, |all| all.iter().filter_map(|r| r[of].as_u64()).sum())
}

/// Numbers of a report: faults, zaps over time, events, MMIO accesses.
fn numbers(r: &Value) -> [u64; 5] {
    let vm = &r["vms"][0];
    let zaps = vm["spaces"][0]["over_time"]["zaps"].as_array().expect("a list");
    [
        vm["faults"]["total"].as_u64().expect("a number"),
        zaps.iter().filter_map(Value::as_u64).sum(),
        sum(&vm["counted"]["zaps"], "count"),
        sum(&r["events"], "count"),
        sum(&vm["mmio"], "accesses"),
    ]
}

#[test]
fn parts_add_up_to_the_whole() {
    let whole = numbers(&report(&[]));
    assert!(whole.iter().all(|n| *n > 0), "{whole:?}");
    let (first, second) = (report(&["--to", "250ms"]), report(&["--from", "250000001ns"]));
    let both: Vec<u64> = numbers(&first).iter().zip(numbers(&second)).map(|(a, b)| a + b).collect();
    assert_eq!(both, whole);
    assert_eq!(first["part"]["options"], "--to 250000000ns");
    assert!(first["story"][0].as_str().is_some_and(|s| s.contains("up to 0.25 s")), "{}", first["story"][0]);
    assert!(report(&[])["part"].is_null());
}

#[test]
fn a_part_holds_what_the_tables_hold_of_it() {
    let part = ["--from", "touch-write-after-read", "--to", "touch-write-after-read:end"];
    let r = report(&part);
    let rows = |command: &str| Csv::of(&[&[command, TRACE], &part[..]].concat()).select(["ts"]).len() as u64;
    let [faults, _, _, events, _] = numbers(&r);
    assert_eq!(faults, rows("faults"));
    assert_eq!(events, rows("events"));
    // The outcomes are those of `stat`.
    let stat = Csv::of(&[&["stat", TRACE, "--where", "kind == fault"], &part[..]].concat());
    for [name, count] in stat.select(["name", "count"]) {
        let all = r["vms"][0]["faults"]["outcomes"].as_array().expect("a list");
        let own = all.iter().find(|o| o["name"] == name).expect("the outcome");
        assert_eq!(own["count"].to_string(), count, "{name}");
    }
    // Times still count from the first event of the trace.
    let start = r["part"]["start"].as_u64().expect("a number");
    assert!(start > 0);
    for p in r["vms"][0]["top_faults"].as_array().expect("a list") {
        assert!(p["first"].as_u64().is_some_and(|t| t >= start), "{p}");
        assert!(
            p["story"].as_array().expect("a list").iter().all(|l| l["ts"].as_u64() >= Some(start)),
            "{p}"
        );
    }
}

#[test]
fn frames_narrow_everything_that_has_a_frame() {
    let part = ["--gfn", "1000-11ff"];
    let r = report(&part);
    let rows = |command: &str| Csv::of(&[&[command, TRACE], &part[..]].concat()).select(["gfn"]).len() as u64;
    assert_eq!(numbers(&r)[0], rows("faults"));
    assert!(numbers(&r)[0] > 0);
    let within = |v: &Value| {
        let gfn = v.as_str().and_then(|g| u64::from_str_radix(g.trim_start_matches("0x"), 16).ok());
        gfn.is_some_and(|g| (0x1000..0x1200).contains(&g))
    };
    for list in ["top_faults", "top_zaps"] {
        let pages = r["vms"][0][list].as_array().expect("a list");
        assert!(!pages.is_empty() && pages.iter().all(|p| within(&p["gfn"])), "{list}: {pages:?}");
    }
    // What is of no frame is not known, and is not 0.
    assert!(r["vms"][0]["counted"]["exits"].is_null());
    assert!(r["phases"][0]["present_bytes"].is_null());
    // Entries at the end are those of `state`.
    let state = Csv::of(&["state", TRACE, "--gfn", "1000-11ff", "--where", "state == present"]);
    let entries = &r["vms"][0]["spaces"][0]["over_time"]["entries"];
    let at_end = |s: &Value| s["counts"].as_array().and_then(|c| c.last()?.as_u64()).unwrap_or(0);
    let present: u64 =
        entries.as_array().expect("a list").iter().filter(|s| s["state"] != "mmio").map(at_end).sum();
    assert_eq!(present, state.select(["gfn"]).len() as u64);
}

#[test]
fn the_command_under_a_figure_gives_the_same_part() {
    let html = stdout(&["report", TRACE, "--from", "550ms", "--to", "600ms", "--gfn", "1000-11ff"]);
    let command = format!("mmuscope faults {TRACE} --from 550000000ns --to 600000000ns --gfn 0x1000-0x11ff");
    assert!(html.contains(&command), "no `{command}`");
    let args: Vec<&str> = command.split(' ').skip(1).collect();
    let rows = Csv::of(&args).select(["ts"]).len();
    assert!(html.contains(&format!("{rows} faults on")), "{rows}");
    assert!(html.contains("part of the trace: from 0.55 s to 0.6 s, guest frames 0x1000–0x11ff"));
}

#[test]
fn a_part_that_the_trace_does_not_have_is_refused() {
    for args in [["--vm", "3"], ["--from", "1h"], ["--from", "no-such-phase"], ["--gfn", "zz"]] {
        for command in ["report", "check", "stat"] {
            let out = run(&[&[command, TRACE], &args[..]].concat());
            assert_eq!(out.status.code(), Some(2), "{command} {args:?}");
        }
    }
}

#[test]
fn check_keeps_to_a_part() {
    let ids = |args: &[&str]| -> Vec<String> {
        let text = stdout(&[&["check", TRACE, "--format", "json"], args].concat());
        let all: Value = serde_json::from_str(&text).expect("JSON");
        all["findings"].as_array().expect("a list").iter().map(|f| f["id"].to_string()).collect()
    };
    let whole = ids(&[]);
    // Before the first fault there is nothing to find.
    assert_eq!(ids(&["--to", "1ns"]), Vec::<String>::new());
    assert_eq!(ids(&["--vm", "0"]), whole);
    let mmio = ids(&["--from", "mmio", "--to", "mmio:end"]);
    assert!(mmio.len() < whole.len() && mmio.iter().all(|id| whole.contains(id)), "{mmio:?} of {whole:?}");
}

#[test]
fn several_traces_stand_on_one_page() {
    let other = "samples/6.18-npt/trace.txt.zst";
    let both = |format: &str| stdout(&["report", "--each", TRACE, other, "--format", format]);
    let json: Value = serde_json::from_str(&both("json")).expect("JSON");
    assert_eq!(json["traces"][0], report(&[]));
    assert_eq!(json["traces"].as_array().map(Vec::len), Some(2));
    let markdown = both("md");
    assert!(markdown.starts_with("# 2 traces\n"));
    for name in ["6.1-npt/trace.txt.zst", "6.18-npt/trace.txt.zst"] {
        assert!(markdown.contains(&format!("\n# {name}: ")), "{name}");
    }
    let html = both("html");
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|s| s.split('"').next()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "each id is there once");
    for link in html.split(" href=\"#").skip(1).filter_map(|s| s.split('"').next()) {
        assert!(ids.binary_search(&link).is_ok(), "#{link} leads nowhere");
    }
}

/// Text may name any number as a frame, also the last that there is.
#[test]
fn the_last_frames_of_all_numbers_are_a_part_like_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("last.txt");
    let change = |us: u32, gfn: &str, level: u8, values: &str| {
        format!(
            "            load-111 [000] ..... 10.{us:06}: kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn} level {level} {values}\n"
        )
    };
    let text = change(172, "ffffffffffffffff", 1, "old_spte 0 new_spte 3a02827")
        + &change(180, "fffffffffffffe00", 2, "old_spte 3a02827 new_spte 36d6ee7")
        + &change(190, "fffffffffffffe00", 2, "old_spte 36d6ee7 new_spte 3a02827");
    std::fs::write(&file, text).expect("written");
    for command in ["report", "stat", "check", "faults", "state", "memory"] {
        for gfn in ["ffffffffffffffff", "fffffffffffffe00-fffffffffffffffe", "0-ffffffffffffffff"] {
            let mut c = std::process::Command::new(env!("CARGO_BIN_EXE_mmuscope"));
            c.arg(command).arg(&file);
            if command != "memory" {
                c.args(["--gfn", gfn]);
            }
            let out = c.output().expect("it runs");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(!said.contains("panicked"), "{command} --gfn {gfn}: {said}");
        }
    }
}
