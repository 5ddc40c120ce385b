//! Finds which kernel modules a host needs, and in which order they load.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// A module that is ready to load.
#[derive(Debug)]
pub struct Module {
    /// The name, with `-` for `_`.
    pub name: String,
    /// The uncompressed ELF object.
    pub image: Vec<u8>,
}

/// Reads the modules `wanted` and all that they depend on, dependencies first. A module that is built into the kernel has no file and is skipped.
pub fn with_dependencies(folder: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&folder.join("kernel"), &mut files)?;
    let mut order = Vec::new();
    for name in wanted {
        visit(name, &files, &mut order, 0)?;
    }
    Ok(order)
}

fn visit(name: &str, files: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>, depth: u32) -> Result<()> {
    if depth > 30 {
        bail!("modules depend on each other in a circle at {name}");
    }
    let Some(path) = files.get(name).filter(|_| order.iter().all(|m| m.name != name)) else { return Ok(()) };
    let image = read(path)?;
    for needed in depends(&image) {
        visit(&needed, files, order, depth + 1)?;
    }
    order.push(Module { name: name.to_owned(), image });
    Ok(())
}

fn find(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some((stem, _)) = name.split_once(".ko") {
            files.insert(stem.replace('_', "-"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut image = Vec::new();
    let file = File::open(path)?;
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(file).read_to_end(&mut image),
        Some("zst") => zstd::Decoder::new(file)?.read_to_end(&mut image),
        Some("gz") => flate2::read::GzDecoder::new(file).read_to_end(&mut image),
        _ => { file }.read_to_end(&mut image),
    }
    .with_context(|| format!("reading {}", path.display()))?;
    Ok(image)
}

/// The modules in the line `depends=` of a module's information section.
fn depends(image: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = image.windows(key.len()).position(|w| w == key) else { return Vec::new() };
    let rest = &image[at + key.len()..];
    let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end])
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| s.replace('_', "-"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF junk\0license=GPL\0depends={depends}\0retpoline=Y\0").into_bytes()
    }

    #[test]
    fn dependencies_come_first_and_once() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let kernel = dir.path().join("kernel/arch/x86/kvm");
        fs::create_dir_all(&kernel)?;
        fs::write(kernel.join("kvm-amd.ko"), module("kvm,ccp,irqbypass"))?;
        fs::write(kernel.join("irqbypass.ko"), module(""))?;
        fs::write(kernel.join("ccp.ko.zst"), zstd::encode_all(&module("rng_core")[..], 1)?)?;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gz, &module("irqbypass"))?;
        fs::write(kernel.join("kvm.ko.gz"), gz.finish()?)?;
        let order = with_dependencies(dir.path(), &["kvm-amd", "virtio_blk", "kvm"])?;
        // rng-core and virtio_blk are built in and have no file here.
        assert_eq!(
            order.iter().map(|m| &m.name[..]).collect::<Vec<_>>(),
            ["irqbypass", "kvm", "ccp", "kvm-amd"]
        );
        assert_eq!(order[2].image, module("rng_core"));
        Ok(())
    }

    #[test]
    fn a_circle_is_an_error() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("kernel"))?;
        fs::write(dir.path().join("kernel/a.ko"), module("b"))?;
        fs::write(dir.path().join("kernel/b.ko"), module("a"))?;
        assert!(with_dependencies(dir.path(), &["a"]).is_err());
        Ok(())
    }
}
