//! What clippy or rustdoc finds in a crate fails its compilation, and nothing else does: cargo with the wrapper, on crates made here.

use std::fs;
use std::process::{Command, Output};

/// Compiles a library of this text with its tests, as `cargo xtask test` compiles the workspace.
fn compile(text: &str) -> Output {
    let dir = tempfile::tempdir().expect("a folder");
    let manifest = "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(dir.path().join("Cargo.toml"), manifest).expect("written");
    fs::create_dir_all(dir.path().join("src")).expect("a folder");
    // An integration test makes cargo compile the library itself, too.
    fs::create_dir_all(dir.path().join("tests")).expect("a folder");
    fs::write(dir.path().join("src/lib.rs"), text).expect("written");
    fs::write(dir.path().join("tests/it.rs"), "#[test]\nfn one() {\n    assert_eq!(small::one(), 1);\n}\n")
        .expect("written");
    let wrapper = dir.path().join("checking-rustc");
    fs::copy(env!("CARGO_BIN_EXE_mmuscope-xtask"), &wrapper).expect("copied");
    Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--offline"])
        .current_dir(dir.path())
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper)
        .env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__")
        .env("CARGO_TARGET_DIR", dir.path().join("target"))
        .output()
        .expect("cargo runs")
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn what_is_clean_compiles() {
    let out = compile("//! Small.\n\n/// One, as [`u8`].\npub fn one() -> u8 {\n    1\n}\n");
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn a_finding_of_clippy_fails() {
    let out = compile("//! Small.\n\n/// One.\npub fn one() -> u8 {\n    return 1;\n}\n");
    assert!(!out.status.success() && said(&out).contains("clippy::needless_return"), "{}", said(&out));
}

#[test]
fn a_finding_in_a_test_fails() {
    let out = compile(
        "//! Small.\n\n/// One.\npub fn one() -> u8 {\n    1\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn t() {\n        let x = 1;\n        \
         assert!(x == 1 && true);\n    }\n}\n",
    );
    assert!(!out.status.success() && said(&out).contains("clippy::"), "{}", said(&out));
}

#[test]
fn a_link_to_nothing_fails() {
    let out = compile("//! Small.\n\n/// One, see [`two`].\npub fn one() -> u8 {\n    1\n}\n");
    assert!(!out.status.success() && said(&out).contains("unresolved link to `two`"), "{}", said(&out));
}

#[test]
fn a_warning_of_the_compiler_fails_and_is_printed_once() {
    let out = compile("//! Small.\n\nfn unused() {}\n\n/// One.\npub fn one() -> u8 {\n    1\n}\n");
    let text = said(&out);
    // Once for the library, and once for it with its tests.
    assert!(
        !out.status.success() && (1..=2).contains(&text.matches("function `unused` is never used").count()),
        "{text}"
    );
}
