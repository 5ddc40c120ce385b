//! Pasted texts: a text that a mail program wrapped, quoted or damaged must give the same events as before.

use std::io::Read as _;

use mmuscope_trace::{Event, ReadOptions, Trace};

use crate::support::{plain, sample};

/// Texts of every tool and kernel, of which a few hundred lines each are used.
const TEXTS: &[&str] = &[
    "5.10-ept-ad/trace.txt.zst",
    "5.10-shadow64/trace.txt.zst",
    "5.10pae-shadow/trace.txt.zst",
    "6.1-ept-noad/trace.txt.zst",
    "6.1-npt/trace.txt.zst",
    "6.1-npt/dat-report.txt.zst",
    "6.1-npt/perf-script.txt.zst",
    "6.1-shadow32/trace.txt.zst",
    "6.18-npt/trace.txt.zst",
    "7.3-npt/trace.txt.zst",
];

/// Some lines of a text: its beginning, and a few of each hundred lines after that.
fn some(name: &str) -> Vec<String> {
    let file = std::fs::File::open(sample(name)).expect("a sample");
    let mut text = String::new();
    let mut input = zstd::stream::read::Decoder::new(file).expect("a sample in zstd");
    input.read_to_string(&mut text).expect("a sample is UTF-8");
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.starts_with("cpus="));
    let some = lines.enumerate().filter(|(n, _)| *n < 300 || n % 97 < 3).map(|(_, l)| l.to_owned());
    some.take(900).collect()
}

/// The content of events. Blanks within the text of an event are not compared.
fn events(t: &Trace) -> Vec<String> {
    let one = |e: Event| plain(&e, &t.strings).split_whitespace().collect::<Vec<_>>().join(" ");
    t.events.iter().map(one).collect()
}

/// Breaks lines at blanks, as mail programs do.
fn wrapped(lines: &[String], width: usize) -> Vec<String> {
    let mut out = Vec::new();
    for line in lines {
        let mut rest = line.trim_end();
        while rest.chars().count() > width {
            let head: usize = rest.char_indices().nth(width).map_or(rest.len(), |(n, _)| n);
            let indent = rest.len() - rest.trim_start().len();
            let fits = rest[..=head.min(rest.len() - 1)].rfind(' ').filter(|n| *n > indent);
            let Some(cut) = fits.or_else(|| rest[head..].find(' ').map(|n| head + n)) else { break };
            out.push(rest[..cut].trim_end().to_owned());
            rest = rest[cut..].trim_start();
        }
        out.push(rest.to_owned());
    }
    out
}

/// Breaks lines at a column, as a terminal does.
fn cut(lines: &[String], width: usize) -> Vec<String> {
    let mut out = Vec::new();
    for line in lines {
        let chars: Vec<char> = line.trim_end().chars().collect();
        out.extend(chars.chunks(width).map(|c| c.iter().collect::<String>()));
    }
    out
}

fn read(lines: &[String]) -> Trace {
    Trace::from_text(&(lines.join("\n") + "\n")).expect("it is a trace still")
}

fn same(name: &str, how: &str, whole: &[String], lines: &[String]) {
    let t = read(lines);
    let got = events(&t);
    for (n, (a, b)) in whole.iter().zip(&got).enumerate() {
        assert_eq!(a, b, "{name}, {how}: event {n}");
    }
    assert_eq!(whole.len(), got.len(), "{name}, {how}");
    assert_eq!(t.info.damage, [], "{name}, {how}");
}

/// Wraps every line of every text at the widths of mail programs.
#[test]
fn wrapped_lines_are_joined() {
    for name in TEXTS {
        let lines = some(name);
        let whole = events(&read(&lines));
        assert!(whole.len() >= 300, "{name}: {}", whole.len());
        for width in [66, 72, 76, 78, 80, 100, 132] {
            let broken = wrapped(&lines, width);
            same(name, &format!("wrapped at {width}"), &whole, &broken);
            if broken.len() > lines.len() {
                let t = read(&broken);
                let joined = broken.len() - lines.len();
                let says = format!("{joined} joined to the line before");
                assert!(
                    t.info.notes.iter().any(|n| n.contains(&says)),
                    "{name} at {width}: {joined} of {:?}",
                    t.info.notes
                );
            }
        }
    }
}

#[test]
fn lines_broken_by_a_terminal_are_joined() {
    for name in TEXTS {
        let lines = some(name);
        let whole = events(&read(&lines));
        for width in [80, 100, 120] {
            same(name, &format!("cut at {width}"), &whole, &cut(&lines, width));
        }
    }
}

/// In a text of several pieces, an event that is broken across their ends is read as one.
#[test]
fn pieces_end_where_events_do() {
    let lines: Vec<String> = some("6.1-npt/trace.txt.zst").iter().cycle().take(12_000).cloned().collect();
    // Times must not run back.
    let lines: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(n, l)| {
            l.split_once(": ").map_or(l.clone(), |(h, b)| {
                let h = h.rsplit_once(' ').map_or(h, |(h, _)| h);
                format!("{h} {}.{:06}: {b}", n / 1000 + 1000, n % 1000)
            })
        })
        .collect();
    let whole = events(&read(&lines));
    let broken = wrapped(&lines, 72).join("\n") + "\n";
    assert!(broken.len() > 1 << 20);
    for threads in [1, 2] {
        let opts = ReadOptions { threads, ..ReadOptions::default() };
        let t = Trace::from_bytes_with(broken.as_bytes(), "broken", &opts).expect("it is a trace still");
        assert!(events(&t) == whole, "{threads} threads: {} of {}", t.events.len(), whole.len());
        assert_eq!(t.info.damage, []);
    }
}

