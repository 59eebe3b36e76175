//! Interfaces that a component may import and may not use: files and sockets. Runtimes of other languages import them,
//! used or not, so they are there, and every call of them says no.
//!
//! Made from the types of the component itself: nothing of these interfaces is implemented, so nothing of them can be
//! wrong. What has a result fails; what gives a list or an option gives none; what gives a handle gives one to nothing;
//! all else ends the run.

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, Resource, ResourceAny, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut, bail};
use wasmtime_wasi::p2::IoError;

use crate::guest::State;

/// Whether an import is one of them. That it is one that is known was found out before.
fn covers(import: &str) -> bool {
    ["wasi:filesystem/", "wasi:sockets/"].iter().any(|package| import.starts_with(package))
}

/// How an error is called where permission is missing, in the order of preference.
const ERRORS: [&str; 3] = ["access-denied", "access", "not-supported"];

/// What every handle of these interfaces stands for.
struct Nothing;

/// The linker for a component: `linker` itself, or with what is refused to it beside it.
pub(crate) fn link(linker: &Linker<State>, engine: &Engine, component: &Component) -> wasmtime::Result<Linker<State>> {
    let mut linker = linker.clone();
    let mut known: Vec<ResourceType> = Vec::new();
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = &import.ty else { continue };
        let mut refused = if covers(name) { Some(linker.instance(name)?) } else { None };
        for (item, export) in instance.exports(engine) {
            match (export.ty, &mut refused) {
                // One that an interface before has defined is the same one, and no other may be given.
                (ComponentItem::Resource(ty), refused) if !known.contains(&ty) => {
                    known.push(ty);
                    if let Some(refused) = refused {
                        refused.resource(item, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                    }
                }
                (ComponentItem::ComponentFunc(_), Some(refused)) => {
                    let what = format!("{name} {item}");
                    refused
                        .func_new(item, move |store, ty, params, results| refuse(store, &ty, params, results, &what))?;
                }
                _ => {}
            }
        }
    }
    Ok(linker)
}

fn refuse(
    mut store: StoreContextMut<'_, State>,
    ty: &ComponentFunc,
    params: &[Val],
    results: &mut [Val],
    what: &str,
) -> wasmtime::Result<()> {
    for param in params {
        // What was lent is given back by taking it for what it is: ours, or an error of `wasi:io`.
        match param {
            Val::Resource(handle) if handle.ty() == ResourceType::host::<Nothing>() => {
                handle.try_into_resource::<Nothing>(&mut store)?;
            }
            Val::Resource(handle) => {
                handle.try_into_resource::<IoError>(&mut store)?;
            }
            _ => {}
        }
    }
    for (ty, result) in ty.results().zip(results) {
        *result = match &ty {
            Type::Result(ty) => match ty.err() {
                Some(Type::Enum(names)) => {
                    let known = ERRORS.iter().find(|error| names.names().any(|name| name == **error));
                    let Some(error) = known else { bail!("{what} is refused") };
                    Val::Result(Err(Some(Box::new(Val::Enum((*error).into())))))
                }
                _ => bail!("{what} is refused"),
            },
            Type::List(_) => Val::List(Vec::new()),
            Type::Option(_) => Val::Option(None),
            Type::Own(_) => Val::Resource(ResourceAny::try_from_resource(Resource::<Nothing>::new_own(0), &mut store)?),
            _ => bail!("{what} is refused: functions have no files and no sockets"),
        };
    }
    Ok(())
}
