//! Undoes what mails, bug trackers, terminals and loggers do to the lines of a text: quote marks, damaged blanks, quoted-printable, HTML,
//! and the prefixes of a log. The main function is [`lines`].

use std::borrow::Cow;

use super::escapes;

/// How many lines of a text were not as a tool prints them, by what was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    /// Lines with quote marks of a mail.
    pub(crate) unquoted: u64,
    /// Lines with blanks that are not spaces or tabs, or that were damaged.
    pub(crate) blanks: u64,
    /// Lines in quoted-printable, or with HTML entities.
    pub(crate) decoded: u64,
    /// Lines with the prefix of a log.
    pub(crate) prefixed: u64,
    /// Lines with the control sequences of a terminal.
    pub(crate) coloured: u64,
    /// Lines with the name of their file or their number before them.
    pub(crate) numbered: u64,
    /// Lines that are the rest of the line before.
    pub(crate) joined: u64,
}

impl Mended {
    pub(crate) fn add(&mut self, o: &Self) {
        self.unquoted += o.unquoted;
        self.blanks += o.blanks;
        self.decoded += o.decoded;
        self.prefixed += o.prefixed;
        self.coloured += o.coloured;
        self.numbered += o.numbered;
        self.joined += o.joined;
    }

    /// What was undone, in words; `None` if nothing was.
    pub(crate) fn words(&self) -> Option<String> {
        let parts: Vec<String> = [
            (
                self.joined,
                if self.joined == 1 {
                    "joined to the line before (it had been wrapped)"
                } else {
                    "joined to the line before (they had been wrapped)"
                },
            ),
            (self.unquoted, "stripped of quote marks"),
            (self.blanks, "given plain blanks in place of damaged or non-breaking ones"),
            (self.decoded, "decoded from quoted-printable or HTML"),
            (self.prefixed, "stripped of the prefix of a log"),
            (self.coloured, "stripped of colours and other control sequences of a terminal"),
            (self.numbered, "stripped of grep's file name or line number"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
        (!parts.is_empty()).then(|| {
            format!("The text is not as its tool printed it, and its lines were mended: {}", parts.join("; "))
        })
    }
}

/// A line without anything that was added to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// The offset at which it begins, and its number from 0.
    pub(crate) at: usize,
    pub(crate) number: usize,
    /// The number of columns it had, without blanks at its end.
    pub(crate) width: usize,
    /// Whether a logger began it, so that it is not the rest of another line.
    pub(crate) stamped: bool,
}

/// All lines of a text, cleaned.
pub(crate) fn lines(text: &[u8], mended: &mut Mended) -> Vec<Line> {
    let printable = is_quoted_printable(text);
    let numbered = count_up(text);
    let mut out: Vec<Line> = Vec::new();
    let mut at = 0;
    // Whether the line continues after a soft break of quoted-printable.
    let mut soft = false;
    for (number, raw) in text.split(|b| *b == b'\n').enumerate() {
        let start = at;
        at += raw.len() + 1;
        if at > text.len() + 1 || raw.is_empty() && start == text.len() {
            break;
        }
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        let mut raw = Cow::Borrowed(raw);
        if numbered && let Some((_, _, length)) = number_before(&raw) {
            mended.numbered += 1;
            raw = Cow::Owned(raw[length..].to_vec());
        }
        let goes_on = printable && raw.trim_ascii_end().ends_with(b"=");
        if printable && raw.contains(&b'=') {
            mended.decoded += 1;
            raw = Cow::Owned(unprintable(&raw));
        } else if trails_blank(&raw) {
            mended.decoded += 1;
            let n = raw.len() - 3;
            raw.to_mut().truncate(n);
        }
        if let Cow::Owned(plain) = escapes::plain(&raw) {
            mended.coloured += 1;
            raw = Cow::Owned(plain);
        }
        let decoded = String::from_utf8_lossy(&raw);
        let mut line = clean(&decoded, mended);
        (line.at, line.number) = (start, number);
        match out.last_mut().filter(|_| soft) {
            Some(before) => {
                before.text.push_str(&line.text);
                before.width += line.width;
            }
            None => out.push(line),
        }
        soft = goes_on;
    }
    for line in &mut out {
        line.text.truncate(line.text.trim_end().len());
    }
    out
}

/// Reads the number of a line before it, `7:` or `7-`: the number, the mark and their length. A longer number is an address.
pub(super) fn number_before(line: &[u8]) -> Option<(u64, u8, usize)> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let mark = *line.get(digits).filter(|b| matches!(b, b':' | b'-'))?;
    let text = std::str::from_utf8(&line[..digits]).ok().filter(|_| digits <= 7)?;
    Some((text.parse().ok()?, mark, digits + 1))
}

