//! Lists the layout files, so that a new kernel needs only a new file under `layouts/`.

use std::{env, fmt::Write as _, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=layouts");
    let mut files = Vec::new();
    for family in fs::read_dir("layouts")? {
        let family = family?.path();
        if family.is_dir() {
            println!("cargo:rerun-if-changed={}", family.display());
            for file in fs::read_dir(&family)? {
                files.push(file?.path());
            }
        }
    }
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let mut list = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix("layouts").unwrap_or(file).with_extension("");
        let _ = writeln!(
            list,
            "    ({:?}, include_str!({:?})),",
            name.to_string_lossy(),
            Path::new(&root).join(file).to_string_lossy()
        );
    }
    list.push_str("]\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("layout_files.rs"), list)
}
