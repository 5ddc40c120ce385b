//! `mmuscope state --at end` against what the kernel's memory held when the trace ended.

use crate::{Csv, hex, root};
use std::collections::BTreeMap;
use std::fs;

/// Level and first frame to value.
type Leaves = BTreeMap<(u8, u64), u64>;

/// Samples with the live tree of the TDP MMU.
const WITH_TRUTH: [&str; 6] =
    ["6.1-npt", "6.1-npt-nommio", "6.1-ept-ad", "6.1-ept-noad", "6.18-npt", "7.3-npt"];

fn truth(sample: &str) -> Leaves {
    let text =
        fs::read_to_string(root().join(format!("samples/{sample}/truth-leaves.csv"))).expect("the truth");
    let leaf = |l: &str| {
        let f: Vec<&str> = l.split(',').collect();
        ((f[0].parse().expect("a level"), hex(f[1])), hex(f[2]))
    };
    text.lines().map(leaf).collect()
}

/// A mask variable of the kernel that was recorded, read from its memory.
fn mask(sample: &str, name: &str) -> u64 {
    let text = fs::read_to_string(root().join(format!("samples/{sample}/kvars.txt")))
        .expect("the kernel's variables");
    let line = text
        .lines()
        .find(|l| l.starts_with(&format!("{name} ok ")))
        .unwrap_or_else(|| panic!("{sample} has no {name}"));
    u64::from_str_radix(line.rsplit(' ').next().expect("a value"), 16).expect("hex")
}

fn leaves(args: &[&str]) -> Leaves {
    let csv = Csv::of(&[&["state"], args, &["--at", "end"]].concat());
    let mut out = Leaves::new();
    for [as_id, level, gfn, state, spte] in csv.select(["as_id", "level", "gfn", "state", "spte"]) {
        assert_eq!(as_id, "0", "no guest of these samples uses SMM");
        if state == "present" || state == "mmio" {
            let before = out.insert((level.parse().expect("a level"), hex(gfn)), hex(spte));
            assert_eq!(before, None, "level {level} gfn {gfn} is listed twice");
        }
    }
    out
}

#[test]
fn state_at_the_end_is_what_the_kernel_held() {
    for sample in WITH_TRUTH {
        // The CPU sets Accessed and Dirty without an event.
        let silent = mask(sample, "shadow_accessed_mask") | mask(sample, "shadow_dirty_mask");
        let (ours, kernels) = (leaves(&[&format!("samples/{sample}/trace.txt.zst")]), truth(sample));
        assert!(kernels.len() > 300, "{sample}: the truth was read");
        let missing: Vec<_> = kernels.iter().filter(|(k, _)| !ours.contains_key(k)).collect();
        let extra: Vec<_> = ours.iter().filter(|(k, _)| !kernels.contains_key(k)).collect();
        let differ: Vec<_> = kernels
            .iter()
            .filter_map(|(k, v)| ours.get(k).filter(|o| *o | silent != v | silent).map(|o| (k, v, o)))
            .collect();
        assert!(
            missing.is_empty() && extra.is_empty() && differ.is_empty(),
            "{sample}: missing {missing:x?}\nextra {extra:x?}\ndiffer (where, kernel, ours) {differ:x?}"
        );
    }
}

/// The page-table pages of a sample as the kernel held them, by address.
fn pages(sample: &str) -> BTreeMap<u64, Vec<u64>> {
    let packed = fs::read(root().join(format!("samples/{sample}/ptpages.bin.zst"))).expect("the pages");
    let bytes = zstd::decode_all(&packed[..]).expect("zstd");
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().expect("eight bytes"));
    let record = |r: &[u8]| {
        let words: Vec<u64> = r.chunks_exact(8).map(word).collect();
        (words[0], words[1..].to_vec())
    };
    bytes.chunks_exact(8 * 513).map(record).collect()
}

