//! The head of a line: which task, on which CPU, when. The main function is [`parse`].
//!
//! ```text
//! tracefs     load3-8815  (   8810) [000] ...1.   546.005642: kvm_entry: …      (tgid and flags as switched on; 4 or 5 flags)
//! trace-cmd   CPU 2/KVM-4242  [000]     1.000003: kvm_entry:   …                (9 digits with -t; `-l`: CPU and flags in one word)
//! perf        CPU 2/KVM  4242/4243 [000]     1.000003:   kvm:kvm_entry: …        (the pid only where asked for)
//! perf trace  12481.879 CPU 2/KVM/4243 kvm:kvm_entry:vcpu 2                         (milliseconds since its start)
//! an oops     CPU 2/KV-4243      2d..1. 8462316us : kvm_entry: …                    (microseconds since the buffer's start)
//! ```
//! A task name may contain blanks, dashes, brackets and colons. Therefore the head is found by its `[CPU]` and what must surround it: the
//! part after it is read forwards, the task before it from its end.

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, map, map_opt, map_res, value, verify};
use nom::sequence::{delimited, preceded, terminated};

use crate::text::scan::{Parsed, blanks, dec, word};

/// The parts of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) comm: &'a [u8],
    pub(crate) tid: u32,
    pub(crate) pid: Option<u32>,
    pub(crate) cpu: Option<u16>,
    /// The time in nanoseconds, or in units of another clock if `digits` is 0.
    pub(crate) ts: u64,
    /// The number of digits after the point.
    pub(crate) digits: u8,
    /// The number of characters of the column of irq flags; 0 where there is no such column.
    pub(crate) flags: usize,
    pub(crate) system: Option<&'a [u8]>,
    pub(crate) event: &'a [u8],
    pub(crate) rest: &'a [u8],
    /// Whether the task was written `name-tid` (ftrace) rather than `name tid` (perf).
    pub(crate) dash: bool,
    /// Whether the time counts from the start of `perf trace`.
    pub(crate) relative: bool,
}

/// Splits a line into head and rest; `None` if it is not an event.
pub(crate) fn parse(line: &[u8]) -> Option<Head<'_>> {
    // What a page put around a line is no part of it.
    if super::clean::tag(line) > 0 || [&b"<br>"[..], b"<br/>", b"<br />"].iter().any(|t| line.ends_with(t)) {
        return None;
    }
    let mut from = 0;
    while let Some(n) = line.get(from..)?.iter().position(|b| *b == b'[') {
        let at = from + n;
        if let Some(head) = with_cpu(line, at) {
            return Some(head);
        }
        from = at + 1;
        // A bracket this far in the line belongs to the event's own text.
        if from > 120 {
            break;
        }
    }
    without_brackets(line).or_else(|| perf_trace(line))
}

/// Reads `12481.879 qemu-system-x8/27004 kvm:kvm_page_fault:address 1000 error_code 181`.
fn perf_trace(line: &[u8]) -> Option<Head<'_>> {
    let line = line.trim_ascii();
    let (stamp, rest) = line.split_at(line.iter().position(|b| *b == b' ')?);
    let (whole, fraction) = stamp.split_at(stamp.iter().position(|b| *b == b'.')?);
    let (ms, us) = (id(whole)?, id(fraction.get(1..).filter(|f| f.len() == 3)?)?);
    let ts = u64::from(ms) * 1_000_000 + u64::from(us) * 1_000;
    // The task ends with the word after the last slash that is a number.
    let mut at = 0;
    let (who, event) = loop {
        let n = at + rest.get(at..)?.iter().position(|b| *b == b'/')?;
        let digits = rest[n + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 && rest.get(n + 1 + digits) == Some(&b' ') {
            break ((&rest[..n], id(&rest[n + 1..=n + digits])?), rest[n + 1 + digits..].trim_ascii_start());
        }
        at = n + 1;
    };
    let name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let system = event.iter().take_while(|b| name(b)).count();
    let (system, behind) = event.split_at(system);
    let behind = behind.strip_prefix(b":")?;
    let (event, behind) = behind.split_at(behind.iter().take_while(|b| name(b)).count());
    // Newer versions print `(name: value, …)` whose numbers may be in any base, so that is kept as text.
    let rest = behind.strip_prefix(b":").or_else(|| behind.starts_with(b"(").then_some(behind))?;
    let ((comm, tid), rest) = (who, rest.trim_ascii());
    (!system.is_empty() && !event.is_empty()).then_some(Head {
        comm: comm.trim_ascii(),
        tid,
        pid: None,
        cpu: None,
        ts,
        digits: 6,
        flags: 0,
        system: Some(system),
        event,
        rest,
        dash: false,
        relative: true,
    })
}