/// A way to change a line.
type Way<'a> = &'a dyn Fn(&str) -> String;

/// Makes of the lines what a reply, a web page, a log and other systems make of them, alone and after a wrap.
#[test]
fn quotes_blanks_and_prefixes_are_taken_away() {
    let each = |lines: &[String], f: &dyn Fn(&str) -> String| lines.iter().map(|l| f(l)).collect::<Vec<_>>();
    for name in TEXTS {
        let lines = some(name);
        let whole = events(&read(&lines));
        for (how, lines) in [("as it was", lines.clone()), ("wrapped", wrapped(&lines, 72))] {
            let ways: [(&str, Way<'_>); 12] = [
                ("quoted", &|l| format!("> {l}")),
                ("quoted without a blank", &|l| format!(">{l}")),
                ("quoted twice", &|l| format!("> > {l}")),
                ("quoted by a bar", &|l| format!("| {l}")),
                ("with non-breaking blanks", &|l| l.replace("  ", "\u{a0}\u{a0}")),
                ("with lost blanks", &|l| format!("> {}", l.replace("  ", "\u{fffd} "))),
                ("with tabs", &|l| l.replace("        ", "\t")),
                ("of another system", &|l| format!("{l}\r")),
                ("as quoted-printable", &|l| format!("{}=20", l.replace('=', "=3D"))),
                ("coloured by grep", &|l| l.replace("kvm_", "\x1b[01;31m\x1b[Kkvm_\x1b[m\x1b[K")),
                ("coloured by a pager", &|l| format!("^[[32m{l}^[[0m")),
                ("in HTML", &|l| l.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")),
            ];
            for (what, f) in ways {
                same(name, &format!("{how}, {what}"), &whole, &each(&lines, f));
            }
        }
        for prefix in [
            "[   99.123456] ",
            "Nov  3 12:00:01 host kernel: [   99.123456] ",
            "2024-05-23T10:11:12.123456+02:00 host kernel: ",
        ] {
            same(name, prefix, &whole, &each(&lines, &|l| format!("{prefix}{l}")));
        }
    }
}

/// grep and pagers print the name of a file or the number of the line before each line.
#[test]
fn prefixes_of_grep_are_taken_away() {
    for name in TEXTS {
        let lines = some(name);
        let whole = events(&read(&lines));
        let numbered = |f: &dyn Fn(usize) -> String| -> Vec<String> {
            lines.iter().enumerate().map(|(n, l)| format!("{}{l}", f(n))).collect()
        };
        same(name, "with a file name", &whole, &numbered(&|_| "trace.txt:".into()));
        same(name, "with a file name of letters", &whole, &numbered(&|_| "trace:".into()));
        same(name, "with both", &whole, &numbered(&|n| format!("a/b.txt:{}:", 2 * n + 1)));
        same(name, "with numbers", &whole, &numbered(&|n| format!("{}:", n + 1)));
        let context = numbered(&|n| format!("{}{}", n + 1, if n % 5 == 0 { ':' } else { '-' }));
        same(name, "with lines of context", &whole, &context);
        // The numbers come last, so that everything else is behind them.
        for width in [72, 80] {
            let broken: Vec<String> = wrapped(&lines, width).iter().map(|l| format!("> {l}")).collect();
            let numbers = |(n, l): (usize, &String)| format!("{}:{l}", n + 1);
            same(
                name,
                "wrapped, quoted, with numbers",
                &whole,
                &broken.iter().enumerate().map(numbers).collect::<Vec<_>>(),
            );
        }
        let says = |n: &String| n.contains("stripped of grep's file name or line number");
        assert!(read(&context).info.notes.iter().any(says), "{name}");
    }
}

/// Prose, prompts and stacks between events are counted, and belong to no event.
#[test]
fn other_lines_are_reported() {
    let lines = some("6.1-npt/trace.txt.zst");
    let whole = events(&read(&lines));
    let mut mixed = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        mixed.push(line.clone());
        match n % 50 {
            7 => mixed.extend([String::new(), "This is the interesting part.".into(), String::new()]),
            19 => mixed.push("---".into()),
            31 => mixed.push(" => kvm_tdp_mmu_map".into()),
            43 => mixed.push("[root@host 10:01:16 ~]# grep kvm trace".into()),
            _ => {}
        }
    }
    same("6.1-npt", "with other lines", &whole, &mixed);
    let notes = read(&mixed).info.notes;
    let prose = mixed.iter().filter(|l| l.starts_with("This") || l.starts_with("[root")).count();
    let stacks = mixed.iter().filter(|l| l.starts_with(" =>")).count();
    assert!(
        notes.iter().any(|n| n.contains(&format!("{prose} lines are not events"))
            && n.ends_with("This is the interesting part.")),
        "{notes:?}"
    );
    assert!(notes.iter().any(|n| n.contains(&format!("{stacks} lines of stack traces"))), "{notes:?}");
}
