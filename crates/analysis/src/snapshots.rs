//! Snapshots of KVM's own memory in words: [`sentence`] says how the trace and the kernel's memory agree. `record`, `summary` and the report
//! print it.

use mmuscope_replay::{Difference, Snapshot};
use mmuscope_units::{count, counted, duration, gfn, spte};

/// How a snapshot and what the trace had shown until then agree, in one line without its end.
pub fn sentence(s: &Snapshot) -> String {
    let tables = counted(s.tables, "table", "tables");
    if s.vms == 0 {
        return "no VM ran".into();
    }
    let held = s.equal + s.differ;
    let mut out = if held == 0 {
        format!("{} read, which no event had shown", counted(s.settled, "entry", "entries"))
    } else if s.differ == 0 {
        format!("the replay equals the kernel's memory: {} of {} entries", count(s.equal), count(held))
    } else {
        format!(
            "THE REPLAY DIFFERS from the kernel's memory: {} of {} entries are otherwise than the trace says",
            count(s.differ),
            count(held)
        )
    };
    if s.settled > 0 && held > 0 {
        out.push_str("; ");
        out.push_str(&counted(s.settled, "entry", "entries"));
        out.push_str(if s.settled == 1 {
            " that was not known is now"
        } else {
            " that were not known are now"
        });
    }
    if s.incomplete > 0 {
        out.push_str("; ");
        out.push_str(&counted(s.incomplete.into(), "VM was", "VMs were"));
        out.push_str(" not read completely");
    }
    out + &format!(" ({} in {})", tables, duration(s.end.saturating_sub(s.start)))
}

/// One entry that differs, in one line.
pub fn difference(d: &Difference) -> String {
    format!(
        "VM {} as_id {} gfn {} level {}: {} by the trace, {} in memory",
        d.vm.0,
        d.as_id,
        gfn(d.gfn),
        d.level,
        spte(d.claimed),
        spte(d.found)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_and_difference_are_told_apart() {
        let s =
            Snapshot { vms: 1, tables: 3, equal: 1500, settled: 1, end: 2_000_000, ..Snapshot::default() };
        let text = sentence(&s);
        assert!(
            text.starts_with("the replay equals the kernel's memory: 1,500 of 1,500 entries; 1 entry"),
            "{text}"
        );
        assert!(sentence(&Snapshot { differ: 2, ..s }).starts_with("THE REPLAY DIFFERS"));
        assert_eq!(sentence(&Snapshot::default()), "no VM ran");
    }
}
