//! The command line of deltaic: arguments, progress, tables, exit codes. No merging logic of its own.

mod arguments;
mod messages;
mod output_file;
mod progress;
mod reading;
mod signals;
mod tables;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Verb};

fn main() -> ExitCode {
    // Programs that models wrote are run by this binary, started again: then this does not return.
    #[cfg(feature = "eval")]
    deltaic_sandbox::run_if_inside();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are results; everything else is wrong usage.
            let wrong = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if wrong { 2 } else { 0 });
        }
    };
    signals::block_file_size_signal();
    let messages = messages::Messages::new(arguments.quiet, arguments.color);
    let done = match arguments.verb {
        Verb::Merge(merge) => verbs::merge::run(&merge, &messages),
        Verb::Plan(plan) => verbs::plan::run(&plan, &messages),
        Verb::ApplyDelta(apply) => verbs::apply_delta::run(&apply, &messages),
        Verb::Dare(dare) => verbs::dare::run(&dare, &messages),
        Verb::Delta(delta) => verbs::delta::run(&delta, &messages),
        #[cfg(feature = "eval")]
        Verb::Eval(eval) => verbs::eval::run(&eval, &messages),
        #[cfg(feature = "eval")]
        Verb::Fisher(fisher) => verbs::statistics::run_fisher(&fisher, &messages),
        #[cfg(feature = "eval")]
        Verb::Gram(gram) => verbs::statistics::run_gram(&gram, &messages),
        #[cfg(feature = "eval")]
        Verb::Study(study) => verbs::study::run(&study, &messages),
        #[cfg(feature = "eval")]
        Verb::Similarity(similarity) => verbs::similarity::run(&similarity),
        Verb::Inspect(inspect) => verbs::inspect::run(&inspect),
        Verb::Verify(verify) => verbs::verify::run(&verify, &messages),
        Verb::Methods(methods) => verbs::methods::run(&methods),
        Verb::Completions { shell } => verbs::completions::run(shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            messages.error(&error);
            ExitCode::FAILURE
        }
    }
}
