//! What cannot be done is said in one clear line, with status 2; what is no error is none.

use crate::ends::{ends, output, succeeds};
use crate::{mmuscope, root};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Commands that read a trace.
const READERS: [&[&str]; 6] = [&["summary"], &["state"], &["events"], &["spans"], &["faults"], &["report"]];

fn fails(out: &Output, what: &str) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{what}: {text}");
    assert!(out.stdout.is_empty(), "{what}: prints nothing on standard output");
    let said: Vec<&str> = text.lines().collect();
    assert_eq!(said.len(), 1, "{what}: one line, not {text}");
    assert!(said[0].starts_with("mmuscope: "), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
    text
}

/// A text with values and no event has no summary; what `decode` says of them is what its owner wants to know.
#[test]
fn a_text_of_values_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("dump.txt");
    let dump = "kvm: level 2 spte 0x600000123400b77\nkvm: level 1 spte 0x600000123456b77\n";
    fs::write(&path, dump).expect("a file");
    let path = path.to_str().expect("a path");
    let (summary, decode) = (crate::stdout(&["summary", path]), crate::stdout(&["decode", path]));
    assert!(decode.contains("0x123456"), "{decode}");
    let rest =
        summary.strip_prefix("This text has no whole line of a trace event. ").expect("the first line");
    assert!(rest.ends_with(&decode), "{summary}\nis not\n{decode}");
    assert!(
        fails(&output(&mut mmuscope(&["summary", "--format", "json", path])).expect("it runs"), "as JSON")
            .contains("decode FILE")
    );
    assert!(
        fails(&output(&mut mmuscope(&["report", path])).expect("it runs"), "a report")
            .contains("decode FILE")
    );
}

#[test]
fn what_is_no_trace_gets_one_clear_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).to_str().expect("a path").to_string();
    let mut noise: Vec<u8> = Vec::new();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..4096 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.push((x >> 33) as u8);
    }
    fs::write(path("garbage"), &noise).expect("a file");
    fs::write(path("empty"), b"").expect("a file");
    fs::write(path("prose.txt"), "Dear kernel,\nthis is not a trace.\n").expect("a file");
    fs::create_dir(path("folder")).expect("a folder");
    let dat = fs::read(root().join("samples/linux-boot/trace.dat")).expect("the sample");
    fs::write(path("head.dat"), &dat[..40]).expect("a file");
    for name in ["garbage", "empty", "prose.txt", "folder", "head.dat", "missing"] {
        for command in READERS {
            let out = output(mmuscope(command).arg(path(name))).expect("mmuscope runs");
            let said = fails(&out, &format!("{command:?} {name}"));
            assert!(said.contains(name), "{command:?} {name} names the file: {said}");
        }
    }
}

#[test]
fn a_file_without_permission_gets_one_clear_line() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let file = dir.path().join("secret.dat");
    fs::write(&file, b"x").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("permissions");
    let mut c = mmuscope(&["summary"]);
    c.arg(&file);
    if fs::read(&file).is_ok() {
        // We are root, who may read everything: ask as nobody.
        mmuscope_needs::needs!("nobody");
        c.uid(65534).gid(65534);
    }
    let said = fails(&output(&mut c).expect("mmuscope runs"), "no permission");
    assert!(said.contains("permission denied") && said.contains("secret.dat"), "{said}");
}

#[test]
fn a_truncated_trace_gives_what_is_before_the_damage_or_says_why_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let dat = fs::read(root().join("samples/linux-boot/trace.dat")).expect("the sample");
    let packed = fs::File::open(root().join("samples/6.1-npt/perf-pipe.data.zst")).expect("the sample");
    let perf = zstd::decode_all(packed).expect("zstd");
    for (name, whole) in [("cut.dat", &dat), ("cut.perf", &perf)] {
        for part in [1, 5, 9] {
            let file = dir.path().join(name);
            fs::write(&file, &whole[..whole.len() * part / 10]).expect("a file");
            let out = output(mmuscope(&["events", "--format", "csv"]).arg(&file)).expect("mmuscope runs");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(said.contains(name) && said.contains("byte"), "{name} at {part}0 %: {said}");
            let events = String::from_utf8_lossy(&out.stdout).lines().count().saturating_sub(1);
            match out.status.code() {
                // A pipe has its facts before the data; trace.dat and perf.data files have them after it.
                Some(0) => {
                    assert!(
                        said.contains("partial") && (name == "cut.dat" || events > 3000 * part),
                        "{events}: {said}"
                    );
                    // What is not there may have held a note of a loss.
                    let out = output(mmuscope(&["summary"]).arg(&file)).expect("mmuscope runs");
                    let summary = String::from_utf8_lossy(&out.stdout);
                    let lost = summary.lines().find(|l| l.starts_with("lost")).expect("a line about losses");
                    assert!(
                        lost.contains("not known: a part of the recording could not be read"),
                        "{summary}"
                    );
                    assert_eq!(summary.contains("no event could be read"), events == 0, "{summary}");
                }
                Some(2) => assert!(out.stdout.is_empty() && !said.contains("panicked"), "{said}"),
                other => panic!("status {other:?}: {said}"),
            }
        }
    }
}

