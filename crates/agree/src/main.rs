//! `cargo xtask agree FILE…` exits with 0 if everything agrees, with 1 if something differs, and with 2 if a trace or program failed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let mmuscope = std::env::var_os("MMUSCOPE").map(PathBuf::from).or_else(|| {
        let own = std::env::current_exe().ok()?;
        Some(own.with_file_name("mmuscope"))
    });
    let Some(mmuscope) = mmuscope.filter(|m| m.is_file()) else {
        eprintln!("agree: there is no mmuscope beside this program; build it, or name it in MMUSCOPE");
        return ExitCode::from(2);
    };
    if files.is_empty() {
        eprintln!("usage: cargo xtask agree FILE…");
        return ExitCode::from(2);
    }
    let mut status = 0;
    for file in &files {
        status = status.max(one(&mmuscope, file));
    }
    ExitCode::from(status)
}

fn one(mmuscope: &Path, file: &Path) -> u8 {
    match mmuscope_agree::ask(mmuscope, file) {
        Ok(said) => {
            let differences = said.differences();
            println!(
                "{}: {} numbers compared, {} differ",
                file.display(),
                said.compared(),
                differences.len()
            );
            for d in &differences {
                println!("  {d}");
            }
            u8::from(!differences.is_empty())
        }
        Err(e) => {
            eprintln!("{}: {e:#}", file.display());
            2
        }
    }
}
