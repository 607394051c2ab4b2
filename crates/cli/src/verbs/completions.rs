//! `deltaic completions`.

use clap::CommandFactory;
use deltaic_checkpoint::Result;

use crate::arguments::Arguments;
use crate::messages::print;

pub fn run(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "deltaic", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(())
}
