//! Several traces in one report: a table that puts them side by side, in front of the reports.

use serde::Serialize;

use crate::{model::Report, story::tiles, words};

/// Name and version of the shape of the JSON of several reports.
pub(crate) const SCHEMA: &str = "mmuscope-reports/1";

/// The reports of several traces, as the JSON has them.
#[derive(Serialize)]
pub(crate) struct Several<'a> {
    /// Always [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// One report for each trace, in the order of the command line.
    pub(crate) traces: &'a [Report],
}

/// The name of a trace: the last part of its file's path, with its folder where another trace has the same.
pub(crate) fn names(reports: &[Report]) -> Vec<String> {
    let parts = |r: &Report, n: usize| {
        let path = r.recording.files.first().map_or("", |f| f.path.as_str());
        let all: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        words::one_line(&all[all.len().saturating_sub(n)..].join("/"), 80)
    };
    let many = |n: usize| reports.iter().map(|r| parts(r, n)).collect::<Vec<_>>();
    let doubled = |names: &[String]| (1..names.len()).any(|i| names[..i].contains(&names[i]));
    // Some folders up, all names differ, unless a file is named twice.
    (1..8).map(many).find(|names| !doubled(names)).unwrap_or_else(|| {
        many(2).into_iter().enumerate().map(|(i, name)| format!("{name} ({})", i + 1)).collect()
    })
}

/// What is put side by side: a row for each number, and in it a value for each trace.
pub(crate) fn rows(reports: &[Report]) -> Vec<(&'static str, Vec<String>)> {
    let mut out: Vec<(&'static str, Vec<String>)> = Vec::new();
    let mut add = |name: &'static str, of: &dyn Fn(&Report) -> String| {
        out.push((name, reports.iter().map(of).collect()));
    };
    let host = |r: &Report| r.recording.host.iter().find(|f| f.name == "kernel").map(|f| f.value.clone());
    add("kernel", &|r| host(r).map_or_else(|| "not known".into(), |v| words::one_line(&v, 60)));
    add("MMU", &|r| {
        let mut all: Vec<&str> = r.vms.iter().map(|v| v.mmu.as_str()).collect();
        all.dedup();
        if all.is_empty() { "–".into() } else { all.join(", ") }
    });
    add("length", &|r| words::duration(r.length()));
    add("events", &|r| words::count(r.event_count()));
    add("findings: error, warning, info", &|r| {
        use mmuscope_analysis::findings::Severity;
        let of = |s: Severity| r.stands_out.iter().filter(|f| f.severity == s).count();
        format!("{}, {}, {}", of(Severity::Error), of(Severity::Warning), of(Severity::Info))
    });
    add("time in faults", &|r| {
        let timed = r.vms.iter().any(|v| v.faults.latency.measured > 0);
        let sum = r.vms.iter().fold(0u64, |a, v| a.saturating_add(v.faults.latency.total));
        if timed { words::duration(sum) } else { "not recorded".into() }
    });
    let all: Vec<_> = reports.iter().map(tiles).collect();
    let mut heads: Vec<&'static str> = Vec::new();
    for t in all.iter().flatten() {
        if !heads.contains(&t.name) {
            heads.push(t.name);
        }
    }
    for name in heads {
        let of = |tiles: &Vec<crate::story::Tile>| {
            tiles.iter().find(|t| t.name == name).map_or_else(|| "–".to_owned(), |t| t.value.clone())
        };
        out.push((name, all.iter().map(of).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FileReport;

    fn of(path: &str) -> Report {
        let mut r = crate::sample::sample();
        r.recording.files = vec![FileReport { path: path.into(), format: "text".into(), bytes: 1 }];
        r
    }

    #[test]
    fn traces_of_one_name_are_named_with_their_folders() {
        let n = |paths: &[&str]| names(&paths.iter().map(|p| of(p)).collect::<Vec<_>>());
        assert_eq!(n(&["/a/x.dat", "/a/y.dat"]), ["x.dat", "y.dat"]);
        assert_eq!(n(&["/a/b/x.dat", "/a/c/x.dat"]), ["b/x.dat", "c/x.dat"]);
        assert_eq!(n(&["x.dat", "x.dat"]), ["x.dat (1)", "x.dat (2)"]);
    }

    #[test]
    fn a_number_that_one_trace_lacks_is_a_dash() {
        let mut second = of("y.dat");
        second.vms[0].mmio.clear();
        let rows = rows(&[of("x.dat"), second]);
        let of = |name: &str| rows.iter().find(|r| r.0 == name).map(|r| r.1.clone()).unwrap_or_default();
        assert_eq!(of("MMIO accesses"), ["1,774", "–"]);
        assert_eq!(of("page faults"), ["1,034", "1,034"]);
        assert_eq!(of("length"), ["981 ms", "981 ms"]);
    }
}
