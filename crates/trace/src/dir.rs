//! Directories: `perf record --threads` output, and raw ring pages with a folder of formats.

use std::path::Path;

use crate::error::Error;
use crate::load::Opened;
use crate::reader::Cx;

/// Opens a directory.
pub(crate) fn open(path: &Path, _cx: &mut Cx) -> Result<Opened, Error> {
    Err(Error::Directory { path: path.to_path_buf() })
}
