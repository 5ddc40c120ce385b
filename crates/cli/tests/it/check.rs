//! `mmuscope check`: exit status, formats, baseline.

use crate::{run, stdout};
use std::fs;

const BOOT: &str = "samples/linux-boot/trace.dat";

fn code(args: &[&str]) -> Option<i32> {
    run(args).status.code()
}

#[test]
fn the_exit_status_says_what_is_denied() {
    assert_eq!(code(&["check", BOOT]), Some(0));
    assert_eq!(code(&["check", BOOT, "--deny", "warning"]), Some(0));
    assert_eq!(code(&["check", BOOT, "--deny", "info"]), Some(1));
    let allow = ["zap-all", "huge-lost", "mmio-hot", "vm-torn-down"].iter().flat_map(|id| ["--allow", id]);
    let all: Vec<&str> = ["check", BOOT, "--deny", "info"].into_iter().chain(allow).collect();
    assert_eq!(code(&all), Some(0));
    assert_eq!(code(&["check", BOOT, "--allow", "no-such-id"]), Some(2));
    assert_eq!(code(&["check", "samples/no-such-file"]), Some(2));
    let nommio = "samples/6.1-npt-nommio/trace.txt.zst";
    assert_eq!(code(&["check", nommio, "--deny", "warn"]), Some(1));
}

#[test]
fn what_is_known_is_not_denied() {
    let dir = tempfile::tempdir().expect("a folder");
    let known = dir.path().join("known.json");
    let known = known.to_str().expect("a name");
    assert_eq!(code(&["check", BOOT, "-o", known]), Some(0));
    assert_eq!(code(&["check", BOOT, "--deny", "info", "--baseline", known]), Some(0));
    let text = stdout(&["check", BOOT, "--deny", "info", "--baseline", known]);
    assert_eq!(text.matches("[known]").count(), 4, "{text}");
    // A finding that the earlier check did not have, or had as less severe, is denied.
    let full = fs::read_to_string(known).expect("the baseline");
    fs::write(known, full.replace("zap-all", "zap-none")).expect("written");
    assert_eq!(code(&["check", BOOT, "--deny", "info", "--baseline", known]), Some(1));
    let other = "samples/6.1-npt-nommio/trace.txt.zst";
    assert_eq!(code(&["check", other, "-o", known]), Some(0));
    let full = fs::read_to_string(known).expect("the baseline");
    fs::write(known, full.replace("\"warning\"", "\"info\"")).expect("written");
    assert_eq!(code(&["check", other, "--deny", "warning", "--baseline", known]), Some(1));
    fs::write(known, "{}").expect("written");
    assert_eq!(code(&["check", BOOT, "--baseline", known]), Some(2));
}

#[test]
fn formats_agree() {
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&["check", BOOT, "-f", "json"])).expect("JSON");
    let sarif: serde_json::Value =
        serde_json::from_str(&stdout(&["check", BOOT, "-f", "sarif"])).expect("JSON");
    let ids = |v: &serde_json::Value, id: &str| -> Vec<String> {
        v.as_array().expect("a list").iter().map(|f| f[id].as_str().expect("an id").to_owned()).collect()
    };
    let found = ids(&json["findings"], "id");
    assert_eq!(found, ["huge-lost", "mmio-hot", "vm-torn-down", "zap-all"]);
    assert_eq!(ids(&sarif["runs"][0]["results"], "ruleId"), found);
    assert_eq!(
        (&sarif["version"], &sarif["runs"][0]["results"][0]["level"]),
        (&"2.1.0".into(), &"note".into())
    );
    let rules = ids(&sarif["runs"][0]["tool"]["driver"]["rules"], "id");
    for r in sarif["runs"][0]["results"].as_array().expect("a list") {
        let index = r["ruleIndex"].as_u64().expect("a number") as usize;
        assert_eq!(rules[index], r["ruleId"]);
    }
    let junit = run(&["check", BOOT, "-f", "junit", "--deny", "info"]);
    assert_eq!(junit.status.code(), Some(1));
    let junit = String::from_utf8(junit.stdout).expect("UTF-8");
    assert!(junit.contains(&format!("tests=\"{}\" failures=\"4\"", rules.len())), "{junit}");
    assert_eq!(junit.matches("<failure ").count(), 4);
    assert_eq!(junit.matches("<testcase ").count(), rules.len());
    // The same findings again, line for line.
    assert_eq!(stdout(&["check", BOOT, "--explain"]), stdout(&["check", BOOT, "--explain"]));
}
