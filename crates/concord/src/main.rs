//! The one binary: hub, node, client commands and demo.
//!
//! It wires and it talks: tables and JSON to stdout, everything else to stderr. What a rule is, what stands in a
//! journal and who may do what are the other crates' affair; nothing here decides about an exchange.

mod bench;
mod cli;
mod client;
mod commands;
mod demo;
mod exit;
mod hint;
mod media;
mod output;
#[cfg(test)]
mod pasted;
mod signals;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::refuse(&error),
    };
    let output = output::Output::new(cli.json);
    match run(cli, output) {
        Ok(()) => exit::Exit::Done.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

fn run(cli: cli::Cli, output: output::Output) -> Result<(), exit::Failure> {
    if cli.with_parent {
        signals::end_with_parent()?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| exit::Failure::failed("RUNTIME", format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(commands::run(cli.command, output));
    // A reader that blocks on a terminal must not keep a finished command alive.
    runtime.shutdown_background();
    result
}
