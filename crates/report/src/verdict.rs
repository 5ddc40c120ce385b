//! [`verdicts`]: how far a report can be trusted, in a few words each. The page and the Markdown both show them.

use mmuscope_replay::Coverage;
use mmuscope_trace::Losses;

use crate::{
    model::{Recording, Report},
    words,
};

/// Short verdicts on a report, for its top: a grade (`good`, `warn`, `bad` or nothing) and a text.
pub(crate) fn verdicts(report: &Report) -> Vec<(&'static str, String)> {
    let r = &report.recording;
    let mut out = Vec::new();
    out.push(lost(r));
    if !r.damage.is_empty() {
        out.push(("bad", format!("{} unreadable", words::counted(r.damage.len() as u64, "place", "places"))));
    }
    let wrong: u64 = report.evidence.iter().map(|e| e.count - e.after_loss.min(e.count)).sum();
    if wrong > 0 {
        out.push((
            "warn",
            words::counted(wrong, "disagreement between events", "disagreements between events"),
        ));
    } else if !report.vms.is_empty() {
        out.push(("good", "events agree with each other".to_owned()));
    }
    if let Some(s) = report.snapshots.iter().rev().find(|s| s.equal + s.differ > 0) {
        out.push(if s.differ == 0 {
            ("good", "the replay equals the kernel's memory".to_owned())
        } else {
            let entries = words::counted(s.differ, "entry differs", "entries differ");
            ("bad", format!("{entries} from the kernel's memory"))
        });
    }
    let missing = |c: Coverage| {
        let of = report.unrecorded.iter().filter(|u| u.coverage == c.name());
        of.map(|u| u.event).collect::<Vec<_>>().join(", ")
    };
    for (class, c) in [("warn", Coverage::NotRecorded), ("", Coverage::NotKnown)] {
        let events = missing(c);
        if !events.is_empty() {
            out.push((class, format!("{}: {events}", c.name())));
        }
    }
    for vm in &report.vms {
        if !vm.layout.id.is_empty() {
            let sure = if vm.layout.confidence.is_empty() {
                String::new()
            } else {
                format!(" ({})", vm.layout.confidence)
            };
            let text = format!("SPTE layout {}{sure}", vm.layout.id);
            if !out.iter().any(|(_, t)| *t == text) {
                out.push(("", text));
            }
        }
    }
    out
}

/// The verdict on lost events.
pub(crate) fn lost(r: &Recording) -> (&'static str, String) {
    match r.lost.losses {
        Losses::Counted { events, .. } => {
            ("bad", format!("{} lost", words::counted(events, "event", "events")))
        }
        Losses::Uncounted { moments } => {
            ("bad", format!("events lost at {}", words::counted(moments, "moment", "moments")))
        }
        Losses::Unreadable => ("warn", "whether events were lost is not known".to_owned()),
        _ if r.events == 0 => ("warn", "no events".to_owned()),
        Losses::None => ("good", "no event lost".to_owned()),
        Losses::Unknown => ("warn", Losses::Unknown.unknown().unwrap_or_default().to_owned()),
    }
}
