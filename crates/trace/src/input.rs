//! Where the bytes come from: a file, a pipe or memory, each perhaps compressed. The main type is [`Input`].

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::info::Compression;
use crate::sniff::{self, Kind};

/// The number of bytes that suffices to recognise any format.
pub(crate) const HEAD: usize = 64 << 10;

/// Bytes that can be read at any offset.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Arc<File>, u64),
    /// A temporary file that this program made, with its length.
    Spilled(Arc<File>, u64),
    Bytes(Arc<[u8]>),
}

impl Source {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(_, n) | Self::Spilled(_, n) => *n,
            Self::Bytes(b) => b.len() as u64,
        }
    }

    /// If the content was too large for memory, a sentence that says where it was put.
    pub(crate) fn spilled(&self) -> Option<String> {
        let Self::Spilled(_, n) = self else { return None };
        let folder = tempfile::env::temp_dir();
        Some(format!("{} MB were put into a temporary file in {} to be read", n >> 20, folder.display()))
    }

    /// Reads the bytes of a range in order.
    pub(crate) fn section(&self, from: u64, to: u64) -> SourceReader {
        SourceReader { source: self.clone(), at: from, end: to.min(self.len()).max(from) }
    }

    /// Fills as much of `buf` as there are bytes from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(f, _) | Self::Spilled(f, _) => {
                let mut n = 0;
                while n < buf.len() {
                    match f.read_at(&mut buf[n..], offset + n as u64) {
                        Ok(0) => break,
                        Ok(k) => n += k,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(n)
            }
            Self::Bytes(b) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(b.len());
                let n = buf.len().min(b.len() - from);
                buf[..n].copy_from_slice(&b[from..from + n]);
                Ok(n)
            }
        }
    }

    /// Returns exactly this range if the file has all of it. It never allocates more than the length of the file.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        if offset.checked_add(len)? > self.len() {
            return None;
        }
        let mut buf = vec![0; usize::try_from(len).ok()?];
        let n = self.read_at(offset, &mut buf).ok()?;
        (n == buf.len()).then_some(buf)
    }

    /// Reads all bytes in order.
    pub(crate) fn reader(&self) -> SourceReader {
        self.section(0, self.len())
    }
}

/// Sequential reading of a [`Source`].
#[derive(Clone, Debug)]
pub(crate) struct SourceReader {
    source: Source,
    at: u64,
    end: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = (self.end - self.at).min(buf.len() as u64) as usize;
        let n = self.source.read_at(self.at, &mut buf[..most])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// An opened input, with the format that was recognised.
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) compression: Compression,
    /// The size in bytes as stored; 0 for a pipe.
    pub(crate) size: u64,
    pub(crate) data: Data,
    /// If the content was put into a temporary file, a sentence that says where.
    pub(crate) spilled: Option<String>,
}

/// The content, decompressed.
pub(crate) enum Data {
    Source(Source),
    Stream(Box<dyn Read + Send>),
}

impl Data {
    pub(crate) fn into_stream(self) -> Box<dyn Read + Send> {
        match self {
            Self::Source(s) => Box::new(s.reader()),
            Self::Stream(s) => s,
        }
    }
}

/// Opens a path (`-` is standard input) and recognises its content.
pub(crate) fn open(path: &Path) -> Result<Input, Error> {
    if path.as_os_str() == "-" {
        return stream(Box::new(io::stdin()), Path::new("standard input"));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let meta = file.metadata().map_err(|e| Error::io(path, e))?;
    if meta.is_file() {
        source(Source::File(Arc::new(file), meta.len()), path)
    } else {
        stream(Box::new(file), path)
    }
}

/// Opens bytes in memory.
pub(crate) fn source(source: Source, path: &Path) -> Result<Input, Error> {
    let size = source.len();
    let head = head(&mut source.reader()).map_err(|e| Error::io(path, e))?;
    let compression = sniff::compression(&head);
    if compression == Compression::None {
        let kind = sniff::kind(&head, path)?;
        return Ok(Input {
            path: path.to_path_buf(),
            kind,
            compression,
            size,
            data: Data::Source(source),
            spilled: None,
        });
    }
    let mut input = decompressed(Box::new(source.reader()), compression, path, size)?;
    input.size = size;
    Ok(input)
}

/// Opens a pipe.
pub(crate) fn stream(mut s: Box<dyn Read + Send>, path: &Path) -> Result<Input, Error> {
    let head = head(&mut s).map_err(|e| Error::io(path, e))?;
    let compression = sniff::compression(&head);
    if compression != Compression::None {
        return decompressed(Box::new(Cursor::new(head).chain(s)), compression, path, 0);
    }
    let kind = sniff::kind(&head, path)?;
    let s: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(s));
    let mut spilled = None;
    let data = if kind.needs_seek() {
        let source = collect(s, u64::MAX, path)?;
        spilled = source.spilled();
        Data::Source(source)
    } else {
        Data::Stream(s)
    };
    Ok(Input { path: path.to_path_buf(), kind, compression, size: 0, data, spilled })
}

