//! [`judge`]: which findings are denied, and the order in which they are listed.

use anyhow::{Context, Result, bail};
use mmuscope_analysis::findings::{Finding, Severity};
use serde_json::Value;
use std::path::Path;

/// Name and version of the JSON's shape. Fields may be added to a version, never renamed or removed.
pub(super) const SCHEMA: &str = "mmuscope-check/1";

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is denied.
    Denied,
    /// It is less severe than what is denied.
    Below,
    /// `--allow` names it.
    Allowed,
    /// It is in the baseline.
    Known,
}

impl Verdict {
    /// The word for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Below => "below",
            Self::Allowed => "allowed",
            Self::Known => "known",
        }
    }
}

/// A finding with what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) finding: Finding,
    pub(super) verdict: Verdict,
}

/// What an earlier check found: id, VM, frame and severity.
pub(super) type Known = (String, Option<u64>, Option<u64>, Severity);

/// Judges findings and puts them in an order that does not depend on what they cost: by severity, id, VM, frame and time.
pub(super) fn judge(all: Vec<Finding>, deny: Severity, allow: &[String], before: &[Known]) -> Vec<Judged> {
    let is_known = |f: &Finding| {
        let same = |k: &&Known| k.0 == f.id && k.1 == f.vm.map(u64::from) && k.2 == f.gfn;
        before.iter().find(same).is_some_and(|k| k.3 >= f.severity)
    };
    let mut out: Vec<Judged> = all
        .into_iter()
        .map(|finding| {
            let verdict = if finding.severity < deny {
                Verdict::Below
            } else if allow.iter().any(|id| id == finding.id) {
                Verdict::Allowed
            } else if is_known(&finding) {
                Verdict::Known
            } else {
                Verdict::Denied
            };
            Judged { finding, verdict }
        })
        .collect();
    out.sort_by_key(|Judged { finding: f, .. }| {
        (std::cmp::Reverse(f.severity), f.id, f.vm, f.gfn, f.first, f.events.first().copied())
    });
    out
}

/// Reads what an earlier check found.
pub(super) fn known(path: &Path) -> Result<Vec<Known>> {
    let text = std::fs::read_to_string(path).context("cannot be read")?;
    let value: Value = serde_json::from_str(&text).context("is no JSON")?;
    let Some(list) = value["findings"].as_array().filter(|_| value["schema"] == SCHEMA) else {
        bail!("is no output of `mmuscope check --format json`");
    };
    list.iter()
        .map(|f| {
            let id = f["id"].as_str().context("has a finding without an id")?.to_owned();
            let severity = match f["severity"].as_str() {
                Some("info") => Severity::Info,
                Some("warning") => Severity::Warning,
                Some("error") => Severity::Error,
                _ => bail!("has a finding without a severity"),
            };
            Ok((id, f["vm"].as_u64(), f["gfn"].as_u64(), severity))
        })
        .collect()
}
