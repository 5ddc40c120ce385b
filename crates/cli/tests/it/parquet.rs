//! Parquet and Arrow as others read them.

use crate::ends::output;
use crate::{Csv, mmuscope};
use std::path::{Path, PathBuf};

const TRACE: &str = "samples/6.1-npt/trace.txt.zst";

fn written(dir: &Path, args: &[&str], format: &str) -> PathBuf {
    let file = dir.join(format!("{}.{format}", args[0]));
    let out = output(mmuscope(args).args(["--format", format, "-o"]).arg(&file)).expect("mmuscope runs");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    file
}

#[test]
fn duckdb_reads_parquet_with_the_documented_types() {
    mmuscope_needs::needs!("duckdb");
    let dir = tempfile::tempdir().expect("a directory");
    let events = written(dir.path(), &["events", TRACE], "parquet");
    let state = written(dir.path(), &["state", TRACE], "parquet");
    let script = format!(
        r#"
import duckdb
e, s = "{}", "{}"
t = dict((r[0], r[1]) for r in duckdb.sql(f"describe select * from '{{e}}'").fetchall())
for name, want in dict(ts="UBIGINT", cpu="UINTEGER", gfn="UBIGINT", new_spte="UBIGINT", event="VARCHAR", errno="INTEGER", created="BOOLEAN").items():
    assert t[name] == want, (name, t[name])
print(duckdb.sql(f"select count(*), count(distinct event), max(ts), max(new_spte), sum(gfn) from '{{e}}'").fetchall()[0])
print(duckdb.sql(f"select count(*), sum(size), max(spte) from '{{s}}' where state = 'present'").fetchall()[0])
duckdb.sql(f"copy (select * from '{{e}}') to '{}' (header, delimiter ',')")
"#,
        events.display(),
        state.display(),
        dir.path().join("back.csv").display()
    );
    let out = output(mmuscope_needs::python().arg("-c").arg(script)).expect("python runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let rows = Csv::of(&["events", TRACE]).rows;
    let csv = Csv::of(&["events", TRACE]);
    let number = |s: &str| {
        s.strip_prefix("0x").map_or_else(|| s.parse::<u64>().ok(), |h| u64::from_str_radix(h, 16).ok())
    };
    let column = |c: &str| csv.select([c]).into_iter().filter_map(|[v]| number(v)).collect::<Vec<u64>>();
    let kinds: std::collections::BTreeSet<_> = csv.select(["event"]).into_iter().collect();
    let sum: u128 = column("gfn").iter().map(|v| u128::from(*v)).sum();
    let first = format!(
        "({}, {}, {}, {}, {sum})",
        rows.len(),
        kinds.len(),
        column("ts").iter().max().expect("times"),
        column("new_spte").iter().max().expect("values")
    );
    let state = Csv::of(&["state", TRACE, "--where", "state == present"]);
    let sizes: u64 = state.select(["size"]).iter().map(|[s]| s.parse::<u64>().expect("a size")).sum();
    let most = state.select(["spte"]).iter().filter_map(|[s]| number(s)).max().expect("values");
    let second = format!("({}, {sizes}, {most})", state.rows.len());
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), format!("{first}\n{second}"));
    // Cell by cell: DuckDB writes the numbers of hexadecimal columns in decimal.
    let mut back = csv::Reader::from_path(dir.path().join("back.csv")).expect("DuckDB wrote it");
    assert_eq!(
        back.headers().expect("names").iter().collect::<Vec<_>>(),
        csv.names,
        "the columns and their order"
    );
    let plain = |s: &str| number(s).map_or_else(|| s.to_owned(), |n| n.to_string());
    let mut compared = 0;
    for (theirs, ours) in back.records().zip(&csv.rows) {
        let (theirs, ours): (Vec<_>, Vec<_>) =
            (theirs.expect("a record").iter().map(plain).collect(), ours.iter().map(|c| plain(c)).collect());
        assert_eq!(theirs, ours, "row {compared}");
        compared += 1;
    }
    assert_eq!(compared, rows.len());
}

#[test]
fn binary_formats_are_what_they_say() {
    let dir = tempfile::tempdir().expect("a directory");
    for (format, magic) in [("parquet", &b"PAR1"[..]), ("arrow", &b"ARROW1"[..])] {
        for args in [
            vec!["state", TRACE],
            vec!["spans", TRACE],
            vec!["faults", TRACE],
            vec!["state", TRACE, "--where", "level == 5"],
        ] {
            let bytes = std::fs::read(written(dir.path(), &args, format)).expect("the file");
            assert!(bytes.starts_with(magic) && bytes.ends_with(magic), "{args:?} {format}");
        }
    }
}
