//! The lab's command line by itself: `cargo run -p mmuscope-lab --example lab -- list`.

fn main() -> anyhow::Result<()> {
    mmuscope_lab::main(std::env::args_os().skip(1))
}
