//! The contract with scripts: column names, notations, types.

use crate::{Csv, stdout};
use serde_json::Value;

const TRACE: &str = "samples/6.1-npt/trace.txt.zst";

/// Names that are promised, in their order; more may follow them.
const PROMISED: [(&[&str], &str); 5] = [
    (&["state", "--at", "end"], "vm,as_id,level,gfn,state,spte,pfn,size,r,w,x,u,since,certainty,sptep"),
    (&["events"], "ts,cpu,tid,pid,comm,event,vm,vcpu,as_id,level,gfn,old_spte,new_spte,sptep,error_code"),
    (&["spans"], "vm,as_id,level,gfn,state,spte,start,end,certainty,opened_by,closed_by"),
    (
        &["stat"],
        "vm,vcpu,kind,name,count,total,min,mean,p50,p90,p99,max,measured,vmm,accesses,gfn,isa,reason,tid",
    ),
    (&["faults"], "ts,vm,vcpu,tid,gfn,gva,access,outcome,duration,level,rip"),
];

#[test]
fn columns_have_their_promised_names() {
    for (command, names) in PROMISED {
        let csv = Csv::of(&[command, &[TRACE, "-n", "1"]].concat());
        let promised: Vec<&str> = names.split(',').collect();
        if command[0] == "events" {
            assert!(
                promised.iter().all(|n| csv.names.iter().any(|c| c == n)),
                "{command:?}: {:?}",
                csv.names
            );
        } else {
            assert_eq!(csv.names[..promised.len()], promised, "{command:?}");
        }
        let json: Value =
            serde_json::from_str(&stdout(&[command, &[TRACE, "-n", "1", "--format", "json"]].concat()))
                .expect("JSON");
        let row = json[0].as_object().expect("an object");
        assert!(
            csv.names.iter().all(|n| row.contains_key(n)) && row.len() == csv.names.len(),
            "{command:?}: {row:?}"
        );
    }
}

#[test]
fn frames_and_values_are_hex_and_times_count_from_the_first_event() {
    let csv = Csv::of(&["events", TRACE, "--event", "kvm_tdp_mmu_spte_changed", "-n", "1000"]);
    for [gfn, old, new] in csv.select(["gfn", "old_spte", "new_spte"]) {
        for v in [gfn, old, new] {
            assert!(
                v.starts_with("0x") && v[2..].chars().all(|c| c.is_ascii_hexdigit() && !c.is_uppercase()),
                "{v}"
            );
        }
    }
    assert_eq!(Csv::of(&["events", TRACE, "-n", "1"]).select(["ts"]), [["0"]]);
    // The text says 4.296383 or the like: microseconds.
    let absolute = Csv::of(&["events", TRACE, "-n", "1", "--absolute"]);
    let [ts] = absolute.select(["ts"])[0];
    assert!(ts.ends_with("000") && ts.len() >= 9, "{ts}");
}

/// A row without what is null, as JSON lines have it.
fn sparse(row: &Value) -> Value {
    let all = row.as_object().expect("an object").iter();
    all.filter(|(_, v)| !v.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn the_same_rows_in_every_text_format() {
    for args in [
        ["state", TRACE, "--where", "level == 2"],
        ["events", TRACE, "-n", "2000"],
        ["spans", TRACE, "--where", "level == 2"],
        ["faults", TRACE, "-n", "500"],
    ] {
        let csv = Csv::of(&args);
        assert!(csv.rows.len() > 8);
        let in_format = |f| stdout(&[&args[..], &["--format", f]].concat());
        let json: Vec<Value> = serde_json::from_str(&in_format("json")).expect("JSON");
        let lines: Vec<Value> =
            in_format("jsonl").lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        // In one array every object has every key; on lines of their own, an absent key is a null.
        assert!(json.iter().all(|row| csv.names.iter().all(|n| row.get(n).is_some())), "{args:?}");
        assert!(lines.iter().all(|row| row.as_object().is_some_and(|o| o.values().all(|v| !v.is_null()))));
        assert_eq!(json.iter().map(sparse).collect::<Vec<_>>(), lines, "{args:?}");
        assert_eq!(json.len(), csv.rows.len());
        for (row, object) in csv.rows.iter().zip(&json) {
            for (name, cell) in csv.names.iter().zip(row) {
                let value = match &object[name] {
                    Value::Null => String::new(),
                    Value::String(s) => s.clone(),
                    other => other.to_string(),
                };
                assert_eq!(*cell, value, "{name}");
            }
        }
    }
}

#[test]
fn filters_and_expressions_choose_the_same_rows() {
    let by_option =
        Csv::of(&["events", TRACE, "--event", "kvm_mmu_set_spte", "--gfn", "0x100-0x1ff", "--cpu", "0"]);
    let by_expression = Csv::of(&[
        "events",
        TRACE,
        "--where",
        "event == kvm_mmu_set_spte and gfn >= 0x100 and gfn < 0x200 and cpu == 0 and level == 1",
    ]);
    let of_level_1: Vec<_> =
        by_option.select(["ts", "level"]).into_iter().filter(|[_, l]| *l == "1").map(|[ts, _]| ts).collect();
    assert!(of_level_1.len() > 100);
    assert_eq!(of_level_1, by_expression.select(["ts"]).into_iter().map(|[ts]| ts).collect::<Vec<_>>());
}

#[test]
fn a_moment_may_be_named_by_its_mark() {
    let marks = Csv::of(&["events", TRACE, "--event", "tracing_mark_write", "--event", "marker"]);
    let at = marks.select(["ts", "text"]);
    assert!(at.len() > 10, "the workload marks its phases: {:?}", marks.rows);
    let mmio: u64 = at.iter().find(|[_, t]| *t == "mmio").expect("a phase")[0].parse().expect("a time");
    let thp: u64 = at.iter().find(|[_, t]| *t == "thp").expect("a phase")[0].parse().expect("a time");
    let inside = Csv::of(&["events", TRACE, "--from", "mmio", "--to", "mmio:end"]);
    let times: Vec<u64> = inside.select(["ts"]).iter().map(|[t]| t.parse().expect("a time")).collect();
    assert_eq!(times.first(), Some(&mmio));
    assert!(times.last().is_some_and(|t| *t < thp) && times.len() > 50);
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&["completions", shell]).contains("mmuscope"), "{shell}");
    }
}
