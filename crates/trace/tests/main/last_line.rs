//! Texts that do not end in a line end: a whole last line counts, and no part of one is taken for a whole.

use mmuscope_trace::{Body, ReadOptions, TRACEPOINTS, Trace};

use crate::support::plain;

const HEAD: &str = "           vmm-7       [001] .....     5.000002: ";

fn read(text: &str) -> Trace {
    Trace::from_bytes_with(text.as_bytes(), "ends", &ReadOptions::default()).expect("a trace")
}

fn first() -> String {
    format!("{HEAD}kvm_entry: vcpu 0, rip 0x6000\n")
}

/// The last event of a text in words, if it is typed.
fn last(t: &Trace) -> Option<String> {
    let e = (t.events.len() > 1).then(|| t.events.iter().last()).flatten()?;
    (!matches!(e.body, Body::Other { .. } | Body::Damage { .. })).then(|| plain(&e, &t.strings))
}

/// The number of events, without the notes of damage.
fn events(t: &Trace) -> usize {
    t.events.iter().filter(|e| e.body.is_event()).count()
}

/// Every event of the schema, as its text says, counts without a line end, and all of it is used or the text says why not.
#[test]
fn a_whole_last_line_counts() {
    let mut open = Vec::new();
    for t in TRACEPOINTS {
        let line = format!("{}{HEAD}{}: {}", first(), t.names[0], t.example);
        let (whole, cut) = (read(&format!("{line}\n")), read(&line));
        if last(&whole).is_none() {
            // A probe has a text of its own.
            continue;
        }
        assert_eq!(events(&cut), 2, "{line}");
        if last(&cut).is_none() {
            let damage = cut.info.damage.iter().map(|d| d.message.as_str()).collect::<Vec<_>>();
            assert!(matches!(damage[..], [m] if m.contains("may be cut short")), "{line}: {damage:?}");
            open.push(t.names[0]);
            continue;
        }
        assert_eq!(last(&cut), last(&whole), "{line}");
        assert_eq!(cut.info.damage, [], "{line}");
    }
    // Those whose last number has as many digits as it needs.
    for name in ["kvm_tdp_mmu_spte_changed", "kvm_page_fault", "kvm_mmu_set_spte"] {
        assert!(open.contains(&name), "{name} can be cut within its last number: {open:?}");
    }
    for name in [
        "kvm_exit",
        "kvm_unmap_hva_range",
        "kvm_userspace_exit",
        "kvm_mmu_get_page",
        "fast_page_fault",
        "kvm_emulate_insn",
    ] {
        assert!(!open.contains(&name), "{name} shows its end: {open:?}");
    }
}

/// However the last line is cut within a word, it gives the event of the whole line or none. A line that is cut between two words may be one of a
/// kernel that prints less.
#[test]
fn a_part_of_a_line_is_no_event() {
    for t in TRACEPOINTS {
        let line = format!("{HEAD}{}: {}", t.names[0], t.example);
        let whole = last(&read(&format!("{}{line}\n", first())));
        for at in 1..line.len() {
            let word = |b: u8| b.is_ascii_alphanumeric();
            let bytes = line.as_bytes();
            if !line.is_char_boundary(at) || !word(bytes[at - 1]) || !word(bytes[at]) {
                continue;
            }
            let cut = read(&format!("{}{}", first(), &line[..at]));
            if let Some(event) = last(&cut) {
                assert_eq!(Some(event), whole, "cut to {:?}", &line[..at]);
            } else {
                assert!(cut.info.is_partial(), "{:?} says nothing", &line[..at]);
            }
        }
    }
}

/// A number that is as long as in the other events of its kind is taken for a whole one, and the text says so.
#[test]
fn numbers_of_the_usual_length_are_used() {
    let change = |new: &str| {
        format!("{HEAD}kvm_tdp_mmu_spte_changed: as id 0 gfn 2 level 1 old_spte 0 new_spte {new}")
    };
    for wrap in [" ", "\n"] {
        let text = |new: &str| {
            format!("{}\n{}", change("600000123456b77"), change(new))
                .replace(" old_spte", &format!("{wrap}old_spte"))
        };
        let t = read(&text("600000123457b77"));
        let new = t.events.iter().filter_map(|e| match e.body {
            Body::TdpSpteChanged { new_spte, .. } => Some(new_spte),
            _ => None,
        });
        assert_eq!(new.collect::<Vec<_>>(), [0x0600_0001_2345_6b77, 0x0600_0001_2345_7b77]);
        assert_eq!(t.info.damage, []);
        assert!(t.info.notes.iter().any(|n| n.contains("taken for a whole one")), "{:?}", t.info.notes);
        for cut in ["6", "60000012345", "600000123457b7"] {
            let t = read(&text(cut));
            let typed = t.events.iter().filter(|e| matches!(e.body, Body::TdpSpteChanged { .. })).count();
            assert_eq!((typed, t.info.damage.len()), (1, 1), "{cut}");
        }
    }
}

/// Prose behind a single event is no part of it, whatever letters it begins with.
#[test]
fn prose_is_no_digits() {
    for end in ["", "\n"] {
        let t = read(&format!("{}Before that all was well.{end}", first()));
        let bodies: Vec<Body> = t.events.iter().map(|e| e.body).collect();
        assert!(matches!(bodies[..], [Body::Entry { rip: Some(0x6000), .. }]), "{bodies:x?}");
        assert_eq!(t.info.damage, []);
    }
}

/// The last line may be the rest of a wrapped event, or no event at all.
#[test]
fn other_last_lines() {
    let wrapped = format!("{HEAD}kvm_userspace_exit: reason\nKVM_EXIT_INTERNAL_ERROR (17)");
    let t = read(&wrapped);
    assert!(matches!(t.events.iter().last().map(|e| e.body), Some(Body::UserspaceExit { reason: 17, .. })));
    assert_eq!(t.info.damage, []);
    let log = "[   9.156739] kvm_intel: kvm [13696]: TD exit 0xe0";
    for line in ["That is all.", "```", "# comment", "CPU:1 [LOST 12 EVENTS]", log, "  and that [1] is all"] {
        let t = read(&format!("{}{line}", first()));
        assert_eq!(t.info.damage, [], "{line}");
        assert_eq!(events(&t), 1, "{line}");
    }
    let lost = read(&format!("{}CPU:1 [LOST 12 EVENTS]", first()));
    assert!(lost.events.iter().any(|e| matches!(e.body, Body::Lost { count: Some(12), .. })));
}
