//! [`Output`]: standard output, or a file that appears under its name only once it is complete.

use crate::progress;
use anyhow::{Context, Result, bail};
use mmuscope_tables::{Error, Format};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Whether the error is only that the reader closed its end of the pipe.
pub(crate) fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|c| {
        c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
            || c.downcast_ref::<Error>().is_some_and(Error::is_broken_pipe)
    })
}

/// The format of an output: the one that `--format` names, else the one of the file's ending, else `default`. An unknown ending is refused,
/// because a file of another format than its name promises misleads. `of` maps endings to formats; `known` lists the endings for the message.
pub(crate) fn format_for<F: Copy + PartialEq + fmt::Display>(
    asked: Option<F>,
    path: Option<&Path>,
    default: F,
    of: impl Fn(&str) -> Option<F>,
    known: &str,
) -> Result<F> {
    // The ending of a device or a pipe has no meaning.
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

/// An output that is being written. [`Output::done`] completes it; if it is dropped before that, the unfinished file is removed.
pub(crate) struct Output {
    to: Option<BufWriter<Box<dyn Write>>>,
    /// The unfinished file and the name it gets in the end.
    moving: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// Opens standard output, or the file, for text.
    pub(crate) fn text(path: Option<&Path>) -> Result<Self> {
        Self::new(path, Format::Text)
    }

    /// Opens standard output, or the file. Binary formats are not written to a terminal.
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
        // A device or a pipe is written to directly.
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

    /// Completes the output: a file gets its name.
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
            // The command failed already; a failure to remove its unfinished file adds nothing.
            let _ = std::fs::remove_file(&part);
            progress::part(&part, false);
        }
    }
}
