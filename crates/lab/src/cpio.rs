//! Writes the archive format of initial RAM disks ("newc"). The main type is [`Archive`].

use std::io::{self, Write};

/// Writes an archive entry by entry.
pub struct Archive<W> {
    to: W,
    inode: u32,
    folders: std::collections::BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(to: W) -> Self {
        Self { to, inode: 0, folders: std::collections::BTreeSet::new() }
    }

    /// Adds a regular file at an absolute path; its folders are added as needed.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o100_000 | mode, content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o120_777, target.as_bytes())
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.parents(&format!("{path}/x"))
    }

    /// Ends the archive and returns the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("/TRAILER!!!", 0, &[])?;
        Ok(self.to)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        for (at, _) in path.match_indices('/').skip(1) {
            if self.folders.insert(path[..at].to_owned()) {
                self.entry(&path[..at], 0o40_755, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        self.inode += 1;
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{path} is too large for an initrd")))?;
        // The fields are inode, mode, uid, gid, links, mtime, size, four device numbers, name length with its NUL, checksum.
        let head = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        write!(self.to, "070701")?;
        for h in head {
            write!(self.to, "{h:08x}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(110 + name.len() + 1)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_system_cpio_reads_it() -> anyhow::Result<()> {
        if !mmuscope_needs::met!("cpio") {
            return Ok(());
        }
        let mut a = Archive::new(Vec::new());
        a.file("/init", 0o755, b"one")?;
        a.file("/lab/deep/file", 0o644, b"twelve bytes")?;
        a.link("/bin/sh", "busybox")?;
        a.folder("/proc")?;
        let bytes = a.finish()?;
        let dir = tempfile::tempdir()?;
        let mut cpio = Command::new("cpio")
            .args(["-i", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()?;
        cpio.stdin.take().expect("piped").write_all(&bytes)?;
        assert!(cpio.wait()?.success());
        assert_eq!(std::fs::read(dir.path().join("lab/deep/file"))?, b"twelve bytes");
        assert_eq!(std::fs::read_link(dir.path().join("bin/sh"))?.to_str(), Some("busybox"));
        assert!(dir.path().join("proc").is_dir());
        Ok(())
    }
}