/// Reads `8462316us : `, perhaps with a mark of how long it took.
fn micros(i: &[u8]) -> Parsed<'_, (u64, u8)> {
    let mark = take_while(|b: u8| matches!(b, b' ' | b'+' | b'!' | b'#' | b'*' | b'@' | b'$'));
    map_opt(terminated(dec, (tag("us"), mark, char(':'))), |us| Some((us.checked_mul(1000)?, 6))).parse(i)
}

/// Reads `[013]`.
fn cpu(i: &[u8]) -> Parsed<'_, u16> {
    delimited(char('['), map_res(dec, u16::try_from), char(']')).parse(i)
}

/// Reads a column of flags.
fn flags(i: &[u8]) -> Parsed<'_, &[u8]> {
    preceded(blanks, verify(word, |f: &[u8]| (4..=8).contains(&f.len()))).parse(i)
}

/// Reads the time and the number of digits after the point: `546.005642:`, or `123456:` of a clock that does not count time.
fn time(i: &[u8]) -> Parsed<'_, (u64, u8)> {
    let fraction = take_while1(|b: u8| b.is_ascii_digit());
    let end = alt((value(None, char(':')), map(delimited(char('.'), fraction, char(':')), Some)));
    map_opt((preceded(blanks, dec), end), |(whole, fraction): (u64, Option<&[u8]>)| {
        let Some(fraction) = fraction else { return Some((whole, 0)) };
        let n = u8::try_from(fraction.len()).ok().filter(|n| *n <= 9)?;
        let (_, f) = dec(fraction).ok()?;
        let ns = whole.checked_mul(1_000_000_000)?.checked_add(f * 10u64.pow(9 - u32::from(n)))?;
        Some((ns, n))
    })
    .parse(i)
}

/// Reads `kvm:kvm_entry:` or `kvm_entry:`.
fn event(i: &[u8]) -> Parsed<'_, (Option<&[u8]>, &[u8])> {
    map_opt(word, |w: &[u8]| {
        let name = w.strip_suffix(b":")?;
        Some(match name.iter().position(|b| *b == b':') {
            Some(n) => (Some(&name[..n]), &name[n + 1..]),
            None => (None, name),
        })
    })
    .parse(i)
}

fn with_cpu(line: &[u8], open: usize) -> Option<Head<'_>> {
    let (rest, cpu) = cpu(&line[open..]).ok()?;
    let who = task(line[..open].trim_ascii_end())?;
    let plain = map(time, |t| (t, 0));
    let flagged = map((flags, time), |(f, t)| (t, f.len()));
    let (rest, (stamp, flags)) = alt((plain, flagged)).parse(rest).ok()?;
    Some(finish(who, Some(cpu), stamp, flags, rest))
}

/// Reads lines of `trace-cmd report -l` (CPU and flags in one word), and perf samples without a CPU.
fn without_brackets(line: &[u8]) -> Option<Head<'_>> {
    // The time is the first word that looks like one.
    let mut at = 0;
    while at < line.len().min(160) {
        let blanks = line[at..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        at += blanks;
        let end = line[at..].iter().position(|b| matches!(b, b' ' | b'\t')).map_or(line.len(), |n| at + n);
        let stamp = if end <= at || at == 0 || !line[at].is_ascii_digit() {
            None
        } else if line[end - 1] == b':' && line[at..end].contains(&b'.') {
            time(&line[at..]).ok()
        } else if line[at..end].contains(&b'u') {
            micros(&line[at..]).ok()
        } else {
            None
        };
        if let Some((rest, stamp)) = stamp {
            let before = line[..at].trim_ascii_end();
            let last = before.iter().rposition(|b| *b == b' ').map_or(0, |n| n + 1);
            if let Ok((flags, cpu)) = dec(&before[last..])
                && (3..=6).contains(&flags.len())
                && let Some(who) = task(before[..last].trim_ascii_end()).filter(|w| w.dash)
            {
                return Some(finish(who, Some(u16::try_from(cpu).ok()?), stamp, flags.len(), rest));
            }
            return Some(finish(task(before)?, None, stamp, 0, rest));
        }
        at = end.max(at + 1);
    }
    None
}

