//! No circle of files: within a crate, what a file names by its path (`use crate::…`, `super::…`, `child::…`) must not lead back to it.
//!
//! A file may name what the module it lies in defines (`tdp/find.rs` its `tdp/mod.rs`); and a module leads to all files it lies over. Names that
//! a crate's root re-exports count as the file they are from. Where several files add methods to one type, a call of one of its methods on `self`
//! names the file that defines it. Test modules are not looked at. What the test cannot see are calls of methods on anything but `self`.

mod source;

use source::{files, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The circles that are left, each with what it would take to break it. The list may only shrink: a circle that is gone, or has become smaller,
/// fails the test until its line does the same.
const LEFT: &[(&str, &[&str], &str)] = &[
    (
        "cli",
        &["args", "cmd", "cmd::completions"],
        "the arguments name each command's own, and completions need all of them",
    ),
    (
        "tables",
        &["binary", "markdown", "text", "write"],
        "the writers of each format are picked in the file that they take their cells from",
    ),
    ("trace", &["dir", "load"], "a folder of recordings is opened as each of its files is"),
    (
        "trace",
        &["paste::forms", "paste::scanner"],
        "a form is read by the scanner, which keeps the columns of a form",
    ),
];

/// The code of a source, without test modules.
fn code_of(text: &str) -> String {
    without_tests(&source::code_of(text))
}

fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(n) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..n]);
        let item = &rest[n + "#[cfg(test)]".len()..];
        let mut depth = 0;
        let end = item.char_indices().find_map(|(i, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0 && (c == '}' || c == ';')).then_some(i + 1)
        });
        rest = &item[end.unwrap_or(item.len())..];
    }
    out + rest
}

/// Every path in a piece of code, group by group: `crate::a::{b, c::D}` is `crate::a::b` and `crate::a::c::D`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    let tokens = words(code);
    let mut i = 0;
    while i < tokens.len() {
        let starts = i == 0 || tokens[i - 1] != ":" && tokens[i - 1] != ".";
        let joined =
            |i: usize| tokens.get(i).is_some_and(|t| t == ":") && tokens.get(i + 1).is_some_and(|t| t == ":");
        if starts && is_word(&tokens[i]) && joined(i + 1) {
            i = read(&tokens, i, &[], &mut out);
        } else {
            i += 1;
        }
    }
    out
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads the path that begins at a token, below `before`; where it ends.
fn read(tokens: &[String], from: usize, before: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut i = from;
    while let Some(t) = tokens.get(i) {
        if is_word(t) {
            path.push(t.clone());
            i += 1;
            let joined =
                tokens.get(i).is_some_and(|t| t == ":") && tokens.get(i + 1).is_some_and(|t| t == ":");
            if joined {
                i += 2;
                continue;
            }
        } else if t == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|t| t != "}") {
                let next = read(tokens, i, &path, out);
                // An alias, a comma, or what is no path.
                i = if next == i || tokens.get(next).is_some_and(|t| t == ",") {
                    next.max(i) + 1
                } else {
                    next
                };
            }
            return i + 1;
        }
        break;
    }
    if path.len() > before.len() {
        out.push(path);
    }
    i
}

/// The modules of a crate, by path (`tdp::find`; the root is empty).
fn modules(src: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for file in files(src, &["rs"]) {
        if file.file_stem().is_some_and(|s| s == "tests") {
            continue;
        }
        let inside = file.strip_prefix(src).expect("below src").with_extension("");
        let mut parts: Vec<&str> = inside.iter().filter_map(|p| p.to_str()).collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        // Of a program and a library in one crate both roots count as the root.
        let code = code_of(&fs::read_to_string(&file).expect("a source file"));
        let known: &mut String = out.entry(parts.join("::")).or_default();
        known.push_str(&code);
    }
    out
}

