//! The layout files that ship with the crate. [`Library`] reads each of them at most once.

use alloc::{format, string::String, vec::Vec};
use core::cell::OnceCell;

use crate::{Era, Error, FileError, Mode, eras, file::File};

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/layout_files.rs"));

/// What each kernel traces, whatever its layout: its name and its text.
const TRACES: (&str, &str) = ("traces.toml", include_str!("../layouts/traces.toml"));

/// The file of a family and mode, as its name (`C/ept`) and its text.
pub(crate) fn text(family: &str, mode: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().copied().find(|(name, _)| name.split_once('/') == Some((family, mode)))
}

/// The names (`C/ept`) and texts of all shipped files; a user can copy one as a start.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// The shipped files. Each is read at most once and only when it is asked for, so one `Library` for a process is enough.
pub struct Library {
    eras: OnceCell<Result<Vec<Era>, FileError>>,
    traces: OnceCell<Result<File<'static>, FileError>>,
    files: [OnceCell<Result<File<'static>, FileError>>; FILES.len()],
}

impl Default for Library {
    fn default() -> Self {
        Self::new()
    }
}

impl Library {
    /// Makes a library that has not read any file yet.
    pub fn new() -> Self {
        Self {
            eras: OnceCell::new(),
            traces: OnceCell::new(),
            files: [const { OnceCell::new() }; FILES.len()],
        }
    }

    /// All eras, oldest first.
    pub fn eras(&self) -> Result<&[Era], Error> {
        self.eras.get_or_init(eras::eras).as_deref().map_err(|e| Error::File(e.clone()))
    }

    /// Whether a family has a layout for a mode.
    pub fn has(&self, family: &str, mode: Mode) -> bool {
        text(family, mode.name()).is_some()
    }

    /// Whether the kernels of an era (by its place in [`Library::eras`]) have a mode: its family does, and it did not begin with a later era.
    pub(crate) fn era_has(&self, eras: &[Era], at: usize, mode: Mode) -> bool {
        let later = eras.iter().skip(at + 1).any(|e| e.new_modes.contains(&mode));
        eras.get(at).is_some_and(|e| self.has(e.family, mode)) && !later
    }

    /// The file that says what each kernel traces.
    pub(crate) fn traces(&self) -> Result<&File<'static>, Error> {
        let parse = || File::parse(TRACES.0, TRACES.1);
        self.traces.get_or_init(parse).as_ref().map_err(|e| Error::File(e.clone()))
    }

    pub(crate) fn file(&self, family: &str, mode: &str) -> Result<&File<'static>, Error> {
        let at = FILES
            .iter()
            .position(|(name, _)| name.split_once('/') == Some((family, mode)))
            .ok_or_else(|| Error::UnknownLayout(format!("{family}/{mode}")))?;
        let (name, text) = FILES[at];
        self.files[at].get_or_init(|| File::parse(name, text)).as_ref().map_err(|e| Error::File(e.clone()))
    }

    /// The names of all layouts: every era in every mode of its family.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for era in self.eras()? {
            for mode in Mode::ALL {
                if self.has(era.family, mode) {
                    names.push(format!("{}/{}", era.id, mode.name()));
                }
            }
        }
        Ok(names)
    }
}
