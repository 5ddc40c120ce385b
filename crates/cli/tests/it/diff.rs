//! `mmuscope diff`: runs of one kernel, of two kernels, formats, exit status.

use crate::{run, stdout};
use serde_json::Value;

const RUNS: [&str; 4] = [
    "samples/6.1-npt/trace.txt.zst",
    "samples/6.1-npt/trace.dat",
    "samples/6.1-npt/perf.data.zst",
    "samples/6.1-npt/perf-pipe.data.zst",
];
const NEWER: &str = "samples/7.3-npt/trace.txt.zst";

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["diff", "--format", "json"], args].concat())).expect("JSON")
}

fn changed(v: &Value) -> Vec<String> {
    let all = v["measures"].as_array().expect("measures").iter();
    all.filter(|m| m["verdict"] == "change")
        .map(|m| {
            let text = |k: &str| m[k].as_str().expect("a text").to_owned();
            format!("{} {} {}", text("group"), text("name"), text("what"))
        })
        .collect()
}

/// The four recordings are different runs of one workload on one kernel.
#[test]
fn runs_of_one_kernel_are_no_change() {
    for (n, a) in RUNS.iter().enumerate() {
        for b in &RUNS[n + 1..] {
            let v = json(&[a, b]);
            assert_eq!((&v["changes"], changed(&v)), (&0.into(), vec![]), "{a} and {b}");
            assert_eq!(run(&["diff", a, b, "--fail-on-change"]).status.code(), Some(0));
        }
    }
    assert!(stdout(&["diff", RUNS[0], RUNS[1]]).starts_with("no change\n"));
}

/// Since 7.2 the link to a page-table page is cut after its entries are torn down (`layouts/traces.toml`), so that all zaps that 6.1 shows by the
/// link are shown by `kvm_mmu_prepare_zap_page`.
#[test]
fn two_kernels_differ() {
    let sides = [&RUNS[..], &["--", NEWER]].concat();
    let v = json(&sides);
    assert!(changed(&v).iter().any(|c| c == "zap unlinked count"), "{:?}", changed(&v));
    let all = [&["diff"][..], &sides].concat();
    assert_eq!(run(&all).status.code(), Some(0));
    assert_eq!(run(&[&["diff", "--fail-on-change"][..], &sides].concat()).status.code(), Some(1));
    let text = stdout(&all);
    assert!(text.starts_with(&format!("{} changes\n", v["changes"])), "{text}");
}

/// What is said to be mapped at the end is what the kernel's memory held: the leaves of both hosts, counted in their truth files.
#[test]
fn what_is_mapped_at_the_end_is_what_memory_held() {
    let v = json(&[RUNS[0], NEWER]);
    let all = v["measures"].as_array().expect("measures").iter();
    let of = |state: &str, side: &str| -> f64 {
        all.clone()
            .filter(|m| m["group"] == "memory" && m["name"].as_str().is_some_and(|n| n.starts_with(state)))
            .map(|m| m[side][0]["value"].as_f64().expect("a number"))
            .sum()
    };
    for (side, folder) in [("a", "6.1-npt"), ("b", "7.3-npt")] {
        let truth =
            std::fs::read_to_string(crate::root().join("samples").join(folder).join("truth-leaves.csv"));
        let truth = truth.expect("the sample has its truth");
        let leaves = |level: &str| truth.lines().filter(|l| l.starts_with(level)).count() as f64;
        let ours = |level: &str| of(&format!("{level} present"), side) + of(&format!("{level} mmio"), side);
        assert_eq!((ours("4K"), ours("2M")), (leaves("1,"), leaves("2,")), "{folder}");
    }
}

#[test]
fn sides_are_named_by_dashes() {
    let v = json(&[RUNS[0], RUNS[1], "--", RUNS[2], RUNS[3]]);
    assert_eq!((v["a"].as_array().map(Vec::len), v["b"].as_array().map(Vec::len)), (Some(2), Some(2)));
    assert!(v["rule"].as_str().is_some_and(|r| r.starts_with("several runs")));
    for wrong in [
        &["diff", RUNS[0]][..],
        &["diff", RUNS[0], RUNS[1], RUNS[2]],
        &["diff", RUNS[0], "samples/none"],
        &["diff", RUNS[0], "--", RUNS[1], "--fail-on-change"],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn every_alignment_has_points_and_every_face_the_verdict() {
    for align in ["progress", "marker", "time"] {
        let v = json(&[RUNS[0], RUNS[1], "--align", align]);
        assert!(v["course"].as_array().is_some_and(|c| c.len() > 10), "{align}: {}", v["course"]);
    }
    let marked = json(&[RUNS[0], RUNS[1], "--align", "marker"]);
    let labels = marked["course"].as_array().expect("points").iter();
    assert!(labels.clone().any(|p| p["label"] == "mmio"), "{marked}");
    // At the end of a phase in which nothing is zapped, all frames that it touched are there on both sides.
    assert!(labels.clone().any(|p| p["present"][0] == p["present"][1] && p["present"][0] != 0));
    let face = |f: &str| stdout(&["diff", RUNS[0], NEWER, "--format", f]);
    let (html, md, text) = (face("html"), face("md"), face("text"));
    let said = text.lines().next().expect("a verdict");
    assert!(html.contains(said) && md.contains(said), "{said}");
    assert!(html.len() < 200_000 && !html.contains("<script") && !html.contains("http://"), "{}", html.len());
}
