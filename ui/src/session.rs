//! [`Session`]: what the viewer remembers from one start to the next: recent files and which panels are open.

use std::path::{Path, PathBuf};

use crate::doc::Shown;

/// Most recent files that are kept.
const RECENT: usize = 12;

/// What is remembered between starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Recent files, the newest first.
    pub(crate) recent: Vec<PathBuf>,
    /// Panels that are open.
    pub(crate) shown: Shown,
}

const KEY: &str = "mmuscope-session";

impl Session {
    /// Notes that a file was opened.
    pub(crate) fn opened(&mut self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        self.recent.retain(|p| *p != path);
        self.recent.insert(0, path);
        self.recent.truncate(RECENT);
    }

    /// Reads the session from eframe's storage.
    pub(crate) fn load(storage: Option<&dyn eframe::Storage>) -> Self {
        storage.and_then(|s| s.get_string(KEY)).map_or_else(Self::default, |text| Self::parse(&text))
    }

    /// Writes the session to eframe's storage.
    pub(crate) fn save(&self, storage: &mut dyn eframe::Storage) {
        storage.set_string(KEY, self.text());
    }

    /// The session as lines `name value`. Unknown names are skipped when they are read, so that a later version may add some.
    fn text(&self) -> String {
        let mut out = String::new();
        for path in &self.recent {
            // A path with a line break cannot be written as a line and is not remembered.
            if let Some(p) = path.to_str().filter(|p| !p.contains('\n')) {
                out.extend(["recent ", p, "\n"]);
            }
        }
        let s = self.shown;
        for (name, on) in [
            ("details", s.details),
            ("tables", s.tables),
            ("area", s.area),
            ("faults", s.faults),
            ("legend", s.legend),
            ("causes", s.causes),
            ("memory", s.memory),
        ] {
            out.extend([name, if on { " true\n" } else { " false\n" }]);
        }
        out
    }

    fn parse(text: &str) -> Self {
        let mut session = Self::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else { continue };
            let s = &mut session.shown;
            let flag = match name {
                "details" => &mut s.details,
                "tables" => &mut s.tables,
                "area" => &mut s.area,
                "faults" => &mut s.faults,
                "legend" => &mut s.legend,
                "causes" => &mut s.causes,
                "memory" => &mut s.memory,
                "recent" if session.recent.len() < RECENT => {
                    session.recent.push(PathBuf::from(value));
                    continue;
                }
                _ => continue,
            };
            *flag = value == "true";
        }
        session
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut s = Session::default();
        s.opened(Path::new("/a/with space.dat"));
        s.opened(Path::new("/b"));
        s.opened(Path::new("/a/with space.dat"));
        s.shown.memory = true;
        s.shown.details = false;
        assert_eq!(s.recent, [PathBuf::from("/a/with space.dat"), PathBuf::from("/b")]);
        assert_eq!(Session::parse(&s.text()), s);
    }

    #[test]
    fn lines_of_another_version_do_no_harm() {
        assert_eq!(
            Session::parse("future 7\n\nrubbish\ndetails perhaps\n").shown,
            Shown { details: false, ..Shown::default() }
        );
    }
}
