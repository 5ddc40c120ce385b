//! What every page must be: well-formed, self-contained, and safe against the names in a trace.

use std::collections::HashSet;

use crate::{
    Report, render_html, render_json, render_markdown,
    sample::{HOSTILE, empty, sample},
};

/// An element as the page has it: name and attributes.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
}

/// Reads a page as strictly as an XML parser would (void elements of HTML apart); the elements, and all text between them.
///
/// # Panics
/// Where the page is not well-formed.
fn parse(html: &str) -> (Vec<Element>, String) {
    const VOID: [&str; 4] = ["meta", "br", "img", "link"];
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    let (mut elements, mut text, mut open) = (Vec::new(), String::new(), Vec::<String>::new());
    while let Some(lt) = rest.find('<') {
        text.push_str(&rest[..lt]);
        rest = &rest[lt + 1..];
        if let Some(r) = rest.strip_prefix('/') {
            let end = r.find('>').expect("a closing tag ends");
            assert_eq!(open.pop().as_deref(), Some(&r[..end]), "closed in the wrong order");
            rest = &r[end + 1..];
            continue;
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).expect("a tag ends");
        let name = rest[..end].to_owned();
        assert!(!name.is_empty(), "a bare < before {:?}", &rest[..rest.len().min(40)]);
        rest = rest[end..].trim_start();
        let mut attributes: Vec<(String, String)> = Vec::new();
        while !rest.starts_with('>') {
            let eq = rest.find(['=', '>', ' ']).expect("an attribute ends");
            let key = rest[..eq].to_owned();
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric() || "-:_".contains(c)), "attribute {key:?}");
            assert!(attributes.iter().all(|(k, _)| *k != key), "<{name}> has {key} twice");
            let value = if let Some(v) = rest[eq..].strip_prefix("=\"") {
                let end = v.find('"').expect("a value ends");
                rest = v[end + 1..].trim_start();
                v[..end].to_owned()
            } else {
                rest = rest[eq..].trim_start();
                String::new()
            };
            assert!(!value.contains('<'), "{key}={value:?}");
            attributes.push((key, value));
        }
        rest = &rest[1..];
        if name == "style" {
            let end = rest.find("</style>").expect("the style ends");
            rest = &rest[end..];
        }
        if !VOID.contains(&name.as_str()) {
            open.push(name.clone());
        }
        elements.push(Element { name, attributes });
    }
    assert!(open.is_empty(), "left open: {open:?}");
    (elements, text)
}

fn pages() -> [(Report, String); 2] {
    [sample(), empty()].map(|r| {
        let html = render_html(&r);
        (r, html)
    })
}

#[test]
fn pages_are_well_formed_and_ids_are_unique() {
    for (_, html) in pages() {
        let (elements, text) = parse(&html);
        assert!(elements.len() > 20);
        // Every entity is one that we write.
        for part in text.split('&').skip(1) {
            let ok = ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| part.starts_with(e));
            assert!(ok, "entity in {:?}", &part[..part.len().min(20)]);
        }
        let value = |e: &Element, k: &str| e.attributes.iter().find(|(a, _)| a == k).map(|(_, v)| v.clone());
        let ids: Vec<String> = elements.iter().filter_map(|e| value(e, "id")).collect();
        let unique: HashSet<&String> = ids.iter().collect();
        assert_eq!(ids.len(), unique.len(), "{ids:?}");
        for e in &elements {
            for target in ["aria-labelledby"]
                .iter()
                .filter_map(|k| value(e, k))
                .flat_map(|v| v.split(' ').map(str::to_owned).collect::<Vec<_>>())
            {
                assert!(ids.contains(&target), "{target} is not there");
            }
            if let Some(to) = value(e, "href").and_then(|h| h.strip_prefix('#').map(str::to_owned)) {
                assert!(ids.contains(&to), "link to {to}");
            }
        }
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    for (_, html) in pages() {
        let (elements, _) = parse(&html);
        for e in &elements {
            assert!(
                ![
                    "script",
                    "iframe",
                    "object",
                    "embed",
                    "link",
                    "base",
                    "form",
                    "foreignObject",
                    "use",
                    "animate"
                ]
                .contains(&e.name.as_str()),
                "<{}>",
                e.name
            );
            for (k, v) in &e.attributes {
                assert!(!k.starts_with("on"), "{k}");
                match k.as_str() {
                    "href" | "src" | "xlink:href" => {
                        assert!(v.starts_with('#') || v.starts_with("data:image/png;base64,"), "{k}={v}");
                    }
                    "xmlns" => assert_eq!(v, "http://www.w3.org/2000/svg"),
                    "style" => assert!(!v.contains("url") && !v.contains("expression"), "{v}"),
                    _ => assert!(!v.contains("javascript:"), "{k}={v}"),
                }
            }
        }
        assert!(html.contains("Content-Security-Policy"));
        let style = &html[html.find("<style>").expect("style")..html.find("</style>").expect("style ends")];
        assert!(!style.contains("@import") && !style.contains("http") && !style.contains("url(\""));
        assert!(style.split("url(").skip(1).all(|u| u.starts_with("#p-")));
    }
}

