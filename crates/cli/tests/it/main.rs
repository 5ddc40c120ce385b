//! The command line end to end, on the real traces of `samples/`. One executable: it links everything.

mod agree;
mod asking;
mod check;
mod contract;
mod diff;
mod docs;
mod ends;
mod errors;
mod hostile;
mod live;
mod memory;
mod parquet;
mod recordings;
mod report;
mod stat;
mod truth;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The top of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/cli is two levels down")
        .to_path_buf()
}

/// The program, run at the top of the repository.
fn mmuscope(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_mmuscope"));
    c.args(args).current_dir(root());
    c
}

fn run(args: &[&str]) -> Output {
    ends::output(&mut mmuscope(args)).expect("mmuscope runs")
}

/// Standard output of a run that must succeed.
fn stdout(args: &[&str]) -> String {
    let out = run(args);
    assert!(
        out.status.success(),
        "mmuscope {args:?}: {}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("output is UTF-8")
}

/// Rows of a CSV by column name.
struct Csv {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Csv {
    fn of(args: &[&str]) -> Self {
        let text = stdout(&[args, &["--format", "csv"]].concat());
        let mut r = csv::Reader::from_reader(text.as_bytes());
        let names = r.headers().expect("a header").iter().map(str::to_string).collect();
        let rows = r.records().map(|r| r.expect("a record").iter().map(str::to_string).collect()).collect();
        Self { names, rows }
    }

    fn column(&self, name: &str) -> usize {
        self.names
            .iter()
            .position(|n| n == name)
            .unwrap_or_else(|| panic!("no column {name} in {:?}", self.names))
    }

    /// The cells of some columns, row by row.
    fn select<const N: usize>(&self, columns: [&str; N]) -> Vec<[&str; N]> {
        let at = columns.map(|c| self.column(c));
        self.rows.iter().map(|r| at.map(|n| r[n].as_str())).collect()
    }
}

fn hex(s: &str) -> u64 {
    u64::from_str_radix(s.strip_prefix("0x").unwrap_or_else(|| panic!("`{s}` is no hex number")), 16)
        .expect("hex")
}
