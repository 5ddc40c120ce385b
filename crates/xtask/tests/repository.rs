//! Rules of the repository that the compiler cannot check: which crate may depend on which, where `unsafe` may be, which dependencies
//! are banned, and which words the glossary rules out.

#[path = "../../cli/tests/it/ends.rs"]
mod ends;

use mmuscope_needs::NEEDS;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// ring or file → trace → replay → analysis → cli, report, ui; spte is a dictionary on the side, units a style guide. See ARCHITECTURE.md.
const EDGES: [(&str, &[&str]); 14] = [
    ("mmuscope-units", &[]),
    ("mmuscope-spte", &[]),
    ("mmuscope-trace", &[]),
    ("mmuscope-replay", &["mmuscope-units", "mmuscope-spte", "mmuscope-trace"]),
    ("mmuscope-analysis", &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay"]),
    (
        "mmuscope-report",
        &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay", "mmuscope-analysis"],
    ),
    (
        "mmuscope-ui",
        &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay", "mmuscope-analysis"],
    ),
    ("mmuscope-collector", &["mmuscope-units"]),
    (
        "mmuscope-cli",
        &[
            "mmuscope-units",
            "mmuscope-spte",
            "mmuscope-trace",
            "mmuscope-replay",
            "mmuscope-analysis",
            "mmuscope-report",
            "mmuscope-collector",
            "mmuscope-ui",
        ],
    ),
    ("mmuscope-lab", &[]),
    // This crate must not depend on the replay, so that its counts are independent.
    ("mmuscope-agree", &["mmuscope-trace"]),
    ("mmuscope-fuzzing", &["mmuscope-spte", "mmuscope-trace", "mmuscope-replay"]),
    // Tests depend on it, which is not counted here, and the chores.
    ("mmuscope-needs", &[]),
    ("mmuscope-xtask", &["mmuscope-needs"]),
];

/// Libraries that only one crate may depend on, which keeps the build of the others light.
const PRIVATE: [(&str, &[&str]); 8] = [
    ("polars-arrow", &["mmuscope-analysis"]),
    ("polars-error", &["mmuscope-analysis"]),
    ("polars-parquet", &["mmuscope-analysis"]),
    ("egui", &["mmuscope-ui"]),
    ("eframe", &["mmuscope-ui"]),
    ("winit", &["mmuscope-ui"]),
    ("perf-event-open-sys", &["mmuscope-collector"]),
    ("clap", &["mmuscope-cli"]),
];

/// A tool that runs as root links no network client and no TLS stack; polars would bring them in with the wrong feature.
const NEVER: [&str; 8] =
    ["reqwest", "hyper", "object_store", "rustls", "openssl", "openssl-sys", "native-tls", "aws-lc-rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/xtask is two levels down")
        .to_path_buf()
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = ends::output(Command::new(cargo).args(args).current_dir(root())).expect("cargo runs");
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("cargo prints text")
}

/// Package name → names of its dependencies, without those that only its tests use.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let v: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"]))
        .expect("cargo metadata prints JSON");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let mut all = BTreeMap::new();
    for p in v["packages"].as_array().expect("packages") {
        let deps = p["dependencies"].as_array().expect("dependencies");
        let deps =
            deps.iter().filter(|d| d["kind"].as_str() != Some("dev")).map(|d| text(&d["name"])).collect();
        all.insert(text(&p["name"]), deps);
    }
    all
}

#[test]
fn data_goes_one_way() {
    let all = dependencies();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.into_iter().collect();
    for (name, deps) in &all {
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no place in the house: add it to EDGES"));
        for d in deps.iter().filter(|d| d.starts_with("mmuscope-")) {
            assert!(may.contains(&d.as_str()), "{name} must not depend on {d}: ARCHITECTURE.md says why");
        }
    }
    assert_eq!(all.len(), EDGES.len(), "a package of EDGES is gone: {:?}", all.keys());
}

#[test]
fn heavy_and_privileged_libraries_stay_in_their_crate() {
    for (name, deps) in dependencies() {
        for (library, owners) in PRIVATE {
            assert!(
                !deps.contains(library) || owners.contains(&name.as_str()),
                "{name} must not depend on {library}: only {owners:?} may"
            );
        }
    }
}

#[test]
fn no_network_client_comes_in() {
    // Cargo.lock also lists dependencies that no feature enables; the tree lists what is built.
    let tree =
        cargo(&["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let names: BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    assert!(names.contains("polars-parquet"), "this test reads the tree rightly");
    for banned in NEVER {
        assert!(!names.contains(banned), "{banned} came in: cargo tree --invert {banned}");
    }
}

#[test]
fn only_the_collector_has_unsafe_code() {
    let mut seen = 0;
    for file in rust_files(&root()) {
        let inside = file.strip_prefix(root()).expect("below the root").to_path_buf();
        let text = fs::read_to_string(&file).expect("a source file is text");
        seen += 1;
        // The rule is for what is shipped; programs that run only inside a test or the lab's machines have their own rules.
        let free = ["crates/collector", "crates/lab", "crates/xtask/tests"];
        if free.iter().any(|f| inside.starts_with(f)) {
            continue;
        }
        assert!(
            !text.contains("allow(unsafe_code)") && !text.contains("expect(unsafe_code"),
            "{}: only crates/collector may have unsafe code",
            inside.display()
        );
    }
    assert!(seen > 10, "this test finds the sources");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let crates = fs::read_dir(root().join("crates")).expect("a folder of crates").flatten().map(|e| e.path());
    for dir in crates.chain([root().join("ui")]) {
        let text = fs::read_to_string(dir.join("Cargo.toml")).expect("a manifest");
        assert!(text.contains("[lints]\nworkspace = true"), "{}", dir.display());
    }
}

/// A test that skips says so through `mmuscope_needs`, which lets nothing pass in silence.
#[test]
fn only_one_crate_skips_tests() {
    let mut asked = BTreeSet::new();
    for file in rust_files(&root()) {
        let inside = file.strip_prefix(root()).expect("below the root").to_path_buf();
        let text = fs::read_to_string(&file).expect("a source file is text");
        let names = NEEDS.iter().map(|n| n.name);
        asked.extend(names.filter(|n| needs_asked(&text).any(|a| a == *n)));
        if inside.starts_with("crates/needs") || inside == Path::new("crates/xtask/tests/repository.rs") {
            continue;
        }
        for (i, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let says =
                ["print!(", "println!("].iter().any(|p| lower.contains(p)) || lower.trim().starts_with('"');
            assert!(
                !line.contains("SKIPPED") && !(says && lower.contains("skipped:")),
                "{}:{}: only crates/needs skips tests: ask with needs!(…) for what the test needs",
                inside.display(),
                i + 1
            );
        }
    }
    let table: BTreeSet<&str> = NEEDS.iter().map(|n| n.name).collect();
    assert_eq!(asked, table, "needs that tests ask for, and the table of them");
}

/// The names in `needs!("a", "b")` and the like.
fn needs_asked(text: &str) -> impl Iterator<Item = &str> {
    let calls = ["needs!(", "met!(", "needs_recording!(", "needs_display!("];
    calls.into_iter().flat_map(move |call| {
        text.split(call).skip(1).flat_map(|rest| {
            let list = rest.split(')').next().unwrap_or("");
            list.split('"').skip(1).step_by(2)
        })
    })
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for e in fs::read_dir(dir).expect("a folder").flatten() {
        let name = e.file_name();
        if e.path().is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                out.extend(rust_files(&e.path()));
            }
        } else if name.to_string_lossy().ends_with(".rs") {
            out.push(e.path());
        }
    }
    out
}
