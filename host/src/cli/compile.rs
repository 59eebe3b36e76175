//! `semel compile`: a host runs itself so, to compile a component where it can do no harm. Not for people.

use crate::engine::compiler::{Bounds, compile_here};

/// Compile the component on standard input
#[derive(Debug, clap::Args)]
pub(crate) struct Compile {
    #[command(flatten)]
    bounds: Bounds,
}

impl Compile {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        compile_here(self.bounds)
    }
}