/// Which modules each module names.
fn graph(modules: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let resolve = |path: &[String]| {
        (1..=path.len()).rev().map(|n| path[..n].join("::")).find(|m| modules.contains_key(m))
    };
    let absolute = |module: &str, path: &[String]| -> Option<Vec<String>> {
        let here: Vec<String> = module.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let child = |name: &str| modules.contains_key(&[&here[..], &[name.to_owned()]].concat().join("::"));
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([&here[..], &path[1..]].concat()),
            "super" => {
                let up = path.iter().take_while(|p| *p == "super").count();
                Some([&here[..here.len().saturating_sub(up)], &path[up..]].concat())
            }
            name if child(name) => Some([&here[..], path].concat()),
            _ => None,
        }
    };
    // What the root re-exports, and from where.
    let mut exported: BTreeMap<String, String> = BTreeMap::new();
    for path in modules.get("").map(|code| paths(code)).unwrap_or_default() {
        if let (Some(path), Some(name)) = (absolute("", &path), path.last())
            && let Some(module) = resolve(&path)
        {
            exported.entry(name.clone()).or_insert(module);
        }
    }
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in modules.iter().filter(|m| !m.0.is_empty()) {
        let to = out.entry(module.clone()).or_default();
        for path in paths(code).iter().filter_map(|p| absolute(module, p)) {
            let target = resolve(&path).or_else(|| exported.get(path.first()?).cloned());
            to.extend(target.filter(|t| t != module && !module.starts_with(&format!("{t}::"))));
        }
        // A module leads to all that lies below it.
        let below = format!("{module}::");
        to.extend(modules.keys().filter(|m| m.starts_with(&below)).cloned());
    }
    for (from, to) in calls(modules) {
        if !from.starts_with(&format!("{to}::")) {
            out.entry(from).or_default().insert(to);
        }
    }
    out
}

/// Calls of methods on `self` from one file to another that adds methods to the same type.
fn calls(modules: &BTreeMap<String, String>) -> BTreeSet<(String, String)> {
    let blocks: Vec<(&String, Block)> =
        modules.iter().flat_map(|(m, code)| blocks(code).into_iter().map(move |b| (m, b))).collect();
    let mut defined: BTreeMap<(&str, &str), BTreeSet<&String>> = BTreeMap::new();
    for (module, b) in &blocks {
        for name in &b.methods {
            defined.entry((&b.of, name)).or_default().insert(module);
        }
    }
    let mut out = BTreeSet::new();
    for (module, b) in &blocks {
        for name in &b.called {
            // A name that is defined twice (for two targets, or in two types of one name) says nothing.
            let Some(at) = defined.get(&(b.of.as_str(), name.as_str())).filter(|at| at.len() == 1) else {
                continue;
            };
            out.extend(at.iter().filter(|to| *to != module).map(|to| ((*module).clone(), (**to).clone())));
        }
    }
    out
}

/// An `impl` block of a type's own methods.
struct Block {
    /// The type.
    of: String,
    methods: BTreeSet<String>,
    /// Methods called on `self`, and functions of the type called by `Self::`.
    called: BTreeSet<String>,
}

/// The blocks of a source that stand at the margin.
fn blocks(code: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let margin = code.match_indices("impl").map(|m| m.0).filter(|at| *at == 0 || code[..*at].ends_with('\n'));
    for at in margin {
        let text = &code[at..];
        let Some(head) = text.find('{') else { continue };
        let all = words(&text[4..head]);
        if all.iter().any(|w| w == "for") {
            continue;
        }
        // `impl<'a> Name<'a>`: what is in angle brackets is no name.
        let mut depth = 0;
        let name = all.into_iter().find(|w| {
            depth += i32::from(w == "<") - i32::from(w == ">");
            depth == 0 && is_word(w)
        });
        let Some(of) = name else { continue };
        let body = &text[head..text.find("\n}").map_or(text.len(), |end| end.max(head))];
        let words = words(body);
        let word = |i: usize| words.get(i).map_or("", String::as_str);
        let mut block = Block { of, methods: BTreeSet::new(), called: BTreeSet::new() };
        for i in 0..words.len() {
            match (word(i), word(i + 1), word(i + 2), word(i + 3), word(i + 4)) {
                ("fn", name, ..) => _ = block.methods.insert(name.to_owned()),
                ("self", ".", name, "(", _) | ("Self", ":", ":", name, "(") => {
                    _ = block.called.insert(name.to_owned());
                }
                _ => {}
            }
        }
        out.push(block);
    }
    out
}

/// Words and signs of a piece of code.
fn words(code: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word = String::new();
    for c in code.chars().chain([' ']) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            out.push(c.to_string());
        }
    }
    out
}