/// Whether all lines of a text have numbers before them, which count up.
fn count_up(text: &[u8]) -> bool {
    let (mut last, mut lines) = (0, 0);
    for line in text.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
        match number_before(line) {
            Some((n, b':', _)) if n > last => last = n,
            _ => return false,
        }
        lines += 1;
    }
    lines > 1
}

/// Cleans one line.
fn clean(raw: &str, mended: &mut Mended) -> Line {
    let mut text = Cow::Borrowed(raw);
    let untagged = without_tags(raw);
    if let Some(plain) = without_entities(untagged.as_deref().unwrap_or(raw)).or(untagged) {
        mended.decoded += 1;
        text = Cow::Owned(plain);
    }
    let width = text.trim_end().chars().count();
    let damaged = |c: char| is_blank(c) && !matches!(c, ' ' | '\t') || c == '\u{fffd}';
    if text.chars().any(|c| damaged(c) || is_nothing(c) || c == '\t') {
        mended.blanks += u64::from(text.chars().any(damaged));
        let mend = |c: char| if damaged(c) || c == '\t' { ' ' } else { c };
        text = Cow::Owned(text.chars().filter(|c| !is_nothing(*c)).map(mend).collect());
    }
    let unquoted = unquoted(&text);
    mended.unquoted += u64::from(unquoted.len() != text.len());
    let own = unprefixed(unquoted);
    let stamped = own.len() != unquoted.len();
    mended.prefixed += u64::from(stamped);
    Line { text: own.to_owned(), at: 0, number: 0, width, stamped }
}

/// Whether a character is a blank of any width.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

/// Whether a character has no width.
fn is_nothing(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\0')
}

/// Removes the quote marks of a mail. A tool pads the task's name to 16 columns, so that the first column is blank; a mark there was added
/// later.
fn unquoted(text: &str) -> &str {
    let mut rest = text;
    loop {
        let inner = rest.strip_prefix(' ').unwrap_or(rest);
        if let Some(r) = inner.strip_prefix('>') {
            rest = r;
        } else if let Some(r) = inner.strip_prefix("| ").filter(|r| !r.trim_end().ends_with('|')) {
            rest = r;
        } else {
            break;
        }
    }
    if rest.len() == text.len() { text } else { rest.strip_prefix(' ').unwrap_or(rest) }
}

/// The length of the HTML tag that a text begins with, of those that surround lines of a text on a page; 0 where there is none. A task's name may
/// begin with `<` as well (`<idle>`).
pub(crate) fn tag(text: &[u8]) -> usize {
    const NAMES: [&str; 10] = ["pre", "code", "br", "p", "div", "span", "tt", "samp", "blockquote", "td"];
    let Some(inner) = text.strip_prefix(b"<") else { return 0 };
    let inner = inner.strip_prefix(b"/").unwrap_or(inner);
    let Some(end) = inner.iter().position(|b| *b == b'>') else { return 0 };
    let name = inner.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    let known = NAMES.iter().any(|n| inner[..name].eq_ignore_ascii_case(n.as_bytes()));
    let closed = matches!(inner[name], b'>' | b' ' | b'/');
    if known && closed { text.len() - inner.len() + end + 1 } else { 0 }
}

/// Removes the tags of HTML that surround the lines of a text; `None` where there are none.
fn without_tags(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let length = tag(&rest.as_bytes()[at..]);
        out.push_str(&rest[..at + usize::from(length == 0)]);
        rest = &rest[at + length.max(1)..];
    }
    out.push_str(rest);
    (out.len() < text.len()).then_some(out)
}

