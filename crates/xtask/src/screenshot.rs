//! `cargo xtask screenshot`: the picture of the viewer in the README.

use crate::run::{cargo, root, show};
use anyhow::{Result, bail};
use mmuscope_needs::need;

/// Opens the viewer on the Linux boot under a virtual display and stores a picture of its window.
pub(crate) fn screenshot() -> Result<()> {
    let display = need("xvfb");
    if let Err(why) = display.probe() {
        bail!("needs a virtual display: {why}; {}", display.install());
    }
    show(&mut cargo(&["build", "--release", "--package", "mmuscope-cli"]))?;
    let picture = root().join("docs/images/viewer.png");
    if let Some(dir) = picture.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut c = crate::run::at_root("xvfb-run", &["-a", "-s", "-screen 0 1600x1000x24"]);
    c.arg(root().join("target/release/mmuscope")).arg("view").arg("samples/linux-boot/trace.dat");
    c.arg("--screenshot").arg(&picture).env("LIBGL_ALWAYS_SOFTWARE", "1");
    show(&mut c)?;
    eprintln!("wrote {}", picture.display());
    Ok(())
}
