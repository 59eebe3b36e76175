//! `[sinks.NAME]` and `[sources.NAME]`: what leaves this installation, and what comes in.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::deferred::FUNCTION;
use crate::manifest::check_name;
use crate::{sink, source};

/// The sinks and sources of a host, by their names.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// What leaves.
    pub sinks: BTreeMap<String, sink::Settings>,
    /// What comes in.
    pub sources: BTreeMap<String, source::Settings>,
}

impl Ways {
    /// Checks what can be known before anything is connected.
    pub(super) fn check(self) -> anyhow::Result<Self> {
        for (name, settings) in &self.sinks {
            let cannot = || format!("[sinks.{name}]");
            check_name("the sink's name", name).map_err(anyhow::Error::msg).with_context(cannot)?;
            topics(settings.topics()).with_context(cannot)?;
            settings.sink().map(drop).with_context(cannot)?;
        }
        for (name, settings) in &self.sources {
            let cannot = || format!("[sources.{name}]");
            check_name("the source's name", name).map_err(anyhow::Error::msg).with_context(cannot)?;
            topics(&[settings.topic().to_owned()]).with_context(cannot)?;
            settings.source().map(drop).with_context(cannot)?;
        }
        Ok(self)
    }
}

fn topics(topics: &[String]) -> anyhow::Result<()> {
    if topics.is_empty() {
        bail!("topics names no topic, so there would be nothing to send");
    }
    for topic in topics {
        if topic.is_empty() || topic == FUNCTION || topic.starts_with("fn/") || topic.contains('\0') {
            bail!("\"{}\" is no topic that a function can publish to", topic.escape_debug());
        }
    }
    Ok(())
}
