use super::*;
use mmuscope_analysis::diff::{
    Align, CoursePoint, Facts, FindingDiff, Group, Measure, Place, Value, Verdict, What,
};
use mmuscope_analysis::findings::Severity;

fn sample() -> Diff {
    let counted = |v: f64| Value { value: v, variance: Some(v), ..Value::default() };
    let timed = |v: f64, within| Value { value: v, within, ..Value::default() };
    let measure = |group, name: &str, what, a: Vec<Value>, b: Vec<Value>, verdict| Measure {
        group,
        name: name.to_owned(),
        what,
        a,
        b,
        verdict,
    };
    let facts = |file: &str, kernel: &str| Facts {
        files: vec![file.to_owned()],
        kernel: Some(kernel.to_owned()),
        mmu: "TDP MMU".to_owned(),
        duration: 2_000_000_000,
        events: 50_000,
        faults: 5_813,
        ..Facts::default()
    };
    Diff {
        schema: mmuscope_analysis::diff::SCHEMA,
        generator: "mmuscope 0".to_owned(),
        a: vec![facts("a<b>.dat", "6.1")],
        b: vec![facts("b\u{1b}[2J.dat", "6.12")],
        unlike: Vec::new(),
        rule: mmuscope_analysis::diff::ONE,
        changes: 1,
        measures: vec![
            measure(
                Group::Fault,
                "retry",
                What::Count,
                vec![counted(791.0)],
                vec![counted(1355.0)],
                Verdict::Change,
            ),
            measure(
                Group::Fault,
                "retry",
                What::P50,
                vec![timed(148_000.0, Some((140_000, 160_000)))],
                vec![timed(29_000.0, Some((28_000, 30_000)))],
                Verdict::Unsure,
            ),
            measure(Group::Exit, "<npf>|", What::Count, vec![counted(10.0)], Vec::new(), Verdict::Unknown),
            measure(
                Group::Time,
                "guest",
                What::Total,
                vec![timed(7e8, None)],
                vec![timed(6e8, None)],
                Verdict::Unsure,
            ),
        ],
        findings: vec![FindingDiff {
            id: "fault-loop",
            severity: Severity::Warning,
            a: 0,
            b: 1,
            title: "a <title>".to_owned(),
            verdict: Verdict::Unsure,
        }],
        align: Align::Progress,
        course: vec![CoursePoint {
            label: "50 %".to_owned(),
            at: [1, 2],
            present: [4096, 8192],
            huge: [0, 0],
            faults: [1, 2],
        }],
        ranges: vec![Place { gfn: 0x200, frames: 512, a: vec![3], b: vec![40], verdict: Verdict::Change }],
        frames: Vec::new(),
        notes: vec!["side A: kvm_exit is not recorded".to_owned()],
    }
}

#[test]
fn every_face_says_what_changed() {
    let d = sample();
    let text = render_text(&d, false);
    assert!(text.starts_with("1 change\n"), "{text}");
    for face in [&text, &render_markdown(&d), &render_html(&d)] {
        for said in [
            "791",
            "1,355",
            "x1.71",
            "140 µs to 160 µs",
            "x0.2",
            "not recorded",
            "-100 ms",
            "0x200–0x3ff",
            "fault-loop",
            "8 KiB",
        ] {
            assert!(face.contains(said), "{said}: {face}");
        }
    }
    let json: serde_json::Value = serde_json::from_str(&render_json(&d).expect("JSON")).expect("JSON");
    assert_eq!(json["measures"][0]["b"][0]["value"], 1355.0);
    assert_eq!((&json["measures"][0]["verdict"], &json["changes"]), (&"change".into(), &1.into()));
}

#[test]
fn nothing_of_a_trace_is_markup() {
    let d = sample();
    let (md, html) = (render_markdown(&d), render_html(&d));
    assert!(!html.contains("<b>") && !html.contains("<title>a") && !html.contains("<npf>"), "{html}");
    assert!(!md.contains("<b>") && !md.contains("<npf>|"), "{md}");
    for face in [&md, &html, &render_text(&d, true)] {
        assert!(!face.contains('\u{1b}'));
    }
}
