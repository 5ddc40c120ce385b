//! One real window, under a virtual display.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The example that cargo builds beside the tests.
fn example() -> PathBuf {
    let exe = std::env::current_exe().expect("the test is a file");
    let path = exe.ancestors().nth(2).expect("a folder of the build").join("examples/view");
    assert!(
        path.is_file(),
        "run `cargo test -p mmuscope-ui`, which builds the example `view`, or build it first"
    );
    path
}

/// What eframe keeps of a window somebody used: another size and place, larger text, and panels that were moved.
const ODD_STATE: &str = r#"{
    "window": "(normal_geometry:(outer_position_pixels:Some((x:79.0,y:37.0)),scale_factor:1.0,inner_size_points:(x:1108.3,y:591.7)),fullscreen:false,maximized:false)",
    "egui": "(options:(zoom_factor:1.6))",
    "mmuscope-session": "recent /tmp/somebodys trace.dat\ndetails false\ntables false\narea false\nfaults false\nlegend false\nmemory true\n",
}"#;

/// A picture of the small trace, taken by a user with this home.
fn picture(home: &Path) -> (u32, u32, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (trace, picture) = (dir.path().join("trace.txt"), dir.path().join("picture.png"));
    std::fs::write(&trace, super::TEXT).expect("written");
    let mut child = Command::new("xvfb-run")
        .args(["-a", "-s", "-screen 0 1600x1000x24"])
        .arg(example())
        .arg("--screenshot")
        .args([&picture, &trace])
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
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
    (info.width, info.height, pixels)
}

#[test]
fn a_real_window_opens_draws_and_closes_whatever_is_in_the_users_home() {
    mmuscope_needs::needs!("xvfb");
    let empty = tempfile::tempdir().expect("a temporary folder");
    let (width, height, pixels) = picture(empty.path());
    assert_eq!((width, height), (1600, 1000));
    let colours: std::collections::HashSet<&[u8]> = pixels.chunks_exact(3).collect();
    assert!(colours.len() > 50, "only {} colours: the window is empty", colours.len());

    let used = tempfile::tempdir().expect("a temporary folder");
    let state = used.path().join("data/mmuscope/app.ron");
    std::fs::create_dir_all(state.parent().expect("a folder")).expect("made");
    std::fs::write(&state, ODD_STATE).expect("written");
    let (width, height, other) = picture(used.path());
    assert_eq!((width, height), (1600, 1000), "the size is the picture's own");
    let differ = pixels.chunks_exact(3).zip(other.chunks_exact(3)).filter(|(a, b)| a != b).count();
    assert_eq!(differ, 0, "pixels that depend on what was in the home");
    let left = std::fs::read_to_string(&state).expect("still there");
    assert_eq!(left, ODD_STATE, "a picture leaves no trace in the home");
}