#[test]
fn with_probes_shadow_paging_is_known_to_the_last_entry() {
    let sample = "6.1-shadow64-probes";
    let capture = format!("samples/{sample}/mmuscope.perf.data");
    let silent = mask(sample, "shadow_accessed_mask") | mask(sample, "shadow_dirty_mask");
    let pages = pages(sample);
    let csv = Csv::of(&["state", &capture, "--at", "end"]);
    let (mut present, mut mmio) = (0, 0);
    for [state, spte, sptep, certainty, gfn] in csv.select(["state", "spte", "sptep", "certainty", "gfn"]) {
        if state != "present" && state != "mmio" {
            continue;
        }
        assert!(["exact", "observed"].contains(&certainty), "gfn {gfn}: {certainty}");
        *(if state == "present" { &mut present } else { &mut mmio }) += 1;
        let (spte, sptep) = (hex(spte), hex(sptep));
        let held = pages[&(sptep & !0xfff)][(sptep & 0xfff) as usize / 8];
        assert_eq!(held | silent, spte | silent, "gfn {gfn} at {sptep:#x}");
    }
    let text = fs::read_to_string(root().join(format!("samples/{sample}/kvmstats.txt"))).expect("counters");
    let counter = |name: &str| -> u64 {
        text.lines()
            .find_map(|l| l.strip_prefix(&format!("{name}:"))?.trim().parse().ok())
            .expect("the counter")
    };
    assert_eq!(present, counter("pages_4k") + counter("pages_2m") + counter("pages_1g"));
    assert!(mmio > 0);
    // Nothing of it is the snapshots' doing: what they read was known.
    let said = crate::stdout(&["summary", &capture]);
    assert_eq!(said.matches("the replay equals the kernel's memory").count(), 2, "{said}");
    assert!(!said.contains("that were not known"), "{said}");
}

#[test]
fn present_counts_are_kvms_own() {
    for sample in WITH_TRUTH {
        let text = fs::read_to_string(root().join(format!("samples/{sample}/kvmstats.txt")))
            .expect("KVM's counters");
        let counter = |name: &str| -> usize {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).expect("the counter");
            line.parse().expect("a number")
        };
        let csv =
            Csv::of(&["state", &format!("samples/{sample}/trace.txt.zst"), "--where", "state == present"]);
        let of_level = |level: &str| csv.select(["level"]).iter().filter(|[l]| *l == level).count();
        assert_eq!(
            (of_level("1"), of_level("2"), of_level("3")),
            (counter("pages_4k"), counter("pages_2m"), counter("pages_1g")),
            "{sample}"
        );
    }
}

#[test]
fn permissions_are_the_letters_the_kernel_printed() {
    // The kernel prints (rwxu) of what it installed; on EPT there is no user bit.
    for (sample, user) in [("6.1-npt", true), ("6.1-ept-ad", false), ("7.3-npt", true)] {
        let trace = format!("samples/{sample}/trace.txt.zst");
        let events = Csv::of(&["events", &trace, "--event", "kvm_mmu_set_spte"]);
        let printed: BTreeMap<(&str, &str, &str), [&str; 3]> = events
            .select(["level", "gfn", "spte", "r", "w", "x"])
            .into_iter()
            .map(|[level, gfn, spte, r, w, x]| ((level, gfn, spte), [r, w, x]))
            .collect();
        let spans = Csv::of(&["spans", &trace, "--where", "state == present"]);
        let values: Vec<_> = spans.select(["level", "gfn", "spte"]);
        let state = Csv::of(&["state", &trace, "--where", "state == present"]);
        let mut compared = 0;
        for [level, gfn, spte, r, w, x, u] in state.select(["level", "gfn", "spte", "r", "w", "x", "u"]) {
            assert_eq!(u.is_empty(), !user, "{sample}: the user bit");
            if let Some(letters) = printed.get(&(level, gfn, spte)) {
                assert_eq!([r, w, x], *letters, "{sample}: level {level} gfn {gfn} spte {spte}");
                compared += 1;
            }
        }
        assert!(compared > 100 && values.len() > compared, "{sample}: only {compared} compared");
    }
}

#[test]
fn the_state_of_a_moment_is_the_end_of_the_trace_that_stops_there() {
    // A line of text is an event: the trace up to a moment is its head.
    let dir = tempfile::tempdir().expect("a directory");
    let whole = root().join("samples/6.1-npt/trace.txt.zst");
    let text = zstd::decode_all(fs::File::open(&whole).expect("the sample")).expect("zstd");
    let text = String::from_utf8(text).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    for part in [3, 7] {
        // Cut where time goes on: events of one microsecond belong to one moment.
        let stamp =
            |l: &str| l.split_whitespace().find(|w| w.ends_with(':') && w.contains('.')).map(str::to_string);
        let mut cut = lines.len() * part / 10;
        while stamp(lines[cut]) == stamp(lines[cut - 1]) {
            cut += 1;
        }
        let head = dir.path().join("head.txt");
        fs::write(&head, lines[..cut].join("\n") + "\n").expect("a file");
        let head = head.to_str().expect("a path").to_string();
        let last: String =
            Csv::of(&["events", &head, "--absolute"]).select(["ts"]).last().expect("events")[0].to_string();
        let whole = whole.to_str().expect("a path");
        let columns = ["as_id", "level", "gfn", "state", "spte"];
        let at = Csv::of(&["state", whole, "--absolute", "--at", &last]);
        let end = Csv::of(&["state", &head, "--at", "end"]);
        assert!(!end.rows.is_empty());
        assert_eq!(at.select(columns), end.select(columns), "cut at line {cut}");
    }
}
