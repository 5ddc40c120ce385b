//! Rules of the repository that the compiler cannot check: which crate may depend on which, where `unsafe` may be, which dependencies
//! are banned, and which words the glossary rules out.

#[path = "../../cli/tests/it/ends.rs"]
mod ends;
mod source;

use mmuscope_needs::NEEDS;
use serde_json::Value;
use source::{Kind, files, pieces, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// ring or file → trace → replay → analysis → cli, report, ui; spte is a dictionary on the side, units a style guide. See ARCHITECTURE.md.
const EDGES: [(&str, &[&str]); 18] = [
    ("mmuscope-units", &[]),
    ("mmuscope-spte", &[]),
    // What the collector writes and the trace reads: neither knows the other.
    ("mmuscope-snapshot", &[]),
    ("mmuscope-trace", &["mmuscope-units", "mmuscope-snapshot"]),
    ("mmuscope-replay", &["mmuscope-units", "mmuscope-spte", "mmuscope-trace"]),
    ("mmuscope-analysis", &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay"]),
    ("mmuscope-tables", &["mmuscope-analysis"]),
    (
        "mmuscope-report",
        &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay", "mmuscope-analysis"],
    ),
    (
        "mmuscope-ui",
        &["mmuscope-units", "mmuscope-spte", "mmuscope-trace", "mmuscope-replay", "mmuscope-analysis"],
    ),
    // The schema of events in the trace crate says what the event sets hold.
    ("mmuscope-collector", &["mmuscope-units", "mmuscope-snapshot", "mmuscope-trace"]),
    (
        "mmuscope-cli",
        &[
            "mmuscope-units",
            "mmuscope-spte",
            "mmuscope-trace",
            "mmuscope-replay",
            "mmuscope-analysis",
            "mmuscope-tables",
            "mmuscope-report",
            "mmuscope-collector",
            "mmuscope-ui",
        ],
    ),
    ("mmuscope-lab", &[]),
    // This crate must not depend on the replay, so that its counts are independent.
    ("mmuscope-agree", &["mmuscope-trace"]),
    ("mmuscope-fuzzing", &["mmuscope-spte", "mmuscope-trace", "mmuscope-replay"]),
    // Tests, examples and benchmarks depend on it, which is not counted here.
    ("mmuscope-testing", &["mmuscope-spte", "mmuscope-trace"]),
    // The viewer's tests depend on it, which is not counted here.
    ("mmuscope-raster", &[]),
    // Tests depend on it, which is not counted here, and the chores.
    ("mmuscope-needs", &[]),
    ("mmuscope-xtask", &["mmuscope-needs"]),
];

/// Libraries that only one crate may depend on, which keeps the build of the others light.
const PRIVATE: [(&str, &[&str]); 9] = [
    ("postcard", &["mmuscope-snapshot"]),
    ("polars-arrow", &["mmuscope-tables"]),
    ("polars-error", &["mmuscope-tables"]),
    ("polars-parquet", &["mmuscope-tables"]),
    ("egui", &["mmuscope-ui", "mmuscope-raster"]),
    ("eframe", &["mmuscope-ui"]),
    ("winit", &["mmuscope-ui"]),
    ("perf-event-open-sys", &["mmuscope-collector"]),
    ("clap", &["mmuscope-cli"]),
];

/// A tool that runs as root links no network client and no TLS stack; polars would bring them in with the wrong feature.
const NEVER: [&str; 8] =
    ["reqwest", "hyper", "object_store", "rustls", "openssl", "openssl-sys", "native-tls", "aws-lc-rs"];

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
    for file in files(&root(), &["rs"]) {
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

/// Debug assertions of dependencies look for our mistakes, too: clap's for arguments that contradict each other, egui's for places that are no number.
#[test]
fn only_crates_without_assertions_are_tested_without() {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let sections = text.split("\n[").filter(|s| s.contains("\ndebug-assertions = false"));
    let mut seen = 0;
    for section in sections {
        let name = section.split(']').next().unwrap_or_default();
        let ours = name.strip_prefix("profile.dev.package.mmuscope-");
        let ours = ours.unwrap_or_else(|| panic!("[{name}] is not a crate of ours"));
        for file in files(&root().join("crates").join(ours).join("src"), &["rs"]) {
            let source = fs::read_to_string(&file).expect("a source file is text");
            assert!(!source.contains("debug_assert"), "[{name}] turns off what {} asserts", file.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "this test finds the sources");
}

/// A program that is not tested by itself is compiled, and so read by clippy, for the tests of its package only.
#[test]
fn only_programs_without_tests_say_that_they_have_none() {
    let v: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"]))
        .expect("cargo metadata prints JSON");
    let mut seen = Vec::new();
    for package in v["packages"].as_array().expect("a list") {
        let targets = package["targets"].as_array().expect("a list");
        let of = |kind: &'static str| targets.iter().filter(move |t| t["kind"] == serde_json::json!([kind]));
        for program in of("bin").filter(|t| t["test"] == false) {
            let path = program["src_path"].as_str().expect("a path");
            let text = fs::read_to_string(path).expect(path);
            assert!(!text.contains("#[test]") && !text.contains("\nmod "), "{path} may have tests");
            assert!(of("test").next().is_some(), "{path}: no test of its package uses it");
            seen.push(program["name"].clone());
        }
    }
    assert_eq!(seen, ["mmuscope"]);
}

#[test]
fn every_crate_has_a_readme() {
    let crates = fs::read_dir(root().join("crates")).expect("a folder of crates").flatten().map(|e| e.path());
    for dir in crates.chain([root().join("ui")]) {
        let text = fs::read_to_string(dir.join("README.md")).unwrap_or_default();
        for part in ["**Main types:**", "**It never**", "**Start reading**", "**Test:**"] {
            assert!(text.contains(part), "{}/README.md does not say {part}", dir.display());
        }
    }
}

/// A test that skips says so through `mmuscope_needs`, which lets nothing pass in silence.
#[test]
fn only_one_crate_skips_tests() {
    let mut asked = BTreeSet::new();
    for file in files(&root(), &["rs"]) {
        let inside = file.strip_prefix(root()).expect("below the root").to_path_buf();
        let text = fs::read_to_string(&file).expect("a source file is text");
        if inside.starts_with("crates/needs") || inside == Path::new("crates/xtask/tests/repository.rs") {
            continue;
        }
        let names = NEEDS.iter().map(|n| n.name);
        asked.extend(names.filter(|n| needs_asked(&text).any(|a| a == *n)));
        for (i, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let says =
                ["print!(", "println!("].iter().any(|p| lower.contains(p)) || lower.trim().starts_with('"');
            assert!(
                !(line.contains("SKIPPED") || says && lower.contains("skipped:")),
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

/// Lines in which a word of the glossary's second table is right: the end of the file's path, and a part of the line.
const RIGHT: [(&str, &str); 1] = [
    // The names of the exit reason for the instruction `MONITOR`, as the kernel and trace-cmd print them.
    ("crates/trace/src/exits.rs", "(0x8a,"),
];

/// Comments, documentation and messages use the words of the glossary in CONTRIBUTING.md, and none of its second table.
#[test]
fn prose_uses_the_words_of_the_glossary() {
    let banned = banned_words();
    assert!(banned.len() > 5, "this test reads the glossary: {banned:?}");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files(&root(), &["rs", "md", "toml"]) {
        let inside = file.strip_prefix(root()).expect("below the root").to_path_buf();
        let text = fs::read_to_string(&file).expect("a source file is text");
        seen += 1;
        let prose = if inside.extension().is_some_and(|e| e == "rs") {
            prose_of_rust(&text)
        } else {
            prose_of_text(&text)
        };
        for (line, word) in find_words(&prose, &banned) {
            let all = text.lines().nth(line - 1).unwrap_or_default();
            if !RIGHT.iter().any(|(end, part)| inside.ends_with(end) && all.contains(part)) {
                wrong.push(format!("{}:{line}: `{word}`: {}", inside.display(), all.trim()));
            }
        }
    }
    assert!(seen > 100, "this test finds the files");
    assert!(wrong.is_empty(), "CONTRIBUTING.md says what to write instead:\n{}", wrong.join("\n"));
}

#[test]
fn the_check_of_words_finds_what_it_looks_for() {
    let banned = ["quux".to_owned(), "out of a hat".to_owned()];
    let lines =
        |rust: &str| find_words(&prose_of_rust(rust), &banned).iter().map(|f| f.0).collect::<Vec<_>>();
    assert_eq!(lines("fn quux() {}\n/// It is quux.\nlet quux = 1;"), [2], "names are not prose");
    assert_eq!(lines("// zapped out of\n// a hat\n"), [1], "a phrase may be broken over lines");
    assert_eq!(lines("let c = '\"';\nf(\"it was Quux\"); // fine\ng(r#\"a \"quux\" b\"#);"), [2, 3]);
    assert_eq!(lines("fn f<'a>(s: &'a str) {} // `quux` is a name here, quuxy is no word\n"), [0usize; 0]);
    assert_eq!(find_words(&prose_of_text("a\nb `quux`\nquux\n"), &banned), [(3, "quux".to_owned())]);
}

/// The words in the first column of the glossary's table of words that are not used.
fn banned_words() -> Vec<String> {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).expect("CONTRIBUTING.md");
    let table = text.split("| not |").nth(1).expect("the glossary has a table of words that are not used");
    let rows = table.lines().skip(2).take_while(|l| l.starts_with('|'));
    let first = rows.filter_map(|row| row.split('|').nth(1));
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_lowercase).collect()
}

/// Text with the number of the line from which each part of it comes.
type Prose = Vec<(usize, String)>;

/// Everything but code between backticks.
fn prose_of_text(text: &str) -> Prose {
    text.lines().enumerate().map(|(n, line)| (n + 1, without_code(line))).collect()
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// The comments and the string literals of a Rust source.
fn prose_of_rust(text: &str) -> Prose {
    let mut out = Prose::new();
    for p in pieces(text) {
        let kept = match p.kind {
            Kind::Comment => p.text.trim_start_matches(['/', '!']),
            Kind::Text => p.text.trim_start_matches(['b', 'r', '#']).trim_end_matches('#').trim_matches('"'),
            Kind::Code | Kind::Char => continue,
        };
        out.extend(kept.lines().enumerate().map(|(n, part)| (p.line + n, without_code(part))));
    }
    out
}

/// The lines on which the words begin. Parts are read as one text, so that a phrase may be broken over lines.
fn find_words(prose: &Prose, words: &[String]) -> Vec<(usize, String)> {
    let (mut text, mut starts) = (String::new(), Vec::new());
    for (line, part) in prose {
        starts.push((text.len(), *line));
        text.push_str(part.trim().to_lowercase().as_str());
        text.push(' ');
    }
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found = Vec::new();
    for word in words {
        for (at, _) in text.match_indices(word.as_str()) {
            if !letter(text[..at].chars().next_back()) && !letter(text[at + word.len()..].chars().next()) {
                let line = starts[starts.partition_point(|s| s.0 <= at) - 1].1;
                found.push((line, word.clone()));
            }
        }
    }
    found.sort();
    found
}
