//! The label of a function: computed from its imports, never declared.
//!
//! One table holds every import that a component may have, by exact package, interface and semver line. What is not
//! in it is refused at deploy, by name.

use std::fmt;

use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::manifest::{Clock, Grants};
use crate::message::Contract;

/// What an import can do, weakest guarantee last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// No effect, and no information from outside.
    Inert,
    /// Information that is equal on every attempt at one message.
    Pinned,
    /// Information that may differ between attempts.
    Varying,
    /// Committed with the acknowledgement, or not at all.
    Transactional,
    /// Cannot be taken back.
    External,
}

impl Class {
    /// The class of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Inert, Self::Pinned, Self::Varying, Self::Transactional, Self::External];
        all.into_iter().find(|class| class.to_string() == name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inert => "inert",
            Self::Pinned => "pinned",
            Self::Varying => "varying",
            Self::Transactional => "transactional",
            Self::External => "external",
        })
    }
}

/// One import of a component.
#[derive(Debug, Clone, Serialize)]
pub struct Import {
    /// With package and version.
    pub name: String,
    /// Its class.
    pub class: Class,
}

/// What was found out about a component without running it.
#[derive(Debug, Clone, Serialize)]
pub struct Label {
    /// The strongest class among the imports.
    pub class: Class,
    /// In the order of the component.
    pub imports: Vec<Import>,
}

impl Label {
    /// The label under the grants of a deployment: what is external and not granted is refused when it is called, and so
    /// it is inert; clocks that are real may differ between attempts.
    #[must_use]
    pub fn under(&self, grants: &Grants) -> Self {
        let mut imports = self.imports.clone();
        for import in &mut imports {
            import.class = match import.class {
                Class::External if grants.http.is_empty() => Class::Inert,
                Class::Pinned if grants.clock == Clock::Real && import.name.starts_with("wasi:clocks/") => {
                    Class::Varying
                }
                class => class,
            };
        }
        Self { class: strongest(&imports), imports }
    }
}

fn strongest(imports: &[Import]) -> Class {
    imports.iter().map(|import| import.class).max().unwrap_or(Class::Inert)
}

/// The table. None is "unknown", and unknown is refused.
fn class_of(import: &str) -> Option<Class> {
    let (interface, version) = import.split_once('@')?;
    let (package, interface) = interface.split_once('/')?;
    let line = semver_line(version)?;
    Some(match (package, line, interface) {
        ("semel:function", (0, 1), "types" | "log") => Class::Inert,
        ("semel:function", (0, 1), "context") => Class::Pinned,
        ("semel:function", (0, 1), "delivery") => Class::Varying,
        ("semel:function", (0, 1), "transaction" | "outbox" | "state" | "deferred-http") => Class::Transactional,
        ("wasi:io", (0, 2), "error" | "poll" | "streams") => Class::Inert,
        ("wasi:cli", (0, 2), "environment" | "exit" | "stdin" | "stdout" | "stderr") => Class::Inert,
        (
            "wasi:cli",
            (0, 2),
            "terminal-input" | "terminal-output" | "terminal-stdin" | "terminal-stdout" | "terminal-stderr",
        ) => Class::Inert,
        ("wasi:clocks", (0, 2), "wall-clock" | "monotonic-clock") => Class::Pinned,
        ("wasi:random", (0, 2), "random" | "insecure" | "insecure-seed") => Class::Pinned,
        ("wasi:http", (0, 2), "types") => Class::Inert,
        ("wasi:http", (0, 2), "outgoing-handler") => Class::External,
        // Refused when they are called, so they can do nothing.
        ("wasi:filesystem", (0, 2), "types" | "preopens") => Class::Inert,
        ("wasi:sockets", (0, 2), "network" | "instance-network" | "ip-name-lookup") => Class::Inert,
        ("wasi:sockets", (0, 2), "tcp" | "tcp-create-socket" | "udp" | "udp-create-socket") => Class::Inert,
        _ => return None,
    })
}

/// Major and minor number; none for a pre-release, which is compatible with nothing.
fn semver_line(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    let line = (parts.next()??, parts.next()??);
    parts.next()??;
    parts.next().is_none().then_some(line)
}

