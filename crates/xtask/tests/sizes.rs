//! A file has fewer than 600 lines, and the body of a function at most 100 lines of code, or an argued place in the list of this file. Clippy
//! (`too_many_lines`) measures functions in the same way, and can be silenced anywhere; here all exceptions are together.

mod source;

use source::{Kind, code_of, files, pieces, root};
use std::collections::BTreeSet;
use std::fs;

/// A file has fewer lines.
const FILE: usize = 600;
/// The body of a function, without its braces, has at most so many lines. Lines that are empty or hold nothing but a comment are not counted.
const FUNCTION: usize = 100;

/// The functions that are longer, by the end of the path and the name, each with its reason. A function that is no longer too long fails the
/// test until its line is gone.
const LONGER: &[(&str, &str, &str)] = &[
    ("crates/fuzzing/src/events.rs", "body", "a table: one arm for each event that can be made up"),
    ("crates/lab/src/inside/phases.rs", "phase", "a table: one arm for each phase"),
    ("crates/replay/examples/bench_replay.rs", "make", "a table: one block for each figure that is measured"),
    ("crates/spte/tests/files.rs", "masks_of_real_hosts", "a table of hosts"),
    ("crates/testing/src/fixture.rs", "event", "a table: one arm for each word of a fixture"),
];

/// Name, first line, and number of lines of code in the body of each function of a source. What lies within a function is a part of it.
fn functions(source: &str) -> Vec<(String, usize, usize)> {
    let mut counted = BTreeSet::new();
    for p in pieces(source).iter().filter(|p| p.kind != Kind::Comment) {
        let lines = p.text.split('\n').enumerate().filter(|(_, l)| !l.trim().is_empty());
        counted.extend(lines.map(|(n, _)| p.line + n));
    }
    let code = code_of(source);
    let line_of = |at: usize| 1 + code[..at].matches('\n').count();
    let mut out = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String =
            code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '$')).collect();
        if begins
            && !name.is_empty()
            && let Some((open, close)) = body(&code[at..])
        {
            let (first, last) = (line_of(at + open) + 1, line_of(at + close));
            out.push((name, line_of(at), counted.range(first..last.max(first)).count()));
        }
    }
    out
}

/// Where the body opens and closes of a function that begins here, if it has one.
fn body(code: &str) -> Option<(usize, usize)> {
    let (mut inside, mut depth, mut open) = (0, 0, 0);
    for (n, c) in code.char_indices() {
        match c {
            '(' | '[' => inside += 1,
            ')' | ']' => inside -= 1,
            ';' if inside == 0 && depth == 0 => return None,
            '{' => {
                if depth == 0 && inside == 0 {
                    open = n;
                }
                depth += 1;
            }
            '}' => depth -= 1,
            _ => continue,
        }
        if c == '}' && depth <= 0 && inside <= 0 {
            return (depth == 0).then_some((open, n));
        }
    }
    None
}

#[test]
fn files_and_functions_are_short() {
    let mut left: BTreeSet<(&str, &str)> = LONGER.iter().map(|(file, name, _)| (*file, *name)).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files(&root(), &["rs"]) {
        let inside = file.strip_prefix(root()).expect("below the root").display().to_string();
        let text = fs::read_to_string(&file).expect("a source file is text");
        let lines = text.lines().count();
        if lines >= FILE {
            wrong.push(format!(
                "{inside} has {lines} lines: move what has a subject of its own to a file of its own"
            ));
        }
        for (name, line, count) in functions(&text) {
            seen += 1;
            if count <= FUNCTION {
                continue;
            }
            let known = LONGER.iter().find(|(f, n, _)| inside.ends_with(f) && *n == name);
            match known {
                Some((f, n, _)) => {
                    left.remove(&(*f, *n));
                }
                None => {
                    wrong.push(format!("{inside}:{line}: `{name}` has {count} lines: give its parts names"));
                }
            }
        }
    }
    assert!(seen > 3000, "this test finds the functions: {seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(left.is_empty(), "functions that are short now leave the list: {left:?}");
}

#[test]
fn functions_are_measured() {
    let of = |source: &str| functions(source).into_iter().map(|f| (f.0, f.1, f.2)).collect::<Vec<_>>();
    let f = |name: &str, line, count| (name.to_owned(), line, count);
    assert_eq!(
        of("fn a() {}\n\n// fn b() {\nfn c(\n    x: [u8; 3],\n) {\n    // why\n\n    d(\"{\")\n}\n"),
        [f("a", 1, 0), f("c", 4, 1)]
    );
    assert_eq!(
        of("trait T {\n    fn a(&self);\n    fn b(&self) {\n        let s = r#\"\n}\n\"#;\n    }\n}"),
        [f("b", 3, 3)]
    );
    assert_eq!(of("type F = fn (u8);\nfn $name() { if x { '{' } else { '\\'' } }"), [f("$name", 2, 0)]);
    assert_eq!(of("fn a() {\n    fn b() {\n    }\n}"), [f("a", 1, 2), f("b", 2, 0)]);
}
