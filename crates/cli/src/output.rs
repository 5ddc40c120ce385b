//! Where output goes: standard output, or a file that is whole or not there.

use crate::progress;
use anyhow::{Context, Result, bail};
use mmuscope_tables::{Error, Format};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Whether the error is only that our reader went away.
pub(crate) fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|c| {
        c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || c.downcast_ref::<Error>().is_some_and(Error::is_broken_pipe)
    })
}

/// The format of an output: the one that was asked for, else what the file's name says, else `default`. A name that says something unknown is
/// refused rather than filled with what its ending does not promise; `of` knows endings, `known` lists them for people.
pub(crate) fn format_for<F: Copy + PartialEq + fmt::Display>(
    asked: Option<F>,
    path: Option<&Path>,
    default: F,
    of: impl Fn(&str) -> Option<F>,
    known: &str,
) -> Result<F> {
    // A device or a pipe has a name, but no ending that means anything.
    let named = path.filter(|p| p.as_os_str() != "-" && !p.metadata().is_ok_and(|m| !m.is_file()));
    let ending = named.and_then(Path::extension).map(|e| e.to_string_lossy().into_owned());
    let by_name = ending.as_deref().map(|e| of(&e.to_ascii_lowercase()));
    match (asked, by_name) {
        (Some(asked), Some(Some(named))) if asked != named => {
            let path = path.unwrap_or(Path::new("")).display();
            eprintln!("mmuscope: {path} will hold {asked}, as --format says, not {named}");
            Ok(asked)
        }
        (Some(asked), _) => Ok(asked),
        (None, Some(Some(named))) => Ok(named),
        (None, None) => Ok(default),
        (None, Some(None)) => bail!(
            "{}: no format is called .{}: name the file {known}, or say which with --format",
            path.unwrap_or(Path::new("")).display(),
            ending.unwrap_or_default()
        ),
    }
}

/// An output that is being written. [`Output::done`] keeps it; dropped before that, a file is not left behind half-written.
pub(crate) struct Output {
    to: Option<BufWriter<Box<dyn Write>>>,
    /// Written here, and moved there in the end.
    moving: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// Standard output, or the file, for text.
    pub(crate) fn text(path: Option<&Path>) -> Result<Self> {
        Self::new(path, Format::Text)
    }

    /// Standard output, or the file.
    pub(crate) fn new(path: Option<&Path>, format: Format) -> Result<Self> {
        let path = path.filter(|p| p.as_os_str() != "-");
        let Some(path) = path else {
            if format.is_binary() && io::stdout().is_terminal() {
                bail!("{format} is not for a terminal: name a file with -o, or pipe it somewhere");
            }
            return Ok(Self {
                to: Some(BufWriter::with_capacity(1 << 16, Box::new(io::stdout().lock()))),
                moving: None,
            });
        };
        let there = |what: &str| format!("{}: {what}", path.display());
        // A device or a pipe is written to as it is.
        let in_place = path.metadata().is_ok_and(|m| !m.is_file());
        if path.is_dir() {
            bail!(there("a directory: name a file in it"));
        }
        let (target, moving) = if in_place {
            (path.to_path_buf(), None)
        } else {
            let mut part = path.as_os_str().to_owned();
            part.push(format!(".part{}", std::process::id()));
            (PathBuf::from(&part), Some((PathBuf::from(part), path.to_path_buf())))
        };
        let mut options = File::options();
        options.write(true).create(!in_place).truncate(!in_place);
        let file = options.open(&target).with_context(|| there("cannot write it"))?;
        if let Some((part, _)) = &moving {
            progress::part(part, true);
        }
        Ok(Self { to: Some(BufWriter::with_capacity(1 << 16, Box::new(file))), moving })
    }

    /// Ends the output and puts a file in its place.
    pub(crate) fn done(mut self) -> Result<()> {
        if let Some(mut to) = self.to.take() {
            to.flush()?;
        }
        if let Some((part, path)) = &self.moving {
            std::fs::rename(part, path).with_context(|| format!("{}: cannot write it", path.display()))?;
            progress::part(part, false);
            self.moving = None;
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if progress::stopped() {
            return Err(io::Error::other("stopped"));
        }
        self.to.as_mut().map_or(Ok(0), |w| w.write(buf))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.to.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = self.moving.take() {
            self.to = None;
            // What cannot be removed was never promised.
            let _ = std::fs::remove_file(&part);
            progress::part(&part, false);
        }
    }
}
