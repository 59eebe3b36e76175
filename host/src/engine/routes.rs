//! Which function a path belongs to.

use std::collections::BTreeMap;

use crate::manifest::Manifest;

/// Whom a path belongs to, and for which methods.
#[derive(Debug, Clone)]
struct Bound {
    function: String,
    methods: Vec<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// To this function, with these path parameters.
    To(String, Vec<(String, String)>),
    /// The path is known, the method is not; the methods that are.
    OtherMethods(Vec<String>),
    /// Nowhere.
    Nowhere,
}

/// The routes of all manifests, in one table.
#[derive(Default)]
pub(super) struct Routes(matchit::Router<Vec<Bound>>);

impl Routes {
    /// Two functions may share a path if their methods differ.
    pub(super) fn of<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Result<Self, String> {
        let mut paths: BTreeMap<&str, Vec<Bound>> = BTreeMap::new();
        for manifest in manifests {
            for route in &manifest.trigger.http {
                let bound = paths.entry(&route.path).or_default();
                let taken = bound.iter().find(|other| other.methods.iter().any(|m| route.methods.contains(m)));
                if let Some(other) = taken {
                    return Err(format!(
                        "[trigger] http: {} already belongs to function {}",
                        route.path, other.function
                    ));
                }
                bound.push(Bound { function: manifest.name.clone(), methods: route.methods.clone() });
            }
        }
        let mut router = matchit::Router::new();
        for (path, bound) in paths {
            let owner = bound.first().map(|bound| bound.function.clone()).unwrap_or_default();
            router.insert(path, bound).map_err(|e| format!("[trigger] http path {path} of function {owner}: {e}"))?;
        }
        Ok(Self(router))
    }

    /// Where a path leads.
    pub(super) fn find(&self, method: &str, path: &str) -> Routed {
        let Ok(found) = self.0.at(path) else { return Routed::Nowhere };
        let Some(bound) = found.value.iter().find(|bound| bound.methods.iter().any(|m| m == method)) else {
            return Routed::OtherMethods(found.value.iter().flat_map(|bound| bound.methods.clone()).collect());
        };
        let params = found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Routed::To(bound.function.clone(), params)
    }
}
