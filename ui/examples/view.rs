//! The viewer without the command line: `view [--screenshot OUT.png] [--light] [--follow] [--at NS] [--gfn GFN] [FILE…]`.

use mmuscope_ui::{Input, ThemeChoice, ViewOptions, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut options = ViewOptions::default();
    let mut files = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--screenshot" => options.screenshot = args.next().map(Into::into),
            "--light" => options.theme = Some(ThemeChoice::Light),
            "--dark" => options.theme = Some(ThemeChoice::Dark),
            "--follow" => options.follow = true,
            "--at" => options.at = args.next().and_then(|t| t.parse().ok()),
            "--gfn" => {
                let gfn = args.next().unwrap_or_default();
                options.gfn = u64::from_str_radix(gfn.trim_start_matches("0x"), 16).ok();
            }
            "-" => options.input = Input::Stdin,
            _ => files.push(a.into()),
        }
    }
    if !files.is_empty() {
        options.input = Input::Files(files);
    }
    Ok(run(options)?)
}
