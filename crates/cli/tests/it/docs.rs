//! Every command in README and docs runs, and prints what they say.

use crate::root;
use std::fs;
use std::path::PathBuf;

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    for dir in [root().join("docs"), root().join("docs/guide")] {
        let files = fs::read_dir(dir).expect("docs").flatten().map(|e| e.path());
        pages.extend(files.filter(|p| p.extension().is_some_and(|x| x == "md")));
    }
    pages
}

/// Blocks marked `console`: lines that begin with `$ mmuscope` are run, what follows is their output (`...` stands for any lines, `[..]` for
/// the rest of one).
#[test]
fn commands_in_the_documentation_run() {
    // Pages name files from the top of the repository, where their readers stand. Every other test names its folder itself.
    std::env::set_current_dir(root()).expect("the top of the repository");
    let cases = trycmd::TestCases::new();
    cases.timeout(crate::ends::LONG);
    let mut commands = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        commands += text.lines().filter(|l| l.starts_with("$ mmuscope ")).count();
        cases.case(&page);
    }
    cases.register_bin("mmuscope", std::path::Path::new(env!("CARGO_BIN_EXE_mmuscope")));
    cases.run();
    assert!(commands >= 5, "the documentation shows commands");
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut seen = 0;
    let more =
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "samples/README.md"].map(|f| root().join(f));
    for page in pages().into_iter().chain(more) {
        let text = fs::read_to_string(&page).expect("a page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let to = page.parent().expect("a folder").join(target);
            assert!(to.exists(), "{}: {target} is not there", page.display());
            seen += 1;
        }
    }
    assert!(seen > 5);
}
