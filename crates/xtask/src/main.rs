//! The chores of this repository: `cargo xtask test`, `samples`, `bench`, `cuts`, `lab`, `agree`, `screenshot`.
//!
//! It builds quickly because of mmuscope it depends on the table of needs alone (`crates/needs`): it runs the programs it needs.

mod bench;
mod compiler;
mod run;
mod samples;
mod screenshot;
mod test;
mod tested;
mod tools;

use std::process::{Command, ExitCode};

const HELP: &str = "\
The chores of this repository.

usage: cargo xtask <COMMAND>

  test                    every check: formatting, spelling, licences, dependencies, clippy, documentation, tests
  samples --check         every sample has its provenance and its checksum, and all together stay small
  samples --update        write samples/SHA256SUMS anew
  bench                   all of the following, which can be named one by one
  bench decode            SPTE values decoded per second
  bench replay [MILLIONS OF EVENTS ...]
                          events to page tables over time: speed, memory, answers
  bench formats [--events N] [--dir DIR] [--sample trace.dat]
                          every reader against trace-cmd report and perf script on a large file that it makes
  bench record [SECONDS] [KIB OF RING]
                          perf record against mmuscope record on one VM workload: lost, CPU, bytes, the guest's speed
  bench snapshot [GIB]    the tables of a large guest (64 GiB) read from a file like /proc/kcore: time and size
  cuts [--seeds N] [--seed N [--gfn HEX]] [--all] FILE|DIR ...
                          cuts recordings at both ends, at random, and looks for facts that the whole recording denies
  lab ...                 real KVM hosts in emulators: cargo xtask lab help
  agree FILE ...          every number that two faces show of a trace compared, and the raw events counted a second time
  screenshot [PROGRAM]    pictures of the viewer on samples, under Xvfb, to docs/images; with PROGRAM instead of a release build
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if compiler::is_wrapper() {
        return compiler::run(&args);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["test"] => test::test(),
        ["samples", "--check"] => samples::check(),
        ["samples", "--update"] => samples::update(),
        ["agree", files @ ..] if !files.is_empty() => agree(files),
        ["screenshot"] => screenshot::screenshot(None),
        ["screenshot", program] => screenshot::screenshot(Some(program)),
        ["bench", rest @ ..] => bench::bench(rest),
        ["cuts", rest @ ..] => run::show(run::lab_example("cuts").args(rest)),
        ["lab", rest @ ..] => run::show(
            run::cargo(&["run", "--quiet", "--package", "mmuscope-lab", "--bin", "mmuscope-lab", "--"])
                .args(rest),
        ),
        ["help" | "-h" | "--help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds mmuscope and the second counter, and runs the comparison.
fn agree(files: &[&str]) -> anyhow::Result<()> {
    run::show(&mut run::cargo(&["build", "--package", "mmuscope-cli", "--package", "mmuscope-agree"]))?;
    let own = std::env::current_exe()?;
    // File names are relative to the user's current directory.
    run::show(Command::new(own.with_file_name("mmuscope-agree")).args(files))
}
