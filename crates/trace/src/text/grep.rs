//! The names of files and the numbers of lines that grep and pagers print before each line. The main function is [`strip`].

use super::clean::{Line, Mended, number_before, unprefixed};
use super::head;

/// What stands before a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix<'a> {
    file: &'a str,
    number: Option<u64>,
    /// Whether it ends as that of a line that matched; lines of context have `-` in place of `:`.
    matched: bool,
    length: usize,
}

/// Takes them away if every event of the text has one. (Numbers before all lines were taken away when the lines were cleaned.)
pub(super) fn strip(lines: &mut [Line], mended: &mut Mended) {
    if !has_any(lines) {
        return;
    }
    for line in lines {
        let Some(length) = prefix(&line.text).map(|p| p.length) else { continue };
        let own = unprefixed(&line.text[length..]);
        line.stamped |= own.len() + length < line.text.len();
        line.width = line.width.saturating_sub(line.text[..line.text.len() - own.len()].chars().count());
        line.text = own.to_owned();
        mended.numbered += 1;
    }
}

fn has_any(lines: &[Line]) -> bool {
    let mut last = 0;
    let (mut any, mut matched) = (false, false);
    for text in lines.iter().map(|l| l.text.as_str()).filter(|l| head::parse(l.as_bytes()).is_some()) {
        let Some(p) = prefix(text) else { return false };
        // What is behind it must be an event as well, with a task of its own.
        let event = head::parse(&text.as_bytes()[p.length..]).is_some_and(|h| !h.comm.is_empty());
        let counts = p.number.is_none_or(|n| std::mem::replace(&mut last, n) < n);
        if !event || !counts && p.file.is_empty() {
            return false;
        }
        any = true;
        matched |= p.matched;
    }
    any && matched
}

/// Reads `FILE:`, `FILE:7:` or `7:` at the start of a line, or the same with `-`.
fn prefix(text: &str) -> Option<Prefix<'_>> {
    if let Some((n, mark, length)) = number_before(text.as_bytes()) {
        return Some(Prefix { file: "", number: Some(n), matched: mark == b':', length });
    }
    let end = text.find([' ', '\t', ':', '['])?;
    let (file, rest) = text.split_at(end);
    // A worker thread has a colon in its name.
    let rest = rest.strip_prefix(':').filter(|_| !file.is_empty() && !file.starts_with("kworker"))?;
    let of_line = number_before(rest.as_bytes()).filter(|(_, mark, _)| *mark == b':');
    let length = end + 1 + of_line.map_or(0, |(.., length)| length);
    let apart = of_line.is_some() || rest.starts_with([' ', '\t']) || file.contains('.');
    apart.then_some(Prefix { file, number: of_line.map(|(n, ..)| n), matched: true, length })
}

/// Whether what was read as the name of a task may begin with such a prefix.
pub(super) fn is_in_comm(comm: &[u8]) -> bool {
    let digits = comm.iter().take_while(|b| b.is_ascii_digit()).count();
    digits > 0 && matches!(comm.get(digits), Some(b':' | b'-'))
        || comm.contains(&b':') && !comm.starts_with(b"kworker")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::clean::lines;

    fn stripped(text: &str) -> (Vec<String>, u64) {
        let mut mended = Mended::default();
        let mut lines = lines(text.as_bytes(), &mut mended);
        strip(&mut lines, &mut mended);
        (lines.into_iter().map(|l| l.text).collect(), mended.numbered)
    }

    const EVENTS: [&str; 3] = [
        "             vmm-7     [001] ..... 5.000001: kvm_entry: vcpu 1",
        "       CPU 2/KVM-8     [001] ..... 5.000002: kvm_entry: vcpu 2",
        "     kworker/0:1-9     [001] ..... 5.000003: kvm_entry: vcpu 3",
    ];

    #[test]
    fn prefixes_of_all_events_are_taken_away() {
        let with = |f: &dyn Fn(usize, &str) -> String| {
            EVENTS.iter().enumerate().map(|(n, l)| f(n, l)).collect::<Vec<_>>().join("\n")
        };
        for text in [
            with(&|_, l| format!("dmesg.txt:{l}")),
            with(&|_, l| format!("trace:{l}")),
            with(&|n, l| format!("trace.txt:{}:{l}", n + 9)),
            with(&|n, l| format!("{}:{l}", n * 7)).replace("0:  ", "1:  "),
            with(&|n, l| format!("{}{}{l}", n + 1, if n == 1 { ':' } else { '-' })),
        ] {
            let (lines, numbered) = stripped(&text);
            assert_eq!((lines, numbered), (EVENTS.map(str::to_owned).to_vec(), 3), "{text}");
        }
        // A log behind its number, and values.
        assert_eq!(stripped("3:[   99.123456] kvm: x\n9:[   99.123457] kvm: y").0, ["kvm: x", "kvm: y"]);
        assert_eq!(
            stripped("1:0x600000123456b77\n2:0x600000123457b77").0,
            ["0x600000123456b77", "0x600000123457b77"]
        );
    }

    #[test]
    fn names_of_tasks_stay() {
        let worker = "     kworker/0:1-9     [001] ..... 5.000003: kvm_entry: vcpu 3";
        let perf = ":1234  1234 [001]     5.000003: kvm:kvm_entry: vcpu 3";
        for text in [
            EVENTS.join("\n"),
            format!("{worker}\n{worker}"),
            worker.trim_start().to_owned(),
            perf.to_owned(),
            // One event has none.
            format!("7:{}\n{}", EVENTS[0], EVENTS[1]),
            // A walk counts down.
            "2:0x123457007\n1:0x600000123456b77".to_owned(),
            "2:0x123457007".to_owned(),
            "7-a-1 [000] 1.0: kvm_entry: vcpu 1".to_owned(),
        ] {
            let (lines, numbered) = stripped(&text);
            assert_eq!((lines.join("\n"), numbered), (text, 0));
        }
    }
}