/// Computes the label of a component, as if everything was granted.
///
/// # Errors
/// Names the first import that is not in the table, is renamed, or is not an interface.
pub fn label(engine: &Engine, component: &Component) -> Result<Label, String> {
    let mut imports = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        if import.implements.is_some() || import.external_id.is_some() {
            return Err(format!("import {name}: renamed imports are refused"));
        }
        let ComponentItem::ComponentInstance(_) = &import.ty else {
            return Err(format!("import {name}: only interfaces may be imported"));
        };
        let Some(class) = class_of(name) else {
            return Err(format!(
                "import {name} is not known to this version of Semel; a function may import the interfaces of \
                 semel:function@0.1 (see the folder wit/), and of WASI 0.2 io, clocks, random, cli and http; filesystem \
                 and sockets may be imported and are refused when they are called"
            ));
        };
        imports.push(Import { name: name.to_owned(), class });
    }
    Ok(Label { class: strongest(&imports), imports })
}

/// One row of the guarantee table (README.md).
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Guarantee {
    /// Which effects.
    pub effect: &'static str,
    /// How often they happen.
    pub happens: &'static str,
}

/// The guarantee table for a contract; the row for outside effects only where the label has them.
#[must_use]
pub fn guarantees(contract: Contract, class: Class) -> Vec<Guarantee> {
    let (transactional, outside) = match contract {
        Contract::FinishOnce => ("exactly 1 once the message is completed; 0 before", "1 or more"),
        Contract::BeginOnce => ("0 or 1, and known", "0 or 1, and if the run broke off: unknown (in-doubt)"),
    };
    let mut rows =
        vec![Guarantee { effect: "transactional effect (SQL, outbox, state, answer)", happens: transactional }];
    if class == Class::External {
        rows.push(Guarantee { effect: "outside effect (an HTTP call while running)", happens: outside });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_inert() {
        let import = |name: &str, class| Import { name: name.into(), class };
        let imports = vec![import("outside", Class::External), import("sql", Class::Transactional)];
        let label = Label { class: strongest(&imports), imports };
        let granted = Grants { http: vec!["https://api.example.com".into()], ..Grants::default() };
        assert_eq!(label.under(&granted).class, Class::External);
        let refused = label.under(&Grants::default());
        assert_eq!((refused.class, refused.imports[0].class), (Class::Transactional, Class::Inert));
    }

    #[test]
    fn a_real_clock_varies() {
        let imports = ["wasi:clocks/wall-clock@0.2.6", "wasi:random/random@0.2.6"];
        let imports = imports.map(|name| Import { name: name.into(), class: Class::Pinned }).to_vec();
        let label = Label { class: strongest(&imports), imports };
        let real = label.under(&Grants { clock: Clock::Real, ..Grants::default() });
        assert_eq!((label.under(&Grants::default()).class, real.class), (Class::Pinned, Class::Varying));
        assert_eq!(real.imports.iter().map(|import| import.class).collect::<Vec<_>>(), [Class::Varying, Class::Pinned]);
    }

    #[test]
    fn knows_exactly_its_own_interfaces() {
        assert_eq!(class_of("semel:function/transaction@0.1.0"), Some(Class::Transactional));
        assert_eq!(class_of("semel:function/log@0.1.7"), Some(Class::Inert));
        assert_eq!(class_of("wasi:random/random@0.2.0"), Some(Class::Pinned));
        assert_eq!(class_of("wasi:sockets/tcp@0.2.12"), Some(Class::Inert));
        assert_eq!(class_of("wasi:http/outgoing-handler@0.2.4"), Some(Class::External));
        for unknown in [
            "semel:function/transaction",
            "semel:function/transaction@0.2.0",
            "semel:function/transaction@0.1.0-rc.1",
            "semel:function/transaction@0.1",
            "semel:function/transactions@0.1.0",
            "semel:functional/log@0.1.0",
            "wasi:http/outgoing-handler@0.3.0",
            "wasi:http/incoming-handler@0.2.12",
            "wasi:random/random@0.3.0",
            "wasi:random/random@0.2.0-rc-2023-11-10",
            "wasi:clocks/timezone@0.2.12",
            "wasi:filesystem/types2@0.2.0",
            "wasi:cli/run@0.2.0",
            "log",
            "",
        ] {
            assert_eq!(class_of(unknown), None, "{unknown}");
        }
    }
}
