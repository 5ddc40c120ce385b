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

/// A capture of the recorder as single records, uncompressed: type and bytes.
fn records(capture: &[u8]) -> Vec<(u32, Vec<u8>)> {
    fn number(b: &[u8]) -> usize {
        b.iter().rev().fold(0, |n, x| n << 8 | usize::from(*x))
    }
    fn split(mut b: &[u8], out: &mut Vec<(u32, Vec<u8>)>) {
        const TRACING_DATA: u32 = 66;
        const COMPRESSED: u32 = 81;
        while let Some(head) = b.get(..8) {
            let kind = number(&head[..4]) as u32;
            let mut size = number(&head[6..8]);
            if kind == TRACING_DATA {
                size += number(&b[8..12]).next_multiple_of(8);
            }
            let (record, rest) = b.split_at(size);
            if kind == COMPRESSED {
                // The recorder makes each record a frame of its own.
                split(&zstd::decode_all(&record[8..]).expect("a frame"), out);
            } else {
                out.push((kind, record.to_vec()));
            }
            b = rest;
        }
    }
    let mut out = Vec::new();
    split(&capture[16..], &mut out);
    out
}

/// The places of the samples of one event, found by its ids in the head of the capture.
fn samples_of(records: &[(u32, Vec<u8>)], event: &str) -> Vec<usize> {
    const SAMPLE: u32 = 9;
    const ATTR: u32 = 64;
    const UPDATE: u32 = 78;
    let named = |r: &[u8]| r[24..].starts_with(event.as_bytes()) && r[24 + event.len()] == 0;
    let first =
        records.iter().find(|(k, r)| *k == UPDATE && named(r)).map(|(_, r)| &r[16..24]).expect("the event");
    let ids = records.iter().filter(|(k, _)| *k == ATTR).find_map(|(_, r)| {
        let attr = u32::from_le_bytes(r[12..16].try_into().ok()?) as usize;
        let ids: Vec<&[u8]> = r[8 + attr..].chunks_exact(8).collect();
        ids.contains(&first).then_some(ids)
    });
    let ids = ids.expect("its ids");
    let one = |(i, (k, r)): (usize, &(u32, Vec<u8>))| (*k == SAMPLE && ids.contains(&&r[8..16])).then_some(i);
    records.iter().enumerate().filter_map(one).collect()
}

#[test]
fn one_event_that_is_missing_is_seen_in_the_snapshot_at_the_end() {
    let capture =
        fs::read(crate::root().join("samples/6.1-shadow64-probes/mmuscope.perf.data")).expect("the sample");
    let records = records(&capture);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cut.perf.data");
    let check = |without: &[usize]| {
        let kept = records.iter().enumerate().filter(|(i, _)| !without.contains(i)).map(|(_, r)| &r.1[..]);
        fs::write(&file, [&capture[..16]].into_iter().chain(kept).collect::<Vec<_>>().concat())
            .expect("written");
        let out = run(&["check", &file.to_string_lossy(), "--only", "snapshot-differs"]);
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, said) = check(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("the replay equals the kernel's memory: 511 of 511 entries"), "{said}");
    // The kernel emptied an entry, and no event says so: the replay claims what memory no longer holds.
    let zaps = samples_of(&records, "probe:mmu_spte_clear_track_bits");
    let (code, said) = check(&zaps[zaps.len() - 1..]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("THE REPLAY DIFFERS from the kernel's memory: 1 of 512 entries"), "{said}");
    assert!(said.contains("snapshot-differs  VM 0 gfn 0x60f: 1 of 512 entries"), "{said}");
    // What was mapped without an event was not known, and nothing false was claimed of it.
    let installs = samples_of(&records, "kvmmmu:kvm_mmu_set_spte");
    let (code, said) = check(&installs[installs.len() - 1..]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("510 of 510 entries; 1 entry that was not known is now"), "{said}");
}