/// The task of a head.
#[derive(Clone, Copy)]
struct Who<'a> {
    comm: &'a [u8],
    tid: u32,
    pid: Option<u32>,
    dash: bool,
}

/// Reads a text that is only a number.
fn id(text: &[u8]) -> Option<u32> {
    let (_, n) = all_consuming(dec).parse(text).ok()?;
    u32::try_from(n).ok()
}

/// Reads `comm-tid`, `comm-tid (tgid)`, `comm tid` or `comm pid/tid`; the text has no trailing blanks.
fn task(text: &[u8]) -> Option<Who<'_>> {
    let mut text = text;
    let mut pid = None;
    if let [before @ .., b')'] = text {
        let open = before.iter().rposition(|b| *b == b'(')?;
        let inner = before[open + 1..].trim_ascii();
        // The kernel prints dashes where the process is not known.
        if !inner.iter().all(|b| *b == b'-') {
            pid = Some(id(inner)?);
        }
        text = before[..open].trim_ascii_end();
    }
    let n = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (before, tid) = text.split_at(text.len() - n);
    let tid = id(tid)?;
    match before {
        [comm @ .., b'-'] => Some(Who { comm: comm.trim_ascii(), tid, pid, dash: true }),
        [comm @ .., b'/'] => {
            let n = comm.iter().rev().take_while(|b| b.is_ascii_digit()).count();
            let (comm, p) = comm.split_at(comm.len() - n);
            comm.last().filter(|b| **b == b' ')?;
            Some(Who { comm: comm.trim_ascii(), tid, pid: Some(id(p)?), dash: false })
        }
        // perf writes `:1234` for a task without a name.
        [comm @ .., b' ' | b':'] => Some(Who { comm: comm.trim_ascii(), tid, pid, dash: false }),
        _ => None,
    }
}

