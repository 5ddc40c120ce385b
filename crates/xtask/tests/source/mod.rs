//! The sources of the repository, for the tests of this folder: where they are ([`root`], [`files`]), and what of a Rust source is code, comment
//! or literal ([`pieces`]). Nothing here judges what it finds.

#![allow(dead_code, reason = "each test of the folder uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/xtask is two levels down")
        .to_path_buf()
}

/// The files below a folder whose names end in one of these, without what is built and what git holds, in the order of their paths.
pub(crate) fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for e in fs::read_dir(dir).expect("a folder").flatten() {
        let path = e.path();
        let name = e.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                out.extend(files(&path, endings));
            }
        } else if path.extension().is_some_and(|x| endings.iter().any(|y| x == *y)) {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// What a piece of a Rust source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    /// A comment, with its slashes.
    Comment,
    /// A string, with its quotes.
    Text,
    /// A character, with its quotes.
    Char,
}

/// A part of a Rust source. All parts, one after another, are the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// The number of the line on which it begins, from 1.
    pub(crate) line: usize,
}

/// Takes a Rust source apart.
pub(crate) fn pieces(source: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while !rest.is_empty() {
        let (kind, len) = first_piece(rest);
        let text = &rest[..len];
        out.push(Piece { kind, text, line });
        line += text.matches('\n').count();
        rest = &rest[len..];
    }
    out
}

/// The kind of what a source begins with, and its length.
fn first_piece(rest: &str) -> (Kind, usize) {
    let up_to = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |n| from + n + end.len());
    let Some(c) = rest.chars().next() else { return (Kind::Code, 0) };
    if rest.starts_with("//") {
        (Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        (Kind::Comment, up_to("*/", 2))
    } else if let Some((start, close)) = raw_string(rest) {
        (Kind::Text, up_to(&close, start))
    } else if c == '"' {
        (Kind::Text, end_of_string(rest))
    } else if c == '\'' {
        match end_of_char(rest) {
            1 => (Kind::Code, 1),
            len => (Kind::Char, len),
        }
    } else if c.is_alphanumeric() || c == '_' {
        (Kind::Code, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
    } else {
        (Kind::Code, c.len_utf8())
    }
}

/// Where the content of a raw string begins, and what closes it.
fn raw_string(rest: &str) -> Option<(usize, String)> {
    let after = rest.strip_prefix('r').or_else(|| rest.strip_prefix("br"))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let start = rest.len() - after.len() + hashes + 1;
    after[hashes..].starts_with('"').then(|| (start, format!("\"{}", "#".repeat(hashes))))
}

fn end_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (n, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return n + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal, or 1 for the quote of a lifetime.
fn end_of_char(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(n, _)| n + 3)
        }
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(n, _)| n + 1),
        None => 1,
    }
}

/// The code of a source alone: what is no code is blank, and every line is where it was.
pub(crate) fn code_of(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for p in pieces(source) {
        if p.kind == Kind::Code {
            out.push_str(p.text);
        } else {
            out.extend(p.text.chars().map(|c| if c == '\n' { c } else { ' ' }));
        }
    }
    out
}
