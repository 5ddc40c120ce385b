//! Runs every file of the fuzzers' corpus through every target.

use std::path::PathBuf;

#[test]
fn replay() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut n = 0;
    for dir in std::fs::read_dir(&corpus).unwrap().flatten() {
        let name = dir.file_name().into_string().unwrap();
        assert!(mmuscope_trace::fuzz::TARGETS.iter().any(|t| t.0 == name), "corpus of no target: {name}");
        for f in std::fs::read_dir(dir.path()).unwrap().flatten() {
            let bytes = std::fs::read(f.path()).unwrap();
            for (_, target) in mmuscope_trace::fuzz::TARGETS {
                target(&bytes);
            }
            n += 1;
        }
    }
    assert!(n >= 20, "{n} files in {}", corpus.display());
}
