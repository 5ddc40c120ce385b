//! One run in several formats: the same answers.

use crate::Csv;
use crate::ends::output;
use std::collections::BTreeMap;
use std::process::Command;

const DAT: &str = "samples/6.1-npt/trace.dat";
/// These recordings go on until the VM is gone: at their end nothing is mapped.
const BEFORE_TEARDOWN: &str = "race:end";

#[test]
fn every_version_of_trace_dat_tells_the_same() {
    let columns = ["vm", "as_id", "level", "gfn", "state", "spte", "pfn", "since", "certainty", "sptep"];
    let (events, state) = (Csv::of(&["events", DAT]).rows, Csv::of(&["state", DAT, "--at", BEFORE_TEARDOWN]));
    assert!(
        events.len() > 60_000 && state.rows.len() > 900,
        "{} events, {} entries",
        events.len(),
        state.rows.len()
    );
    for other in ["samples/6.1-npt/trace-v6.dat.zst", "samples/6.1-npt/trace-v7-none.dat.zst"] {
        assert_eq!(Csv::of(&["events", other]).rows, events, "{other}");
        assert_eq!(
            Csv::of(&["state", other, "--at", BEFORE_TEARDOWN]).select(columns),
            state.select(columns),
            "{other}"
        );
    }
}

#[test]
fn text_of_a_capture_replays_to_the_same_leaves() {
    // Text has microseconds and no role words; the leaves must not care.
    for (binary, text) in [
        (DAT, "samples/6.1-npt/dat-report.txt.zst"),
        ("samples/6.1-npt/perf.data.zst", "samples/6.1-npt/perf-script.txt.zst"),
    ] {
        let leaves = |file: &str| {
            // These recordings go on until the VM is gone, and perf's have no marks: the last entry of a vCPU is before that.
            let entries = Csv::of(&["events", file, "--event", "kvm_entry"]);
            let [last] = *entries.select(["ts"]).last().expect("vCPUs ran");
            let csv = Csv::of(&["state", file, "--at", last, "--where", "state in (present, mmio)"]);
            let mut rows: Vec<[String; 4]> = csv
                .select(["level", "gfn", "state", "spte"])
                .into_iter()
                .map(|r| r.map(str::to_string))
                .collect();
            rows.sort();
            rows
        };
        let ours = leaves(binary);
        assert!(ours.len() > 500, "{binary}: {} leaves", ours.len());
        assert_eq!(ours, leaves(text), "{binary} and {text}");
    }
}

fn counts(file: &str) -> BTreeMap<String, u64> {
    let text = crate::stdout(&["summary", file, "--no-replay", "--format", "json"]);
    let v: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let all = v["by_event"].as_object().expect("counts").iter();
    all.map(|(k, n)| (k.clone(), n.as_u64().expect("a number")))
        .filter(|(k, _)| k.starts_with("kvm_") || k.contains("mmio"))
        .collect()
}

#[test]
fn counts_are_those_of_trace_cmd() {
    mmuscope_needs::needs!("trace-cmd");
    let out = output(Command::new("trace-cmd").args(["report", "-N", "-i", DAT]).current_dir(crate::root()))
        .expect("trace-cmd runs");
    let mut theirs = BTreeMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let name = line
            .split_whitespace()
            .find_map(|w| w.strip_suffix(':').filter(|n| n.starts_with("kvm_") || n.contains("mmio")));
        if let Some(name) = name {
            *theirs.entry(name.to_string()).or_insert(0) += 1;
        }
    }
    assert!(theirs.len() > 10, "trace-cmd printed events");
    assert_eq!(counts(DAT), theirs);
}

#[test]
fn counts_are_those_of_perf() {
    mmuscope_needs::needs!("perf");
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("perf.data");
    let packed = crate::root().join("samples/6.1-npt/perf.data.zst");
    std::fs::write(&data, zstd::decode_all(std::fs::File::open(packed).expect("the sample")).expect("zstd"))
        .expect("a file");
    // perf refuses files of other users; the copy is ours.
    let out =
        output(Command::new("perf").args(["script", "-F", "event", "-i"]).arg(&data)).expect("perf runs");
    let mut theirs = BTreeMap::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let name = line.trim().trim_end_matches(':').rsplit(':').next().unwrap_or_default();
        if name.starts_with("kvm_") || name.contains("mmio") || name == "fast_page_fault" {
            *theirs.entry(name.to_string()).or_insert(0) += 1;
        }
    }
    theirs.remove("fast_page_fault");
    assert!(!theirs.is_empty(), "perf printed events: {}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(counts(data.to_str().expect("a path")), theirs);
}

#[test]
fn standard_input_is_a_file_like_any_other() {
    let file =
        std::fs::File::open(crate::root().join("samples/6.1-npt/perf-pipe.data.zst")).expect("the sample");
    let out = output(crate::mmuscope(&["spans", "-", "--format", "csv"]).stdin(file)).expect("mmuscope runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let named = crate::stdout(&["spans", "samples/6.1-npt/perf-pipe.data.zst", "--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), named);
}

/// A time of perf, `54.98us`, in nanoseconds.
fn micros(text: &str) -> f64 {
    text.trim_end_matches("us").parse::<f64>().expect("microseconds") * 1000.0
}

/// `perf kvm stat` counts the exits that end, with the same times, which it rounds to ten nanoseconds.
#[test]
fn exits_are_those_of_perf_kvm_stat() {
    mmuscope_needs::needs!("perf");
    let dir = tempfile::tempdir().expect("a directory");
    let mut compared = 0;
    for sample in ["6.1-npt/perf.data.zst", "6.1-ept-noad/perf.data.zst", "5.10-npt-tdp/perf.data.zst"] {
        let data = dir.path().join("perf.data");
        let packed = crate::root().join("samples").join(sample);
        let packed = std::fs::File::open(packed).expect("the sample");
        std::fs::write(&data, zstd::decode_all(packed).expect("zstd")).expect("a file");
        let path = data.to_str().expect("a path");
        let out = output(Command::new("perf").args(["kvm", "--host", "-i", path, "stat", "report"]));
        let out = out.expect("perf runs");
        let ours = crate::Csv::of(&["stat", path, "--where", "kind == exit"]);
        let ours = ours.select(["name", "measured", "min", "max", "mean"]);
        // perf prints its table to standard error.
        let theirs = [out.stdout, out.stderr].concat();
        for line in String::from_utf8_lossy(&theirs).lines() {
            // Name, samples, share of samples, share of time, min, max, mean.
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|w| w.ends_with('%')).filter(|n| *n >= 2) else { continue };
            if words[at - 1].parse::<u64>().is_err() {
                continue;
            }
            let (name, samples) = (words[..at - 1].join(" "), words[at - 1]);
            let row = ours.iter().find(|r| r[0] == name);
            let row = row.unwrap_or_else(|| panic!("{sample}: perf has {name}, stat has {ours:?}"));
            assert_eq!(row[1], samples, "{sample}: {name}");
            for (ours, theirs) in row[2..].iter().zip(&words[at + 2..]) {
                let ours: f64 = ours.parse().expect("nanoseconds");
                assert!((ours - micros(theirs)).abs() <= 10.0, "{sample}: {name}: {ours} ns, perf {theirs}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 6, "{compared} reasons were compared");
}
