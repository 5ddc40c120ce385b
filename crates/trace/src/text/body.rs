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
    if let Some(p) = pairs::looks_like(rest) {
        let mut f = pairs::Pairs::new(rest, p, gaps);
        if let Some(b) = from_fields(tp, &mut f, m, strings) {
            return Some(b);
        }
    }
    from_text(tp, Scan(rest), &mut Texts { strings, gaps })
}
