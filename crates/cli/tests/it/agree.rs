//! Every number that two faces show of one sample, and what its raw events say: `cargo xtask agree`.

use super::root;
use mmuscope_agree::Numbers;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A recording of each sample: the one that its truth belongs to.
fn recordings() -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(root().join("samples")).expect("samples");
    let mut out: Vec<PathBuf> = dirs
        .filter_map(|d| {
            let dir = d.ok()?.path();
            ["trace.txt.zst", "trace.dat"].map(|f| dir.join(f)).into_iter().find(|f| f.is_file())
        })
        .collect();
    out.sort();
    out
}

#[test]
fn every_face_says_the_same_of_every_sample() {
    let mmuscope = Path::new(env!("CARGO_BIN_EXE_mmuscope"));
    let files = recordings();
    assert!(files.iter().any(|f| f.ends_with("linux-boot/trace.dat")), "{files:?}");
    assert!(files.len() >= 12, "{} samples", files.len());
    let next = Mutex::new(files.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                loop {
                    let Some(file) = next.lock().expect("no panic").next() else { break };
                    let said = mmuscope_agree::ask(mmuscope, file).expect("the program answers");
                    if file.ends_with("linux-boot/trace.dat") {
                        the_mmio_of_a_boot(&said);
                    }
                    assert!(said.compared() >= 40, "{}: {} numbers", file.display(), said.compared());
                    let found = said.differences();
                    let mut wrong = wrong.lock().expect("no panic");
                    wrong.extend(found.iter().map(|d| format!("{}: {d}", file.display())));
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sums of linux-boot that other parts of its trace confirm: 1,495 faults with reserved bits and 11 MMIO SPTEs made are the 1,506
/// accesses; of 1,774 `kvm_mmio` 268 are reads that user space answers, each of them two events.
fn the_mmio_of_a_boot(said: &Numbers) {
    let of = |what: &str| said.of(what).map(str::to_owned);
    assert_eq!(of("MMIO accesses").as_deref(), Some("1506"));
    assert_eq!(of("MMIO faults").as_deref(), Some("1506"));
    assert_eq!(of("faults mmio-hit").as_deref(), Some("1495"));
    assert_eq!(of("faults mmio-installed").as_deref(), Some("11"));
    assert_eq!(of("faults emulated"), None);
    assert_eq!(of("events kvm_mmio").as_deref(), Some("1774"));
}
