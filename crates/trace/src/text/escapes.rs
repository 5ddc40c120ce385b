//! Takes away what colours a text in a terminal: `grep --color=always`, loggers, `less -R`. The main function is [`plain`].

use std::borrow::Cow;

const ESCAPE: u8 = 0x1b;

/// A text without the control sequences of a terminal; it is copied only if it has any. `^[` is how other programs show the escape character.
pub(crate) fn plain(text: &[u8]) -> Cow<'_, [u8]> {
    if !may_have_any(text) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        match sequence(rest) {
            0 => {
                out.push(*first);
                rest = behind;
            }
            n => rest = &rest[n..],
        }
    }
    if out.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Whether a text can have such sequences. This is asked of every text, and is as fast as memory.
pub(crate) fn may_have_any(text: &[u8]) -> bool {
    text.contains(&ESCAPE) || text.contains(&b'^') && text.windows(3).any(|w| w == b"^[[")
}

/// The length of the control sequence that a text begins with; 0 if it begins with none.
fn sequence(text: &[u8]) -> usize {
    let (start, behind) = match text {
        [ESCAPE, behind @ ..] => (1, behind),
        [b'^', b'[', b'[', ..] => (2, &text[2..]),
        _ => return 0,
    };
    let run = |from: usize, of: std::ops::RangeInclusive<u8>| {
        behind.get(from..).map_or(0, |b| b.iter().take_while(|b| of.contains(b)).count())
    };
    match behind.first() {
        // CSI: parameters, intermediate bytes, and one that ends it.
        Some(b'[') => {
            let parameters = 1 + run(1, b'0'..=b'?');
            let end = parameters + run(parameters, b' '..=b'/');
            start + end + usize::from(behind.get(end).is_some_and(|b| (b'@'..=b'~').contains(b)))
        }
        // OSC, for instance a link: a text that BEL or ESC \\ ends. An end that is missing in the line is that of the line.
        Some(b']') => {
            let ends = |b: &u8| matches!(*b, 7 | ESCAPE | b'\n');
            let end = behind.iter().position(ends).unwrap_or(behind.len());
            let own = match &behind[end..] {
                [7, ..] => 1,
                [ESCAPE, b'\\', ..] => 2,
                _ => 0,
            };
            start + end + own
        }
        // Others have intermediate bytes and one that ends them.
        Some(b' '..=b'~') => {
            let end = run(0, b' '..=b'/');
            start + end + usize::from(behind.get(end).is_some_and(|b| (b'0'..=b'~').contains(b)))
        }
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_taken_away() {
        for (text, want) in [
            ("\x1b[01;31m\x1b[Kspte\x1b[m\x1b[K 0x1", "spte 0x1"),
            ("a\x1b[38;5;12mb\x1b[0m", "ab"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07 y", "link y"),
            ("\x1b]0;no end\nnext", "\nnext"),
            ("\x1b(Bx\x1b=y", "xy"),
            ("^[[32mgreen^[[0m", "green"),
            ("cut \x1b[3", "cut "),
            ("cut \x1b", "cut "),
        ] {
            assert_eq!(plain(text.as_bytes()).as_ref(), want.as_bytes(), "{text:?}");
        }
    }

    /// A text that has none is not copied, however much it looks like one.
    #[test]
    fn other_texts_are_not_copied() {
        for text in ["", "x-1 [000] 1.0: y", "a ^ b", "2^[3]", "[01;31m"] {
            assert!(matches!(plain(text.as_bytes()), Cow::Borrowed(t) if t == text.as_bytes()), "{text}");
        }
    }
}