#[test]
fn hostile_names_stay_text_everywhere() {
    let (_, html) = &pages()[0];
    // As often as it is shown, it is shown escaped.
    assert!(html.matches("&lt;script&gt;alert(1)").count() > 15);
    for raw in ["<script>alert", "<img src=x", "\u{202e}"] {
        assert!(!html.contains(raw), "{raw:?}");
    }
    let markdown = render_markdown(&sample());
    for raw in ["<script", "<img", "[a](b)", "\u{202e}", "\n# h"] {
        assert!(!markdown.contains(raw), "{raw:?}");
    }
    // JSON keeps names as they are: whoever shows them escapes them. It must only stay JSON.
    let json: serde_json::Value =
        serde_json::from_str(&render_json(&sample()).expect("json")).expect("parses");
    assert_eq!(json["recording"]["host"][1]["name"], HOSTILE);
}

#[test]
fn pictures_have_words_and_tables_have_captions() {
    let (_, html) = &pages()[0];
    let (elements, _) = parse(html);
    let count = |name: &str| elements.iter().filter(|e| e.name == name).count();
    assert_eq!(count("table"), count("caption"));
    let pictures: Vec<_> = elements.iter().filter(|e| e.name == "image").collect();
    assert_eq!(pictures.len(), 2, "one for light, one for dark");
    for p in pictures {
        let label = p.attributes.iter().find(|(k, _)| k == "aria-label").map(|(_, v)| v.as_str());
        assert!(label.is_some_and(|l| l.starts_with("Map of ")), "{label:?}");
    }
    for svg in elements.iter().filter(|e| e.name == "svg") {
        let has = |k: &str| svg.attributes.iter().any(|(a, _)| a == k);
        assert!(has("aria-hidden") || has("aria-labelledby"), "a picture without words");
    }
    // The legend names every state of the map and the overlays, and shows a pattern for each.
    for word in [
        "present, writable",
        "present, read-only",
        "MMIO",
        "nonpresent",
        "unknown",
        "faded: stale",
        "assumed or implied",
        "events were lost",
    ] {
        assert!(html.contains(word), "{word}");
    }
    for pattern in ["p-mmio", "p-read-only", "p-unknown", "p-removed", "p-access-tracked"] {
        assert!(html.contains(&format!("id=\"{pattern}\"")), "{pattern}");
    }
}

/// Notes come from a file that anyone can send, so that they are as little trusted as the trace.
#[test]
fn notes_are_in_every_form_and_stay_text() {
    let mut r = sample();
    r.notes = vec![crate::NoteReport {
        at: 1_500_000,
        vm: 0,
        gfn: Some(0xfee00),
        text: format!("here: {HOSTILE}"),
    }];
    let html = render_html(&r);
    let (elements, text) = parse(&html);
    assert!(text.contains("here: ") && text.contains("0xfee00"), "{text}");
    assert!(!elements.iter().any(|e| e.name == "script"), "a note is text");
    let md = render_markdown(&r);
    assert!(md.contains("## Notes") && md.contains("0xfee00") && md.contains("0.0015"), "{md}");
    assert!(!md.contains("<script>"));
    let json: serde_json::Value = serde_json::from_str(&render_json(&r).expect("json")).expect("parses");
    assert_eq!(json["notes"][0]["at"], 1_500_000);
}

/// The figure as a file stands alone: it is well-formed, names no variable, and loads nothing.
#[test]
fn a_figure_is_a_file_of_its_own() {
    for (report, page) in pages() {
        let Some(vm) = report.vms.first() else {
            assert!(crate::render_svg(&report, 0, 0).is_none());
            continue;
        };
        let svg = crate::render_svg(&report, vm.vm, vm.spaces[0].as_id).expect("a figure");
        let (elements, text) = parse(&format!("<!DOCTYPE html>{svg}"));
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(!elements.is_empty() && text.contains("Guest frames over time"), "{text}");
        assert!(!svg.contains("var(--") && !svg.contains("@media"), "a variable is left");
        assert!(!svg.replace("http://www.w3.org/2000/svg", "").contains("http"), "nothing is loaded");
        // What the page draws, the file draws.
        let drawn = |s: &str| s.matches("<image").count();
        assert!(drawn(&svg) > 0 && drawn(&page) >= drawn(&svg));
    }
    assert!(crate::render_svg(&pages()[1].0, 99, 0).is_none());
}

#[test]
fn dark_is_for_screens_only() {
    let html = render_html(&empty());
    assert!(html.contains("@media screen and (prefers-color-scheme:dark)"));
    assert_eq!(html.matches("prefers-color-scheme").count(), 1);
}

