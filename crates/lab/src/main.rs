//! The program that `cargo xtask lab …` runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    match mmuscope_lab::main(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output may have closed it.
        Err(e)
            if e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("lab: {e:#}");
            ExitCode::from(2)
        }
    }
}
