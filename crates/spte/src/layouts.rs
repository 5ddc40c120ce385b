//! The layouts that ship with the crate.

use alloc::{format, string::String, vec::Vec};

use crate::{Error, LayoutSpec, Mode, eras};

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/layout_files.rs"));

/// The file of a family and mode: its name (`C/ept`) and its text.
pub(crate) fn text(family: &str, mode: &str) -> Option<(&'static str, &'static str)> {
    FILES.iter().copied().find(|(name, _)| name.split_once('/') == Some((family, mode)))
}

/// The shipped files: `C/ept` and the text of each, for a user who wants to start from one.
pub fn files() -> &'static [(&'static str, &'static str)] {
    FILES
}

/// Names of all layouts: every era in every mode its family has.
pub fn all() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for era in eras::eras()? {
        for mode in Mode::ALL {
            if text(era.family, mode.name()).is_some() {
                names.push(format!("{}/{}", era.id, mode.name()));
            }
        }
    }
    Ok(names)
}

/// A layout by name, for a host of which nothing is known.
pub fn find(name: &str) -> Result<crate::Resolved, Error> {
    LayoutSpec::named(name)?.resolve()
}