/// Decodes HTML entities.
fn without_entities(text: &str) -> Option<String> {
    const NAMES: [(&str, &str); 7] = [
        ("&gt;", ">"),
        ("&lt;", "<"),
        ("&nbsp;", " "),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&#x27;", "'"),
        ("&amp;", "&"),
    ];
    if !text.contains('&') || !NAMES.iter().any(|(name, _)| text.contains(name)) {
        return None;
    }
    Some(NAMES.iter().fold(text.to_owned(), |t, (name, c)| t.replace(name, c)))
}

/// Whether a text is in quoted-printable. Then every `=` in it is followed by two hexadecimal digits or a line end. Also, either one of them
/// comes before something that shows that it is not an assignment, or half of the lines end in a blank.
fn is_quoted_printable(text: &[u8]) -> bool {
    if !text.contains(&b'=') {
        return false;
    }
    let lines = || text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end).filter(|l| !l.is_empty());
    let blanks = lines().filter(|l| l.ends_with(b"=20")).count();
    let mut sure = blanks > 1 && blanks * 2 >= lines().count();
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    for (i, _) in text.iter().enumerate().filter(|(_, b)| **b == b'=') {
        match &text[i + 1..] {
            [b'\n', ..] | [b'\r', b'\n', ..] => sure = true,
            [a, b, ..] if upper(*a) && upper(*b) => {
                sure |= matches!((a, b), (b'3', b'D') | (b'C' | b'E', b'2') | (b'A', b'0'));
            }
            _ => return false,
        }
    }
    sure
}

/// Decodes a line of quoted-printable, without its soft break.
fn unprintable(raw: &[u8]) -> Vec<u8> {
    let raw = raw.trim_ascii_end();
    let raw = raw.strip_suffix(b"=").unwrap_or(raw);
    let mut out = Vec::with_capacity(raw.len());
    let mut i = 0;
    while i < raw.len() {
        let code = || std::str::from_utf8(raw.get(i + 1..i + 3)?).ok();
        match (raw[i], code().and_then(|c| u8::from_str_radix(c, 16).ok())) {
            (b'=', Some(b)) => {
                out.push(b);
                i += 3;
            }
            (b, _) => {
                out.push(b);
                i += 1;
            }
        }
    }
    out
}

/// Whether a line ends in a blank of quoted-printable that was left over: `=20` after a word that is not the name of a field.
fn trails_blank(raw: &[u8]) -> bool {
    let Some(before) = raw.strip_suffix(b"=20") else { return false };
    let word = before.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default();
    !before.contains(&b'=') && !word.first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'_')
        || word.is_empty()
}

/// Removes what a logger wrote before the line.
pub(super) fn unprefixed(text: &str) -> &str {
    let mut rest = text;
    while let Some(r) = level(rest)
        .or_else(|| uptime(rest))
        .or_else(|| date(rest))
        .or_else(|| rest.trim_start().strip_prefix("kernel: "))
    {
        rest = r;
    }
    rest
}

/// Skips `<6>`.
fn level(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('<')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    ((1..=3).contains(&digits)).then(|| rest[digits..].strip_prefix('>')).flatten()
}

/// Skips `[   99.123456]`, `[   99.123456][  T123]` or `[Thu May 23 10:11:12 2024]`; the name of a host may follow.
fn uptime(text: &str) -> Option<&str> {
    let (inner, mut rest) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    let stamp = inner.trim();
    let number = stamp.split_once('.').is_some_and(|(s, f)| {
        !s.is_empty() && (3..=9).contains(&f.len()) && s.bytes().chain(f.bytes()).all(|b| b.is_ascii_digit())
    });
    let words: Vec<&str> = stamp.split_whitespace().collect();
    let dated = matches!(words[..], [_, _, day, time, _] if is_number(day) && is_time(time));
    if !number && !dated {
        return None;
    }
    let caller = rest.trim_start().strip_prefix('[').and_then(|r| r.split_once(']'));
    if let Some((who, r)) = caller
        && let Some(n) = who.trim().strip_prefix(['T', 'C'])
        && is_number(n)
    {
        rest = r;
    }
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let host = rest.split_once(' ').filter(|(host, _)| !host.is_empty() && !host.contains([':', '-', '/']));
    Some(host.and_then(|(_, r)| r.strip_prefix("kernel: ")).unwrap_or(rest))
}

