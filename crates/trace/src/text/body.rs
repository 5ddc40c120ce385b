//! The part of a line after `event: `, in one of three forms: the kernel's own `print fmt`, libtraceevent's kvm plugin, or `name=value` pairs.

use crate::event::Body;
use crate::fields::Meaning;
use crate::schema::text::{Gaps, Texts};
use crate::schema::{Tp, from_fields, from_text};
use crate::strings::Strings;
use crate::text::pairs;
use crate::text::scan::Scan;

/// Reads the body of a typed event; `None` if the text has none of the known forms.
pub(crate) fn parse(
    tp: Tp,
    rest: &[u8],
    m: &Meaning,
    strings: &mut Strings,
    gaps: &mut Gaps,
) -> Option<Body> {
    let rest = without_complaints(rest);
    if let Some(p) = pairs::looks_like(rest) {
        let mut f = pairs::Pairs::new(rest, p, gaps);
        if let Some(b) = from_fields(tp, &mut f, m, strings) {
            return Some(b);
        }
    }
    from_text(tp, Scan(rest), &mut Texts { strings, gaps })
}

/// Skips what libtraceevent prints when a plugin looks for a field that the kernel's event no longer has. The event follows as the kernel prints it.
fn without_complaints(mut rest: &[u8]) -> &[u8] {
    loop {
        let complaint = [(&b"CAN'T FIND FIELD \""[..], b'"'), (b"<CANT FIND FIELD ", b'>')];
        let behind = complaint.into_iter().find_map(|(start, end)| {
            let name = rest.strip_prefix(start)?;
            name.get(name.iter().position(|b| *b == end)? + 1..)
        });
        match behind {
            Some(behind) => rest = behind.trim_ascii_start(),
            None => return rest,
        }
    }
}
