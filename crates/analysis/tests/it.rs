//! Tables and their filters.

#[path = "support/rows.rs"]
mod rows;
#[path = "support/whose.rs"]
mod whose;

use mmuscope_analysis::Filter;
use mmuscope_analysis::events::EVENTS;
use mmuscope_analysis::table::describe;
use mmuscope_analysis::visual::Visual;
use rows::{TABLES, rows};
use std::path::Path;

fn passing(expr: &str) -> Vec<usize> {
    let chunk = rows().take();
    let filter = Filter::new(expr, &EVENTS).unwrap_or_else(|e| panic!("{e}"));
    let passing = filter.matches(&chunk);
    assert_eq!(filter.apply(chunk).height(), passing.iter().filter(|p| **p).count());
    passing.iter().enumerate().filter(|(_, p)| **p).map(|(n, _)| n).collect()
}

#[test]
fn expressions_choose_rows() {
    assert_eq!(passing("level == 1 and new_spte != 0"), [3]);
    assert_eq!(passing("gfn = 0x100"), [1, 2, 3, 4]);
    assert_eq!(passing("event == kvm_exit or event == 'kvm_mmu_set_spte'"), [0, 4]);
    assert_eq!(passing("error_code & 0x2 != 0 and event == kvm_page_fault"), [1]);
    assert_eq!(passing("event like 'kvm_mmu_*'"), [2, 4]);
    assert_eq!(passing("text contains 'mark'"), [5]);
    assert_eq!(passing("comm starts with lo && tid in (110, 111) && cpu == 1 && ts >= 3us"), [3, 4]);
    assert_eq!(passing("text is not null"), [5]);
    assert_eq!(passing("w"), [4]);
    assert_eq!(passing("not w or level * 2 + 1 == 3 and pfn is null"), [3, 4]);
    // Next to a column that is printed in hex, numbers are hex with or without `0x`.
    assert_eq!(passing("gfn == 100"), [1, 2, 3, 4]);
    assert_eq!(passing("100 == gfn and pfn == 7ea1"), [2]);
    assert_eq!(passing("gfn in (99, 0d256)"), [1, 2, 3, 4]);
    assert_eq!(passing("new_spte == fee00 or new_spte > 7ea1e66 and gfn % 256 == 0"), [3]);
    assert_eq!(passing("level not in (2, 3) and event not like 'kvm_mmu*'"), [3]);
    assert_eq!(passing("ts > 4us and ts <= 0.000005s"), [5]);
    // A null is neither equal nor different.
    assert_eq!(passing("new_spte == 0").len() + passing("new_spte != 0").len(), 1);
    // The whole range of 64 bits, exactly.
    assert_eq!(passing("new_spte < 0xffffffffffffffff and new_spte - 0x7ea1e68 == -1"), [3]);
}

#[test]
fn what_is_wrong_in_an_expression_is_pointed_at() {
    for (text, at, hint) in [
        ("levle == 1", 0, "no column `levle`"),
        ("level = ", 8, "missing here"),
        ("level == 'one'", 9, "of one kind"),
        ("level", 0, "a comparison"),
        ("(level == 1", 11, "`)` is missing"),
        ("event == 'x", 9, "not closed"),
        ("level == 1 level == 2", 11, "does not belong"),
        ("level == 0xzz", 9, "no number"),
        ("ts > 1.5", 5, "needs a unit here: 1.5s"),
        ("gfn == xyz", 7, "no column `xyz`"),
        ("event + 1 == 2", 0, "calculated"),
        ("level == 1 and §", 15, "has no meaning"),
    ] {
        let e = Filter::new(text, &EVENTS).expect_err(text);
        assert_eq!(e.at, at, "{text}: {e}");
        assert!(e.to_string().contains(hint), "{text}: {e}");
    }
    let deep = format!("{}level == 1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(Filter::new(&deep, &EVENTS).is_err(), "no stack is overrun");
    assert!(Filter::new(&"not ".repeat(10_000), &EVENTS).is_err());
}

#[test]
fn names_are_unique_and_speak() {
    for table in TABLES {
        let mut names: Vec<&str> = table.columns.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), table.columns.len(), "{}", table.name);
        assert!(
            table.lead <= table.columns.len() && table.columns.iter().all(|c| !c.doc.is_empty()),
            "{}",
            table.name
        );
    }
}

#[test]
fn the_documentation_lists_every_column() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tables.md");
    let text = std::fs::read_to_string(&path).expect("docs/tables.md");
    let mut want = text.clone();
    for table in TABLES {
        let (begin, end) = (format!("<!-- {} -->\n", table.name), format!("<!-- end of {} -->", table.name));
        let start =
            want.find(&begin).unwrap_or_else(|| panic!("docs/tables.md has no {begin}")) + begin.len();
        let stop = want.find(&end).unwrap_or_else(|| panic!("docs/tables.md has no {end}"));
        want.replace_range(start..stop, &describe(table));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &want).expect("docs/tables.md is written");
    }
    let now = std::fs::read_to_string(&path).expect("docs/tables.md");
    assert!(now == want, "docs/tables.md is behind: UPDATE=1 cargo test -p mmuscope-analysis");
}

#[test]
fn the_guide_explains_states_as_legends_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/report.md");
    let text = std::fs::read_to_string(path).expect("docs/guide/report.md");
    for state in Visual::builtin().legend().filter(|s| s.id != "table") {
        let row = format!("| {} |", state.about);
        assert!(text.contains(&row), "visual.toml explains `{}`, and the guide has no `{row}`", state.id);
    }
}