#[test]
fn wrong_arguments_are_pointed_at() {
    let trace = "samples/6.1-npt/trace.txt.zst";
    for (args, hint) in [
        (vec!["events", trace, "--where", "levl == 1"], "no column `levl`"),
        (vec!["events", trace, "--where", "level == "], "missing here"),
        (vec!["state", trace, "--at", "lunch"], "there is no phase `lunch`"),
        (vec!["state", trace, "--paging", "ebt"], "one of ept"),
        (vec!["state", trace, "--mask", "shadow_foo=1"], "shadow_foo"),
        (vec!["events", trace, "--gfn", "0xzz"], "is no frame"),
    ] {
        let out = output(&mut mmuscope(&args)).expect("mmuscope runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(hint), "{args:?}: {said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [
        vec!["events"],
        vec!["events", "--format", "csv"],
        vec!["events", "--format", "parquet"],
        vec!["events", "--format", "arrow"],
        vec!["spans", "--format", "jsonl"],
        vec!["report"],
    ] {
        let mut child = mmuscope(&args)
            .arg("samples/6.1-npt/trace.txt.zst")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mmuscope runs");
        let mut pipe = child.stdout.take().expect("a pipe");
        pipe.read_exact(&mut [0]).expect("a byte");
        drop(pipe);
        let out = ends(child, &format!("{args:?}"));
        assert!(out.status.success(), "{args:?}: {}", out.status);
        assert!(out.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

/// A full disk is said once, in every format.
#[test]
fn an_output_without_room_is_an_error() {
    for format in ["table", "md", "csv", "json", "jsonl", "parquet", "arrow"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = mmuscope(&["events", "samples/linux-boot/trace.dat", "--format", format]);
        let out = ends(
            command.stdout(full).stderr(Stdio::piped()).spawn().expect("mmuscope runs"),
            &format!("events as {format}"),
        );
        let said = String::from_utf8_lossy(&out.stderr).to_lowercase();
        assert_eq!(out.status.code(), Some(2), "{format}: {said}");
        assert_eq!(said.matches("space").count(), 1, "{format}: {said}");
    }
}

#[test]
fn an_output_file_is_whole_or_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("out.csv");
    let out =
        output(mmuscope(&["events", "samples/6.1-npt/trace.txt.zst", "--format", "csv", "-o"]).arg(&file))
            .expect("mmuscope runs");
    assert!(out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        fs::read_to_string(&file).expect("the file").lines().count(),
        63_380,
        "63,379 events and the header"
    );
    let failed = output(mmuscope(&["events", "samples/README.md", "-o"]).arg(dir.path().join("none.csv")))
        .expect("mmuscope runs");
    assert_eq!(failed.status.code(), Some(2));
    let left: Vec<_> =
        fs::read_dir(dir.path()).expect("the folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["out.csv"], "nothing half-written stays");
}

#[test]
fn ctrl_c_ends_at_once() {
    // A script's background jobs start with SIGINT ignored, by convention for good, and so do their children: not this one.
    let mut command = Command::new("env");
    command.arg("--default-signal=INT").arg(env!("CARGO_BIN_EXE_mmuscope")).args(["events", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mmuscope runs");
    std::thread::sleep(Duration::from_millis(500));
    assert!(succeeds(Command::new("kill").args(["-INT", &child.id().to_string()])), "the signal is sent");
    let asked = Instant::now();
    // Its input stays open: it must not wait for more of it.
    let _input = child.stdin.take();
    let out = ends(child, "events - after Ctrl-C");
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    assert!(!out.status.success());
}
