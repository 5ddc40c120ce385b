//! The program `mmuscope`: see the library beside this file, which is one so that its documentation and tests are checked like those of the others.

fn main() -> std::process::ExitCode {
    mmuscope_cli::main()
}
