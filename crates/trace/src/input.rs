//! Where bytes come from: a file, a pipe, memory, each perhaps compressed.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::info::Compression;
use crate::sniff::{self, Kind};

/// Bytes enough to recognise any kind.
pub(crate) const HEAD: usize = 64 << 10;

/// Bytes that can be read at any place.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Arc<File>, u64),
    Bytes(Arc<[u8]>),
}

impl Source {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::File(_, n) => *n,
            Self::Bytes(b) => b.len() as u64,
        }
    }

    /// Fills as much of `buf` as there is from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(f, _) => {
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

    /// Exactly this range, if the file has all of it; never more memory than the file is long.
    pub(crate) fn bytes(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        if offset.checked_add(len)? > self.len() {
            return None;
        }
        let mut buf = vec![0; usize::try_from(len).ok()?];
        let n = self.read_at(offset, &mut buf).ok()?;
        (n == buf.len()).then_some(buf)
    }

    /// The bytes in order.
    pub(crate) fn reader(&self) -> SourceReader {
        SourceReader { source: self.clone(), at: 0 }
    }
}

/// Sequential reading of a [`Source`].
#[derive(Clone, Debug)]
pub(crate) struct SourceReader {
    source: Source,
    at: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(self.at, buf)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// An opened input with what its content was recognised as.
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) compression: Compression,
    /// Size as stored, 0 for a pipe.
    pub(crate) size: u64,
    pub(crate) data: Data,
}

/// The (decompressed) content.
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

/// Opens a path (`-` is standard input) and looks at its content.
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

/// Bytes in memory.
pub(crate) fn source(source: Source, path: &Path) -> Result<Input, Error> {
    let size = source.len();
    let head = head(&mut source.reader()).map_err(|e| Error::io(path, e))?;
    let compression = sniff::compression(&head);
    if compression == Compression::None {
        let kind = sniff::kind(&head, path)?;
        return Ok(Input { path: path.to_path_buf(), kind, compression, size, data: Data::Source(source) });
    }
    let mut input = decompressed(Box::new(source.reader()), compression, path, size)?;
    input.size = size;
    Ok(input)
}

/// A pipe.
pub(crate) fn stream(mut s: Box<dyn Read + Send>, path: &Path) -> Result<Input, Error> {
    let head = head(&mut s).map_err(|e| Error::io(path, e))?;
    let compression = sniff::compression(&head);
    if compression != Compression::None {
        return decompressed(Box::new(Cursor::new(head).chain(s)), compression, path, 0);
    }
    let kind = sniff::kind(&head, path)?;
    let s: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(s));
    let data = if kind.needs_seek() { Data::Source(collect(s, u64::MAX, path)?) } else { Data::Stream(s) };
    Ok(Input { path: path.to_path_buf(), kind, compression, size: 0, data })
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
            // `zstd --long` at most; a hostile frame may ask for more.
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
    let data = if kind.needs_seek() {
        // Real traces compress about tenfold; beyond this it is a bomb, or so big that it should be decompressed on disk.
        let limit = if size == 0 { 8 << 30 } else { (64 << 20) + size.saturating_mul(256).min(16 << 30) };
        Data::Source(collect(s, limit, path)?)
    } else {
        Data::Stream(s)
    };
    Ok(Input { path: path.to_path_buf(), kind, compression, size, data })
}

fn collect(mut s: Box<dyn Read + Send>, limit: u64, path: &Path) -> Result<Source, Error> {
    let mut all = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match s.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A cut compressed file: what came out so far is read, and its end is found missing by the format's reader.
            Err(_) => break,
        }
        if all.len() as u64 > limit {
            return Err(Error::Unsupported {
                path: path.to_path_buf(),
                what: "it decompresses to far more than its own size".to_owned(),
                next: "decompress it to a file first and give that".to_owned(),
            });
        }
    }
    Ok(Source::Bytes(all.into()))
}

/// The first bytes.
fn head(s: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; HEAD];
    let mut n = 0;
    while n < buf.len() {
        match s.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(k) => {
                n += k;
                // A pipe may be slow: do not wait for more than is needed.
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
