//! The lab's command line; `cargo xtask lab …` runs it.

fn main() -> anyhow::Result<()> {
    mmuscope_lab::main(std::env::args_os().skip(1))
}
