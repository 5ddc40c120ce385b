//! The findings as text, JSON, JUnit's XML and SARIF.

use super::All;
use super::judged::{Judged, SCHEMA, Verdict};
use mmuscope_analysis::findings::{Finding, RULES, Rule, Severity};
use mmuscope_analysis::words::{count, counted, duration, printable};
use mmuscope_trace::TraceInfo;
use mmuscope_units::moment;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Where a finding is, as far as it is about one place: `VM 0 gfn 0x7c00`.
fn place(f: &Finding) -> String {
    let vm = f.vm.map(|vm| format!("VM {vm}"));
    let gfn = f.gfn.map(|gfn| format!("gfn {gfn:#x}"));
    [vm, gfn].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// One line for each finding, and one that counts them.
pub(super) fn text(info: &TraceInfo, all: &All, deny: Severity, explain: bool) -> String {
    let mut out = String::new();
    for j in all {
        let f = &j.finding;
        let note = match j.verdict {
            Verdict::Allowed | Verdict::Known => format!(" [{}]", j.verdict.name()),
            _ => String::new(),
        };
        let place = place(f);
        let place = if place.is_empty() { place } else { format!("  {place}") };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{:<7}  {}{place}: {}{note}", f.severity.name(), f.id, printable(&f.title));
        if explain {
            out.push_str(&explained(info, f));
        }
    }
    let denied = all.iter().filter(|j| j.verdict == Verdict::Denied).count() as u64;
    let _ = writeln!(
        out,
        "{}, {} denied ({} and above)",
        counted(all.len() as u64, "finding", "findings"),
        count(denied),
        deny.name()
    );
    out
}

fn explained(info: &TraceInfo, f: &Finding) -> String {
    let mut out = String::new();
    let since = |ts: u64| moment(ts.saturating_sub(info.first_ts));
    let events: Vec<String> = f.events.iter().take(8).map(ToString::to_string).collect();
    let more = if f.count > events.len() as u64 { " …" } else { "" };
    let times = counted(f.count, "time", "times");
    let when = if f.first == f.last {
        format!("{times}, at {}", since(f.first))
    } else {
        format!("{times}, from {} to {}", since(f.first), since(f.last))
    };
    let cost = f.cost.map_or_else(String::new, |c| format!("; {} in faults", duration(c)));
    for (name, value) in [
        ("seen", format!("{when}{cost}; events {}{more}", events.join(", "))),
        ("why", f.why.to_string()),
        ("what to do", f.remedy.to_string()),
        ("sure", format!("{}; refuted if {}", f.sure.name(), f.refuted)),
    ] {
        let _ = writeln!(out, "         {name:<10}  {}", printable(&value));
    }
    out
}

/// Names of the trace's files.
fn files(info: &TraceInfo) -> Vec<String> {
    info.files.iter().map(|f| f.path.to_string_lossy().into_owned()).collect()
}

/// Everything, for scripts and for `--baseline`. Times are nanoseconds since the first event.
pub(super) fn json(info: &TraceInfo, all: &All) -> Value {
    let one = |j: &Judged| {
        let f = &j.finding;
        let since = |ts: u64| ts.saturating_sub(info.first_ts);
        json!({
            "id": f.id, "severity": f.severity, "verdict": j.verdict.name(), "title": f.title, "vm": f.vm, "gfn": f.gfn,
            "start": since(f.first), "end": since(f.last), "count": f.count, "evidence": f.events, "cost": f.cost,
            "why": f.why, "remedy": f.remedy, "sure": f.sure, "refuted": f.refuted,
        })
    };
    json!({
        "schema": SCHEMA,
        "generator": format!("mmuscope {}", env!("CARGO_PKG_VERSION")),
        "files": files(info),
        "partial": info.is_partial(),
        "findings": all.iter().map(one).collect::<Vec<_>>(),
    })
}

/// The text of an XML attribute or element: XML has no place for most control characters.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// One test case for each rule, in the order of the catalogue; it fails if a finding of the rule is denied.
pub(super) fn junit(info: &TraceInfo, all: &All) -> String {
    let failed = |r: &Rule| all.iter().any(|j| j.finding.id == r.id && j.verdict == Verdict::Denied);
    let failures = RULES.iter().filter(|r| failed(r)).count();
    let name = escaped(&format!("mmuscope check {}", files(info).join(" ")));
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "<testsuites>\n  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">",
        RULES.len()
    );
    for rule in RULES {
        let of: Vec<&Judged> = all.iter().filter(|j| j.finding.id == rule.id).collect();
        let _ = write!(out, "    <testcase classname=\"mmuscope\" name=\"{}\"", rule.id);
        if of.is_empty() {
            out.push_str("/>\n");
            continue;
        }
        out.push_str(">\n");
        for j in &of {
            let f = &j.finding;
            let text = escaped(&printable(&f.title));
            if j.verdict == Verdict::Denied {
                let more = escaped(&format!("{}\nwhat to do: {}", f.why, f.remedy));
                let _ = writeln!(
                    out,
                    "      <failure type=\"{}\" message=\"{text}\">{more}</failure>",
                    f.severity.name()
                );
            } else {
                let _ = writeln!(
                    out,
                    "      <system-out>{} ({}): {text}</system-out>",
                    f.severity.name(),
                    j.verdict.name()
                );
            }
        }
        out.push_str("    </testcase>\n");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// SARIF 2.1.0, as forges read it. The place of a finding is the trace; its fingerprint is id, VM and frame.
pub(super) fn sarif(info: &TraceInfo, all: &All) -> Value {
    let level = |s: Severity| match s {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let rules: Vec<Value> = RULES
        .iter()
        .map(|r| {
            json!({
                "id": r.id,
                "shortDescription": {"text": format!("{}.", r.seen)},
                "fullDescription": {"text": format!("{}.", r.why)},
                "help": {"text": format!("{}.", r.remedy)},
                "defaultConfiguration": {"level": level(r.severity)},
            })
        })
        .collect();
    let locations: Vec<Value> = files(info)
        .iter()
        .map(|f| json!({"physicalLocation": {"artifactLocation": {"uri": uri(f)}}}))
        .collect();
    let one = |j: &Judged| {
        let f = &j.finding;
        let mut v = json!({
            "ruleId": f.id,
            "ruleIndex": RULES.iter().position(|r| r.id == f.id),
            "level": level(f.severity),
            "message": {"text": format!("{}. Why: {}. What to do: {}.", f.title, f.why, f.remedy)},
            "locations": locations,
            "occurrenceCount": f.count,
            "partialFingerprints": {"mmuscope/1": format!("{} {}", f.id, place(f))},
        });
        match j.verdict {
            Verdict::Allowed => v["suppressions"] = json!([{"kind": "external", "justification": "--allow"}]),
            Verdict::Known => {
                v["suppressions"] = json!([{"kind": "external", "justification": "--baseline"}]);
            }
            Verdict::Denied | Verdict::Below => {}
        }
        v
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "mmuscope", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": all.iter().map(one).collect::<Vec<_>>(),
        }],
    })
}

/// A path as a URI reference: bytes that have a meaning in a URI, or none, are percent-encoded.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || b"/-._~+,=@".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escaped, uri};

    #[test]
    fn names_from_a_trace_break_nothing() {
        assert_eq!(escaped("a<b>&\"\u{1b}[2J\n"), "a&lt;b&gt;&amp;&quot;\u{fffd}[2J&#10;");
        assert_eq!(uri("a b/ü%.dat"), "a%20b/%C3%BC%25.dat");
    }
}
