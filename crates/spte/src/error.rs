//! [`Error`]: why no layout could be made.

use alloc::{string::String, vec::Vec};

use crate::FileError;

/// Why no layout could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A layout file has a mistake.
    File(FileError),
    /// No shipped layout has this name.
    UnknownLayout(String),
    /// Neither the mode nor the layout is known.
    NoMode,
    /// This is not the name of a mask variable.
    UnknownMask(String),
    /// The parts that are given exclude each other, so no layout is left.
    Clash(Vec<String>),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::File(error) => error.fmt(f),
            Error::UnknownLayout(name) => write!(
                f,
                "no layout is called `{name}`: names are ERA/MODE, FAMILY/MODE or RELEASE/MODE, as E10/ept, C/npt or 6.1/npt"
            ),
            Error::NoMode => write!(f, "the paging mode is not known: name it (ept, npt, shadow64 …)"),
            Error::Clash(parts) => write!(f, "no layout has {}", parts.join(" and ")),
            Error::UnknownMask(name) => write!(f, "`{name}` is not a mask variable of KVM"),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Error::File(error) => Some(error),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Error::File(error)
    }
}
