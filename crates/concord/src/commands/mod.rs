//! One file per command group.

mod again;
pub(crate) mod agency;
pub(crate) mod agreement;
pub(crate) mod anchor;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod backup;
mod check;
pub(crate) mod contact;
pub(crate) mod epoch;
pub(crate) mod explain;
pub(crate) mod holder;
pub(crate) mod hub;
pub(crate) mod journal;
pub(crate) mod measure;
pub(crate) mod node;
mod p12;
pub(crate) mod pages;
pub(crate) mod participant;
pub(crate) mod pin;
pub(crate) mod receive;
pub(crate) mod retention;
pub(crate) mod role;
pub(crate) mod rotate;
pub(crate) mod set_aside;
pub(crate) mod statement;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod track;
pub(crate) mod verify;
pub(crate) mod why;
pub(crate) mod withdraw;

mod certificates;
mod compare;
mod install_cert;
mod journal_words;
mod keep;
mod secretariat;

use concord_model::Role;

use crate::bench;
use crate::cli::Command;
use crate::demo;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Hub(command) => hub::run(command, output).await,
        Command::Node(command) => node::run(command, output).await,
        Command::Participant(command) => participant::run(command, output).await,
        Command::Measure(command) => measure::run(command, output).await,
        Command::Approval(command) => approval::run(command, output).await,
        Command::Pin(command) => pin::run(command, output).await,
        Command::Agency(command) => agency::run(command, output).await,
        Command::Officer(command) => holder::run(command.into_inner(), Role::Officer, output),
        Command::Operator(command) => holder::run(command.into_inner(), Role::Operator, output),
        Command::Anchor(command) => anchor::run(command, output).await,
        Command::Agreement(command) => agreement::run(command, output).await,
        Command::Contact(command) => contact::run(command, output).await,
        Command::Role(command) => role::run(command, output).await,
        Command::Submit(args) => submit::run(args, output).await,
        Command::Withdraw(args) => withdraw::run(args, output).await,
        Command::Receive(args) => receive::run(args, output).await,
        Command::Track(args) => track::run(args, output).await,
        Command::Explain(args) => explain::run(args, output).await,
        Command::Why(args) => why::run(args, output).await,
        Command::SetAside(command) => set_aside::run(command, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Audit(args) => audit::run(args, output).await,
        Command::Verify(args) => verify::run(&args, output),
        Command::Journal(command) => journal::run(&command, output),
        Command::Demo(args) => demo::run(args, output).await,
        Command::Bench(command) => bench::run(command, output).await,
        Command::Completions(args) => pages::completions(&args, output),
        Command::Man(args) => pages::man(&args, output),
    }
}