/// Skips `May 23 10:11:12 host kernel: ` or `2024-05-23T10:11:12+0200 host kernel: `.
fn date(text: &str) -> Option<&str> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (first, rest) = text.split_once(' ')?;
    let rest = if MONTHS.contains(&first) {
        let (day, rest) = rest.trim_start().split_once(' ')?;
        let (time, rest) = rest.split_once(' ')?;
        (is_number(day) && is_time(time)).then_some(rest)?
    } else {
        let (day, time) = first.split_once('T')?;
        let mut parts = day.split('-');
        let iso = (0..3).all(|_| parts.next().is_some_and(is_number)) && parts.next().is_none();
        (iso && is_time(time.get(..8)?)).then_some(rest)?
    };
    // The host is followed by the program that logged.
    let (_, behind) = rest.split_once(' ')?;
    let (tag, behind) = behind.split_once(": ")?;
    (!tag.contains(' ')).then_some(behind)
}

fn is_number(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a word is `10:11:12`, perhaps with a fraction of a second.
fn is_time(s: &str) -> bool {
    let mut parts = s.split([':', '.']);
    (0..3).all(|_| parts.next().is_some_and(|p| p.len() == 2 && is_number(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (String, Mended) {
        let mut m = Mended::default();
        let lines = lines(text.as_bytes(), &mut m);
        (lines.into_iter().map(|l| l.text).collect::<Vec<_>>().join("\n"), m)
    }

    #[test]
    fn quotes_and_blanks() {
        assert_eq!(one("> > a b"), ("a b".into(), Mended { unquoted: 1, ..Mended::default() }));
        assert_eq!(one(">>  qemu-1").0, " qemu-1");
        assert_eq!(one("| x-1 [0]").0, "x-1 [0]");
        assert_eq!(one("|4|47-39|").0, "|4|47-39|", "a table is no quote");
        assert_eq!(one("a\u{a0}b\u{fffd}c"), ("a b c".into(), Mended { blanks: 1, ..Mended::default() }));
        assert_eq!(one("a\tb\r\n\u{feff}c").0, "a b\nc");
        assert_eq!(one("  plain").0, "  plain");
    }

    #[test]
    fn quoted_printable_and_html() {
        let (text, m) = one("rip 0x1=20\ninfo=3D1 and on =\nfurther\n");
        assert_eq!((text.as_str(), m.decoded), ("rip 0x1\ninfo=1 and on further", 2));
        assert_eq!(one("vcpu 0=20").0, "vcpu 0", "left over");
        assert_eq!(one("gfn=20").0, "gfn=20", "a field");
        assert_eq!(one("a=3D b=1").0, "a=3D b=1", "an assignment shows that it is none");
        assert_eq!(one("&lt;...&gt;-1 &amp;").0, "<...>-1 &");
    }

    #[test]
    fn tags_of_a_page() {
        let page = "<pre class=\"x\"><code>     qemu-7 [001] 5.0: kvm_entry: vcpu 1, rip 0x10<br/>";
        assert_eq!(
            one(page),
            (
                "     qemu-7 [001] 5.0: kvm_entry: vcpu 1, rip 0x10".into(),
                Mended { decoded: 1, ..Mended::default() }
            )
        );
        // Names of tasks, and what only looks like a tag.
        for text in ["<idle>-0 [001] 5.0: x: a < b", "<...>-7 [001] 5.0: x: <pred> <p", "a < br > b"] {
            assert_eq!(one(text), (text.into(), Mended::default()));
        }
    }

    #[test]
    fn loggers() {
        for (text, own) in [
            ("[   99.123456] kvm: x", "kvm: x"),
            ("[   99.123456][  T123] kvm: x", "kvm: x"),
            ("[Thu May 23 10:11:12 2024] kvm: x", "kvm: x"),
            ("<4>[   99.123456] kvm: x", "kvm: x"),
            ("Nov  3 12:00:01 host kernel: [  99.123456] kvm: x", "kvm: x"),
            ("2024-05-23T10:11:12.123456+02:00 host kernel: kvm: x", "kvm: x"),
            ("[   99.123456] host kernel: kvm: x", "kvm: x"),
            ("a-1 [000] 99.1: kvm: x", "a-1 [000] 99.1: kvm: x"),
            ("[000] x", "[000] x"),
        ] {
            assert_eq!(one(text).0, own);
        }
    }
}