fn finish<'a>(
    who: Who<'a>,
    cpu: Option<u16>,
    (ts, digits): (u64, u8),
    flags: usize,
    rest: &'a [u8],
) -> Head<'a> {
    let unblank = |i: &'a [u8]| blanks(i).map_or(i, |(rest, _)| rest);
    let rest = unblank(rest);
    // There is no name with a colon: the function tracer and others print such lines.
    let (rest, (system, event)) = event(rest).unwrap_or((rest, (None, b"")));
    let rest = unblank(rest).trim_ascii_end();
    let Who { comm, tid, pid, dash } = who;
    Head { comm, tid, pid, cpu, ts, digits, flags, system, event, rest, dash, relative: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(s: &str) -> Head<'_> {
        parse(s.as_bytes()).unwrap_or_else(|| panic!("no head in {s}"))
    }

    /// A page may put tags around a line; a task's name may begin like one.
    #[test]
    fn lines_of_a_page() {
        let line = "qemu-7 [001] ..... 5.000000: kvm_entry: vcpu 1";
        for text in [format!("<pre><code>{line}"), format!("{line}<br/>"), format!("{line}<br>")] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(h("<idle>-0 [001] ..... 5.000000: kvm_entry: vcpu 1").comm, b"<idle>");
    }

    #[test]
    fn tracefs() {
        let a = h("            load-111     [000] d..1.     4.296383: kvm_entry: vcpu 0, rip 0x6000");
        assert_eq!((a.comm, a.tid, a.cpu, a.ts, a.flags), (&b"load"[..], 111, Some(0), 4_296_383_000, 5));
        assert_eq!((a.event, a.rest), (&b"kvm_entry"[..], &b"vcpu 0, rip 0x6000"[..]));
        let b = h("       CPU 2/KVM-4242    (   4240) [013] d..2   546.005642: kvm_exit: reason X [a]");
        assert_eq!((b.comm, b.tid, b.pid, b.cpu), (&b"CPU 2/KVM"[..], 4242, Some(4240), Some(13)));
        let c = h("           <...>-9       (-------) [001] 123456: kvm_entry: vcpu 0");
        assert_eq!((c.comm, c.pid, c.ts, c.digits, c.flags), (&b"<...>"[..], None, 123_456, 0, 0));
        let d = h(" a-b [7] c-12-13 [001] ....  1.000001: x: y");
        assert_eq!((d.comm, d.tid), (&b"a-b [7] c-12"[..], 13));
    }

    #[test]
    fn trace_cmd() {
        let a =
            h("            load-130   [000]     8.196902346: kvm_mmu_get_page:     [FAILED TO PARSE] gfn=0");
        assert_eq!((a.ts, a.digits, a.flags, a.rest), (8_196_902_346, 9, 0, &b"[FAILED TO PARSE] gfn=0"[..]));
        let b = h("    load-130     0.....     8.196902: kvm_entry:  vcpu 0");
        assert_eq!((b.tid, b.cpu, b.ts, b.event), (130, Some(0), 8_196_902_000, &b"kvm_entry"[..]));
    }

    #[test]
    fn perf() {
        let a = h("       CPU 2/KVM  4240/4242  [003]    14.141612:         kvm:kvm_entry: vcpu 2");
        assert_eq!(
            (a.comm, a.pid, a.tid, a.cpu, a.dash),
            (&b"CPU 2/KVM"[..], Some(4240), 4242, Some(3), false)
        );
        assert_eq!((a.system, a.event, a.rest), (Some(&b"kvm"[..]), &b"kvm_entry"[..], &b"vcpu 2"[..]));
        let b = h("load   138    14.141612:         kvm:kvm_entry: vcpu 2");
        assert_eq!((b.comm, b.tid, b.cpu), (&b"load"[..], 138, None));
    }

    #[test]
    fn perf_trace() {
        let a = h("12481.879 qemu-system-x8/27004 kvm:kvm_page_fault:address 8000002000000 error_code 181");
        assert_eq!((a.comm, a.tid, a.ts, a.relative), (&b"qemu-system-x8"[..], 27004, 12_481_879_000, true));
        assert_eq!(
            (a.system, a.event, a.rest),
            (Some(&b"kvm"[..]), &b"kvm_page_fault"[..], &b"address 8000002000000 error_code 181"[..])
        );
        let b = h("     0.000 CPU 0/KVM/123 kvm:kvm_entry(vcpu_id: 1, rip: 2)");
        assert_eq!(
            (b.comm, b.event, b.rest),
            (&b"CPU 0/KVM"[..], &b"kvm_entry"[..], &b"(vcpu_id: 1, rip: 2)"[..])
        );
    }

    #[test]
    fn dump_at_an_oops() {
        for line in [
            "qemu-sys-5786      3d..1. 8462316us : kvm_exit: vcpu 4",
            "qemu-sys-5786      3d..1. 8462316us+: kvm_exit: vcpu 4",
        ] {
            let a = h(line);
            assert_eq!(
                (a.comm, a.tid, a.cpu, a.ts),
                (&b"qemu-sys"[..], 5786, Some(3), 8_462_316_000),
                "{line}"
            );
            assert_eq!((a.event, a.rest), (&b"kvm_exit"[..], &b"vcpu 4"[..]));
        }
    }

    #[test]
    fn others() {
        for s in [
            "",
            "# tracer: nop",
            "CPU:1 [LOST 12 EVENTS]",
            "cpus=2",
            "[",
            "x [",
            "a-1 [0",
            "a-1 [000] .... 5.5",
        ] {
            assert_eq!(parse(s.as_bytes()), None, "{s}");
        }
    }
}
