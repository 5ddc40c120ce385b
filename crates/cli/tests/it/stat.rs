//! `mmuscope stat`: rows of VMs and of vCPUs, windows, what is refused.

use crate::{Csv, run, stdout};
use std::collections::BTreeMap;

const TRACE: &str = "samples/6.1-npt/trace.txt.zst";

/// Count and sum of times by kind and name.
fn sums(args: &[&str]) -> BTreeMap<(String, String), (u64, u64)> {
    let csv = Csv::of(&[&["stat", TRACE], args].concat());
    let mut out: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for [kind, name, count, total] in csv.select(["kind", "name", "count", "total"]) {
        let n = |text: &str| text.parse::<u64>().unwrap_or(0);
        let sum = out.entry((kind.to_owned(), name.to_owned())).or_default();
        *sum = (sum.0 + n(count), sum.1 + n(total));
    }
    out
}

#[test]
fn vcpus_add_up_to_their_vm() {
    let whole = sums(&[]);
    assert!(whole.len() > 15, "{whole:?}");
    assert_eq!(sums(&["--by", "vcpu"]), whole);
    // Zaps are a VM's; everything else is one vCPU's or the other's.
    let mut both = sums(&["--vcpu", "0"]);
    for (key, (count, total)) in sums(&["--vcpu", "1"]) {
        let sum = both.entry(key).or_default();
        *sum = (sum.0 + count, sum.1 + total);
    }
    let vcpus: BTreeMap<_, _> =
        whole.into_iter().filter(|(k, _)| !["zap", "zap-for", "huge"].contains(&k.0.as_str())).collect();
    assert_eq!(both, vcpus);
}

/// Two windows that meet hold what the whole holds.
#[test]
fn windows_add_up() {
    let whole = sums(&[]);
    let mut both = sums(&["--to", "300ms"]);
    for (key, (count, total)) in sums(&["--from", "300000001ns"]) {
        let sum = both.entry(key).or_default();
        *sum = (sum.0 + count, sum.1 + total);
    }
    for (key, (count, total)) in &whole {
        let (c, t) = both.get(key).copied().unwrap_or_default();
        // A stretch of time that the border cuts counts on both sides, and a nanosecond lies between them.
        let slack = if key.0 == "time" { 2 } else { 0 };
        assert!(c >= *count && c <= count + slack, "{key:?}: {c} of {count}");
        assert!(t.abs_diff(*total) <= slack, "{key:?}: {t} of {total}");
    }
}

#[test]
fn what_the_trace_does_not_have_is_refused() {
    for args in [["--vcpu", "7"], ["--vm", "3"], ["--from", "1h"], ["--by", "cpu"]] {
        let out = run(&[&["stat", TRACE], &args[..]].concat());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
    }
    let said = run(&["stat", TRACE, "--vcpu", "7"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("the trace has 0, 1"));
}

#[test]
fn people_and_scripts_see_the_same() {
    let text = stdout(&["stat", TRACE]);
    for ((kind, name), (count, _)) in sums(&[]) {
        if kind == "fault" {
            let line = text.lines().find(|l| l.trim_start().starts_with(&format!("{name} ")));
            let line = line.unwrap_or_else(|| panic!("{name} in {text}"));
            let shown = line.split_whitespace().nth(1).map(|n| n.replace(',', ""));
            assert_eq!(shown, Some(count.to_string()), "{line}");
        }
    }
}
