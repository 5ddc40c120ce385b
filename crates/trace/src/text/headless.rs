//! Events whose head was left out, as in commit messages and in the output of `sort | uniq -c`: which event is known, but not whose and when. The main
//! function is [`parse`].

use super::head::Head;
use crate::schema::{Kind, tracepoint};

/// The most words before the name of the event: a count, the mark of a list or of what was left out.
const MOST_BEFORE: usize = 2;

/// The event of a line that begins with its name, and the text of it. All that a head says is empty.
pub(crate) fn parse(line: &[u8]) -> Option<Head<'_>> {
    let mut rest = line.trim_ascii();
    for _ in 0..=MOST_BEFORE {
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let behind = behind.trim_ascii_start();
        if let Some(name) = word.strip_suffix(b":") {
            let (system, event) = match name.iter().position(|b| *b == b':') {
                Some(n) => (Some(&name[..n]), &name[n + 1..]),
                None => (None, name),
            };
            tracepoint(event).filter(|tp| tp.kind != Kind::Marker)?;
            return (!behind.is_empty()).then_some(Head { system, event, rest: behind, ..Head::default() });
        }
        // Only a count and marks may stand before it.
        if word.is_empty() || word.iter().any(u8::is_ascii_alphabetic) {
            return None;
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn names_begin_the_line() {
        for line in [
            "kvm_entry: vcpu 0",
            "  711 kvm_entry:  vcpu 0",
            " * kvm:kvm_entry: vcpu 0",
            "[...] kvm_entry: vcpu 0",
        ] {
            let h = parse(line.as_bytes()).unwrap_or_else(|| panic!("no event in {line}"));
            assert_eq!((h.event, h.rest), (&b"kvm_entry"[..], &b"vcpu 0"[..]), "{line}");
        }
        for line in [
            "",
            "kvm_entry",
            "kvm_entry:",
            "see kvm_entry: it comes often",
            "kvm: x",
            "tracing_mark_write: a",
            "1 2 3 kvm_entry: vcpu 0",
        ] {
            assert!(parse(line.as_bytes()).is_none(), "{line}");
        }
    }
}
