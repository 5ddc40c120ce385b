//! One real window, under a virtual display.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn have(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(program).is_file()))
}

/// The example that cargo builds beside the tests.
fn example() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let path = exe.parent()?.parent()?.join("examples/view");
    path.is_file().then_some(path)
}

#[test]
fn a_real_window_opens_draws_and_closes() {
    let (Some(view), true) = (example(), have("xvfb-run")) else {
        eprintln!(
            "SKIPPED: no real window was opened: it needs xvfb-run (apt-get install xvfb xauth) and the example `view`"
        );
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, picture) = (dir.path().join("trace.txt"), dir.path().join("picture.png"));
    std::fs::write(&trace, super::TEXT).expect("written");
    let mut child = Command::new("xvfb-run")
        .args(["-a", "-s", "-screen 0 1600x1000x24"])
        .arg(view)
        .arg("--screenshot")
        .args([&picture, &trace])
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .env_remove("WAYLAND_DISPLAY")
        .stdout(Stdio::null())
        .spawn()
        .expect("xvfb-run starts");
    let until = Instant::now() + Duration::from_secs(150);
    let status = loop {
        if let Some(status) = child.try_wait().expect("waited") {
            break status;
        }
        if Instant::now() > until {
            child.kill().ok();
            panic!("the window did not close by itself");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let png = std::fs::read(&picture);
    assert!(status.success(), "{status}");
    let png = png.expect("a picture was written");
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!((info.width, info.height), (1600, 1000));
    let colours: std::collections::HashSet<&[u8]> = pixels.chunks_exact(3).collect();
    assert!(colours.len() > 50, "only {} colours: the window is empty", colours.len());
}