fn decompressed(
    s: Box<dyn Read + Send>,
    compression: Compression,
    path: &Path,
    size: u64,
) -> Result<Input, Error> {
    let mut s: Box<dyn Read + Send> = match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(s)),
        Compression::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(s)),
        _ => {
            let mut d = zstd::stream::read::Decoder::new(s).map_err(|e| Error::io(path, e))?;
            // The window is at most that of `zstd --long`; a hostile frame may ask for more.
            d.window_log_max(27).map_err(|e| Error::io(path, e))?;
            Box::new(d)
        }
    };
    let head = head(&mut s).map_err(|e| Error::Unrecognised {
        path: path.to_path_buf(),
        found: format!("it begins like a {compression:?} file but does not decompress ({e})"),
    })?;
    let kind = sniff::kind(&head, path)?;
    let s: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(s));
    let mut spilled = None;
    let data = if kind.needs_seek() {
        // Real traces compress to about a tenth; a file that exceeds this limit is a decompression bomb.
        let limit = if size == 0 { u64::MAX } else { (64 << 20) + size.saturating_mul(1024) };
        let source = collect(s, limit, path)?;
        spilled = source.spilled();
        Data::Source(source)
    } else {
        Data::Stream(s)
    };
    Ok(Input { path: path.to_path_buf(), kind, compression, size, data, spilled })
}

/// The number of bytes of a stream that are held in memory; a larger one goes to a temporary file.
const IN_MEMORY: usize = 32 << 20;

/// Reads all of a stream, for a format that must be read at any offset.
fn collect(mut s: Box<dyn Read + Send>, limit: u64, path: &Path) -> Result<Source, Error> {
    let mut memory = Vec::new();
    let mut file: Option<File> = None;
    let mut total = 0u64;
    let mut chunk = vec![0; 256 << 10];
    let folder = tempfile::env::temp_dir();
    let full = |e: io::Error| Error::Unsupported {
        path: path.to_path_buf(),
        what: format!("what it decompresses to does not fit into {} ({e})", folder.display()),
        next: "decompress it to a file elsewhere and give that, or name a folder with room in TMPDIR"
            .to_owned(),
    };
    loop {
        let n = match s.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // The compressed file is cut. What was decompressed so far is read, and the reader of the format reports the missing end.
            Err(_) => break,
        };
        total += n as u64;
        if total > limit {
            return Err(Error::Unsupported {
                path: path.to_path_buf(),
                what: "it decompresses to far more than its own size".to_owned(),
                next: "decompress it to a file first and give that".to_owned(),
            });
        }
        if let Some(f) = &mut file {
            f.write_all(&chunk[..n]).map_err(full)?;
            continue;
        }
        memory.extend_from_slice(&chunk[..n]);
        if memory.len() > IN_MEMORY {
            // The file has no name, so it disappears when this program ends, in whatever way.
            let mut f = tempfile::tempfile_in(&folder).map_err(full)?;
            f.write_all(&memory).map_err(full)?;
            memory = Vec::new();
            file = Some(f);
        }
    }
    Ok(match file {
        Some(f) => Source::Spilled(Arc::new(f), total),
        None => Source::Bytes(memory.into()),
    })
}

/// Reads the first bytes.
fn head(s: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; HEAD];
    let mut n = 0;
    while n < buf.len() {
        match s.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(k) => {
                n += k;
                // A pipe may be slow, so no more is waited for than is needed.
                if n >= 16 && sniff::is_binary(&buf[..n]) {
                    break;
                }
                if n >= 4096 || buf[..n].ends_with(b"\n") && sniff::has_event(&buf[..n]) {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if n == 0 => return Err(e),
            Err(_) => break,
        }
    }
    buf.truncate(n);
    Ok(buf)
}
