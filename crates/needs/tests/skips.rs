//! A test whose need is not met, from outside: this program runs one of its own tests with an empty `PATH`.

use mmuscope_needs::{REQUIRE, SKIP_FILE, Skip, have, needs};
use std::process::{Command, Output};

/// The test that the others run.
#[test]
fn one_that_asks() {
    needs!("xwininfo");
    assert!(have("xwininfo"));
}

fn run(env: &[(&str, &str)]) -> Output {
    let exe = std::env::current_exe().expect("the test is a file");
    let mut c = Command::new(exe);
    c.args(["--exact", "one_that_asks", "--nocapture"])
        .env("PATH", "")
        .env_remove(REQUIRE)
        .env_remove(SKIP_FILE);
    c.envs(env.iter().copied()).output().expect("it runs")
}

#[test]
fn a_skip_is_on_record() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("skips");
    let out = run(&[(SKIP_FILE, file.to_str().expect("text")), (REQUIRE, "perf,kvm")]);
    let lines = std::fs::read_to_string(&file);
    assert!(out.status.success());
    let lines = lines.expect("a file");
    let skips: Vec<Skip> = lines.lines().filter_map(Skip::parse).collect();
    let [skip] = skips.as_slice() else { panic!("{lines}") };
    assert_eq!((skip.need.as_str(), skip.package.as_str()), ("xwininfo", "mmuscope-needs"));
    assert_eq!((skip.test.as_str(), skip.why.as_str()), ("skips::one_that_asks", "no program xwininfo"));
}

#[test]
fn without_a_file_it_is_printed() {
    let out = run(&[]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success());
    assert!(said.contains("skips::one_that_asks") && said.contains("apt-get install x11-utils"), "{said}");
}

#[test]
fn what_is_required_fails() {
    let out = run(&[(REQUIRE, "perf,xwininfo")]);
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("MMUSCOPE_REQUIRE names xwininfo"), "{said}");
}
