//! [`Session`]: the file beside a trace that holds the notes of its reader, and how the viewer looked at it. The viewer writes it, and only where
//! its user has named it; the report prints the notes. The trace itself never changes.
//!
//! It is a text of lines `NAME VALUE`. Lines with names that are not known are kept, so that an older version does no harm.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The first line of the file.
const HEAD: &str = "# mmuscope session, version 1: notes on a trace, and how it was looked at";
/// Most bytes of a file that are read as a session; nobody writes so many notes.
pub const MOST: u64 = 16 << 20;

/// A remark of a reader on a moment of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The moment, in nanoseconds since the first event.
    pub at: u64,
    /// VM.
    pub vm: u16,
    /// Guest frame, where the note is on one.
    pub gfn: Option<u64>,
    /// What it says. It is not trusted: whoever prints it escapes it.
    pub text: String,
}

/// The notes on a trace, and the lines that the viewer keeps about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The notes, in the order of their moments.
    pub notes: Vec<Note>,
    /// Names and values of all other lines, in the order of the file.
    pub view: Vec<(String, String)>,
}

/// Where the session of a trace is kept: beside it, as `NAME.mmuscope`.
pub fn beside(trace: &Path) -> PathBuf {
    let mut name = trace.as_os_str().to_owned();
    name.push(".mmuscope");
    PathBuf::from(name)
}

impl Session {
    /// Reads a session. The error says what is wrong, with the number of the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().enumerate();
        if !lines.next().is_some_and(|(_, l)| l.starts_with("# mmuscope session, version 1")) {
            return Err("it does not begin with “# mmuscope session, version 1”".to_owned());
        }
        let mut out = Self::default();
        for (n, line) in lines.filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            if name == "note" {
                out.notes.push(note(value).ok_or_else(|| {
                    format!("line {}: a note is `note NANOSECONDS vm=N gfn=0xN TEXT`", n + 1)
                })?);
            } else {
                out.view.push((name.to_owned(), value.to_owned()));
            }
        }
        out.notes.sort_by_key(|n| n.at);
        Ok(out)
    }

    /// Reads the session of a file. The error says what is wrong, with the path.
    pub fn read(path: &Path) -> Result<Self, String> {
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let size = std::fs::metadata(path).map_err(|e| fail(&e))?.len();
        if size > MOST {
            return Err(fail(&"this is too large for a session"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| fail(&e))?;
        Self::parse(&text).map_err(|e| fail(&format!("this is no session of mmuscope: {e}")))
    }

    /// Writes the session so that a reader of the file finds the old one or the new one, and never a part.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        std::fs::write(&part, self.text())?;
        std::fs::rename(&part, path)
    }

    /// The session as text.
    pub fn text(&self) -> String {
        let mut out = format!("{HEAD}\n");
        let mut line = |name: &str, value: &str| {
            // A line break would begin another line.
            if !name.contains(['\n', ' ']) && !value.contains(['\n', '\r']) {
                let _ = writeln!(out, "{name} {value}");
            }
        };
        for (name, value) in &self.view {
            line(name, value);
        }
        for n in &self.notes {
            let gfn = n.gfn.map_or_else(String::new, |g| format!("gfn={g:#x} "));
            line("note", &format!("{} vm={} {gfn}{}", n.at, n.vm, escaped(&n.text)));
        }
        out
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (c, false) => out.push(c),
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some(c) => out.push(c),
                None => out.push('\\'),
            },
        }
    }
    out
}

fn note(value: &str) -> Option<Note> {
    let (at, rest) = value.split_once(' ')?;
    let (vm, rest) = rest.strip_prefix("vm=")?.split_once(' ')?;
    let (gfn, text) = match rest.strip_prefix("gfn=0x") {
        Some(rest) => {
            let (gfn, text) = rest.split_once(' ').unwrap_or((rest, ""));
            (Some(u64::from_str_radix(gfn, 16).ok()?), text)
        }
        None => (None, rest),
    };
    Some(Note { at: at.parse().ok()?, vm: vm.parse().ok()?, gfn, text: unescaped(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let note = |at, gfn, text: &str| Note { at, vm: 1, gfn, text: text.to_owned() };
        let s = Session {
            notes: vec![
                note(5, None, "gfn=1 looks like a frame, and is a text"),
                note(7, Some(0xfee00), "two\nlines \\n and a \\ at the end \\"),
                note(9, Some(1), ""),
            ],
            view: vec![
                ("filter".into(), "event == 'kvm_page_fault'".into()),
                ("of-tomorrow".into(), "7".into()),
            ],
        };
        assert_eq!(Session::parse(&s.text()), Ok(s.clone()));
        let dir = tempfile::tempdir().expect("a folder");
        let file = beside(&dir.path().join("trace.dat"));
        assert!(file.ends_with("trace.dat.mmuscope"));
        s.write(&file).expect("written");
        assert_eq!(Session::read(&file), Ok(s));
    }

    #[test]
    fn what_is_no_session_says_so() {
        for (text, word) in [
            ("", "does not begin"),
            ("garbage", "does not begin"),
            ("# mmuscope session, version 1\nnote x vm=0 y", "line 2"),
            ("# mmuscope session, version 1\n\nnote 5 vm=99999 y", "line 3"),
        ] {
            let e = Session::parse(text).expect_err(text);
            assert!(e.contains(word), "{text}: {e}");
        }
    }
}
