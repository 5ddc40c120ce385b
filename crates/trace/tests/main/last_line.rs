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
    for name in ["kvm_tdp_mmu_spte_changed", "kvm_page_fault", "kvm_entry"] {
        assert!(open.contains(&name), "{name} can be cut within its last number: {open:?}");
    }
    for name in ["kvm_exit", "kvm_userspace_exit", "kvm_mmu_get_page", "fast_page_fault", "kvm_emulate_insn"]
    {
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
    for line in ["That is all.", "```", "# comment", "CPU:1 [LOST 12 EVENTS]"] {
        let t = read(&format!("{}{line}", first()));
        assert_eq!(t.info.damage, [], "{line}");
        assert_eq!(events(&t), 1, "{line}");
    }
    let lost = read(&format!("{}CPU:1 [LOST 12 EVENTS]", first()));
    assert!(lost.events.iter().any(|e| matches!(e.body, Body::Lost { count: Some(12), .. })));
}
