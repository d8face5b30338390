//! The command line: `main` parses, runs, and returns an exit code. Results go to standard output, talk to standard
//! error.

mod bench;
mod beside_f32;
mod common;
mod compare;
mod data;
mod data_split;
mod demo;
mod distill;
mod domain_curve;
mod embed;
mod eval;
mod glue_file;
mod import;
mod perturb;
mod predict;
mod progress;
mod reading;
mod refine;
mod run_folder;
mod sampling;
mod score_file;
mod seeds;
mod split_files;
mod stages;
mod table;
mod train;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use common::{Common, Failure, tell, usage_message};

/// Fine-tune one text encoder on many tasks at once, harden it, distil it; evaluate it, predict with it.
#[derive(Parser)]
#[command(name = "manyhead", version, propagate_version = true, args_override_self = true, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 interrupted.\n\
    Start with `manyhead demo`: it trains on real data in about ten seconds.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    Train(Box<train::Arguments>),
    Distill(Box<distill::Arguments>),
    Refine(Box<refine::Arguments>),
    DomainCurve(Box<domain_curve::Arguments>),
    Eval(eval::Arguments),
    Predict(predict::Arguments),
    Embed(embed::Arguments),
    Compare(compare::Arguments),
    Import(import::Arguments),
    Data(data::Arguments),
    Bench(bench::Arguments),
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let arguments = match train::with_run_file(std::env::args_os().collect(), &Cli::command()) {
        Ok(arguments) => arguments,
        Err(error) => return Failure::from(error).report(),
    };
    let cli = match Cli::command().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let common = &cli.common;
    let result = match cli.command {
        Command::Train(arguments) => train::run(*arguments, common),
        Command::Distill(arguments) => distill::run(*arguments, common),
        Command::Refine(arguments) => refine::run(*arguments, common),
        Command::DomainCurve(arguments) => domain_curve::run(*arguments, common),
        Command::Eval(arguments) => eval::run(arguments, common),
        Command::Predict(arguments) => predict::run(arguments, common),
        Command::Embed(arguments) => embed::run(arguments, common),
        Command::Compare(arguments) => compare::run(arguments, common),
        Command::Data(arguments) => data::run(arguments, common),
        Command::Import(arguments) => import::run(arguments, common),
        Command::Bench(arguments) => bench::run(arguments, common),
        Command::Demo(arguments) => demo::run(arguments, common),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Help and version as clap prints them; an error as one line, like all others.
fn usage(error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        // Nobody may be reading any more.
        let _ = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    tell(&format!("manyhead: error: {}; --help lists what can be given", usage_message(error)));
    ExitCode::from(2)
}