/// Groups of modules that lead to each other.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(m) = next.pop() {
            for to in graph.get(m).into_iter().flatten() {
                if seen.insert(to) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|m| (m, reached(m))).collect();
    let mut out: BTreeSet<Vec<String>> = BTreeSet::new();
    for (m, to) in all.iter().filter(|(m, to)| to.contains(**m)) {
        let with = to.iter().filter(|o| all.get(**o).is_some_and(|back| back.contains(*m)));
        out.insert(with.map(|o| (**o).clone()).collect());
    }
    out.into_iter().collect()
}

#[test]
fn no_circle_of_files() {
    let mut crates: Vec<PathBuf> =
        fs::read_dir(root().join("crates")).expect("crates").map(|c| c.expect("a crate").path()).collect();
    crates.push(root().join("ui"));
    crates.sort();
    let mut left: BTreeSet<(&str, &[&str])> = LEFT.iter().map(|(c, m, _)| (*c, *m)).collect();
    let mut wrong = String::new();
    let mut seen = 0;
    for folder in crates {
        let name = folder.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        let modules = modules(&folder.join("src"));
        seen += modules.len();
        let graph = graph(&modules);
        for circle in circles(&graph) {
            let known = left.iter().find(|(c, m)| *c == name && *m == circle).copied();
            if let Some(known) = known {
                left.remove(&known);
                continue;
            }
            let _ = writeln!(wrong, "\n{name}: a circle of {circle:?}:");
            for m in &circle {
                let to: Vec<&String> = graph[m].iter().filter(|t| circle.contains(t)).collect();
                let _ = writeln!(wrong, "    {m} names {to:?}");
            }
        }
    }
    assert!(seen > 100, "this test finds the modules");
    assert!(
        wrong.is_empty(),
        "{wrong}\nmove what several of them use into a file below them (ARCHITECTURE.md)"
    );
    assert!(left.is_empty(), "circles that are gone, or smaller now, leave the list: {left:?}");
}

#[test]
fn circles_are_found() {
    let of = |files: &[(&str, &str)]| {
        let modules = files.iter().map(|(m, code)| ((*m).to_owned(), code_of(code))).collect();
        circles(&graph(&modules))
    };
    let lib = ("", "mod a; mod b; pub use b::B;");
    assert_eq!(
        of(&[lib, ("a", "use crate::b::{self, C as D};"), ("b", "pub struct B;")]),
        Vec::<Vec<String>>::new()
    );
    assert_eq!(of(&[lib, ("a", "use crate::{c, b::B};"), ("b", "fn f() { super::a::g() }")]), [["a", "b"]]);
    assert_eq!(
        of(&[lib, ("a", "use crate::B;"), ("b", "use crate::a::A;")]),
        [["a", "b"]],
        "through the root"
    );
    let quiet = "// crate::a::x\nconst S: &str = \"crate::a::x\"; const R: &str = r#\"crate::a\"#;\n#[cfg(test)]\nmod tests { use crate::a::A; }";
    assert_eq!(of(&[lib, ("a", "use crate::b::B;"), ("b", quiet)]), Vec::<Vec<String>>::new());
    // A child may name its parent, but nobody else may lead back into the family.
    assert_eq!(of(&[lib, ("a", "mod c;"), ("a::c", "use super::A;")]), Vec::<Vec<String>>::new());
    assert_eq!(
        of(&[lib, ("a", "mod c;"), ("a::c", "use crate::b::B;"), ("b", "use crate::a::A;")]),
        [["a", "a::c", "b"]]
    );
    // Two files that add methods to one type, each calling the other's.
    let x = ("x", "pub struct X;");
    let a = ("a", "use crate::x::X;\nimpl X {\n    fn one(&self) { let f = || self.two(); f() }\n}\n");
    let back = ("b", "use crate::x::X;\nimpl<'a> X {\n    fn two(&self) { Self::one(self) }\n}\n");
    let quiet = ("b", "use crate::x::X;\nimpl X {\n    fn two(&self) { self.three() }\n}\n");
    assert_eq!(of(&[lib, x, a, back]), [["a", "b"]], "through methods");
    assert_eq!(of(&[lib, x, a, quiet]), Vec::<Vec<String>>::new());
    let other = (
        "b",
        "impl Y {\n    fn two(&self) { self.one() }\n}\nimpl Drop for X {\n    fn one(&self) { self.two() }\n}\n",
    );
    assert_eq!(of(&[lib, x, a, other]), Vec::<Vec<String>>::new(), "methods of another type, and a trait's");
}
