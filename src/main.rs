//! Parse, run, exit code.

fn main() -> std::process::ExitCode {
    firelane::cli::main(std::env::args_os())
}