#[test]
fn json_has_the_promised_fields() {
    let json: serde_json::Value =
        serde_json::from_str(&render_json(&sample()).expect("json")).expect("parses");
    let keys = |v: &serde_json::Value| {
        v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(json["schema"], "mmuscope-report/1");
    assert_eq!(
        keys(&json),
        [
            "events",
            "evidence",
            "generator",
            "lost",
            "notes",
            "part",
            "phases",
            "recording",
            "schema",
            "snapshots",
            "stands_out",
            "story",
            "title",
            "unrecorded",
            "vms"
        ]
    );
    let vm = &json["vms"][0];
    assert_eq!(
        keys(vm),
        [
            "counted",
            "faults",
            "layout",
            "mmio",
            "mmu",
            "name",
            "outside_slots",
            "pid",
            "provenance",
            "spaces",
            "top_faults",
            "top_zaps",
            "torn_down",
            "vcpus",
            "vm"
        ]
    );
    assert_eq!(keys(&vm["spaces"][0]), ["as_id", "memory", "memory_at", "over_time", "slots"]);
    assert_eq!(vm["spaces"][0]["slots"][0]["hva"], "0x7f0000000000");
    assert_eq!(vm["faults"]["outcomes"][0]["latency"]["p99"], 1_200_000);
    assert_eq!(vm["mmio"][0]["gpa"], "0xfee00000");
}

/// Two VMs of one name, as two QEMUs are; each process marked its own phases, and a script one more.
fn two_vms() -> Report {
    let mut r = sample();
    r.vms[0].name = "qemu-system-x86".into();
    let mut second = r.vms[0].clone();
    (second.vm, second.faults.total, second.spaces[0].over_time.end_bytes) = (1, 3, 0);
    for level in &mut second.spaces[0].over_time.present_bytes {
        level.bytes.clear();
    }
    second.torn_down = Some(crate::model::TeardownReport {
        start: 900_000_000,
        end: 901_000_000,
        tid: 77,
        by: "qemu-77, the last thread to let go of it".into(),
    });
    r.vms.push(second);
    for (i, p) in r.phases.iter_mut().enumerate() {
        p.vm = [Some(0), None, Some(1)][i];
    }
    // Each has two, so that one of them is the busiest.
    r.phases.extend(r.phases.clone());
    for (i, p) in r.phases.iter_mut().enumerate() {
        p.faults = [940, 5, 3, 20, 5, 0][i];
    }
    r.story = crate::story::story(&r);
    r
}

#[test]
fn what_is_said_of_two_vms_names_them() {
    let r = two_vms();
    for (i, p) in r.story.iter().enumerate().filter(|(_, p)| !p.contains("lost")) {
        let vm = i / 2;
        assert!(p.contains(&format!("VM {vm} (qemu-system-x86)")), "{p}");
        assert!(!p.contains(&format!("VM {} ", 1 - vm)), "{p}");
    }
    let of = |vm: usize| r.story[vm * 2 + 1].as_str();
    assert!(of(0).contains("The busiest of the 2 phases is “boot” with 940 faults"), "{}", of(0));
    assert!(of(1).contains("The busiest of the 2 phases is “dirty-log” with 3 faults"), "{}", of(1));
    assert!(of(1).contains("all of it is gone: the VM was torn down after 900 ms, by qemu-77"), "{}", of(1));
    assert!(!of(0).contains("torn down"), "{}", of(0));
    let lists: Vec<_> = r.phase_lists().iter().map(|(of, l)| (of.clone(), l.len())).collect();
    let vm = |n: u8| (format!("VM {n} (qemu-system-x86)"), 2);
    assert_eq!(lists, [vm(0), vm(1), ("marked by no VM's process".to_owned(), 2)]);
}

#[test]
fn headings_and_ids_of_two_vms_are_unique() {
    let r = two_vms();
    let unique = |all: &[String]| {
        let set: HashSet<&String> = all.iter().collect();
        assert!(all.len() > 10);
        assert_eq!(set.len(), all.len(), "{all:#?}");
    };
    // A reader of Markdown makes anchors out of headings.
    let markdown = render_markdown(&r);
    unique(&markdown.lines().filter(|l| l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>());
    let (elements, _) = parse(&render_html(&r));
    let ids = elements.iter().flat_map(|e| &e.attributes).filter(|(k, _)| k == "id");
    unique(&ids.map(|(_, v)| v.clone()).collect::<Vec<_>>());
}

#[test]
fn no_fault_is_said_only_of_a_trace_that_has_faults() {
    let mut r = two_vms();
    r.vms[1].faults.total = 0;
    assert!(crate::story::story(&r)[2].ends_with("VM 1 (qemu-system-x86) took no page fault."));
    r.vms[0].faults.total = 0;
    for p in crate::story::story(&r).iter().filter(|p| p.contains("page fault")) {
        assert!(p.contains("page faults were not recorded, or there were none"), "{p}");
    }
}

#[test]
fn markdown_of_a_small_report() {
    // Names without traps: this one is for people to read.
    let text = render_json(&sample()).expect("json");
    assert!(text.len() > 1000);
    let mut r = sample();
    r.title = "load on Linux 6.12.107".into();
    r.vms[0].name = "load".into();
    r.story = crate::story::story(&r);
    // SNAPSHOTS=overwrite writes it anew.
    let wanted = snapbox::file!["snapshots/markdown_of_a_small_report.md"].raw();
    snapbox::assert_data_eq!(render_markdown(&r), wanted);
}
