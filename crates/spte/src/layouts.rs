//! The layouts that ship with the crate.

use alloc::{format, string::String, vec::Vec};
use core::cell::OnceCell;

use crate::{Era, Error, FileError, LayoutSpec, Mode, Resolved, eras, file::File};

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/layout_files.rs"));

/// The file of a family and mode: its name (`C/ept`) and its text.
pub(crate) fn text(family: &str, mode: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().copied().find(|(name, _)| name.split_once('/') == Some((family, mode)))
}

/// The shipped files: `C/ept` and the text of each, for a user who wants to start from one.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// The shipped files, each read at most once and only when asked for: one per process is enough.
pub struct Library {
    eras: OnceCell<Result<Vec<Era>, FileError>>,
    files: [OnceCell<Result<File<'static>, FileError>>; FILES.len()],
}

impl Default for Library {
    fn default() -> Self {
        Self::new()
    }
}

impl Library {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self { eras: OnceCell::new(), files: [const { OnceCell::new() }; FILES.len()] }
    }

    /// All eras, oldest first.
    pub fn eras(&self) -> Result<&[Era], Error> {
        self.eras.get_or_init(eras::eras).as_deref().map_err(|e| Error::File(e.clone()))
    }

    /// Whether a family has a mode.
    pub fn has(&self, family: &str, mode: Mode) -> bool {
        text(family, mode.name()).is_some()
    }

    pub(crate) fn file(&self, family: &str, mode: &str) -> Result<&File<'static>, Error> {
        let at = FILES
            .iter()
            .position(|(name, _)| name.split_once('/') == Some((family, mode)))
            .ok_or_else(|| Error::UnknownLayout(format!("{family}/{mode}")))?;
        let (name, text) = FILES[at];
        self.files[at].get_or_init(|| File::parse(name, text)).as_ref().map_err(|e| Error::File(e.clone()))
    }

    /// Names of all layouts: every era in every mode its family has.
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

/// A layout by name, for a host of which nothing is known.
pub fn find(name: &str) -> Result<Resolved, Error> {
    LayoutSpec::named(name)?.resolve()
}
