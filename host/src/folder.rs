//! A function's folder, as `semel build` lays it out: manifest, component, migrations.
//!
//! Whether any of it is any good is the catalog's to judge; here it is only read.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use reqwest::multipart::{Form, Part};

use crate::engine::catalog::Upload;
use crate::manifest::Manifest;

/// Reads what is to be deployed: a folder with `function.toml`, or a component alone (`name` is then its name, or
/// else that of the file).
///
/// # Errors
/// Says which file is missing or unreadable.
pub fn read(path: &Path, name: Option<&str>) -> anyhow::Result<Upload> {
    let bytes = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    if !path.is_dir() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
        let component = bytes(path)?;
        let manifest = format!("name = {}\n", toml::Value::String(name.map_or(stem, str::to_owned)));
        return Ok(Upload { manifest, component, ..Upload::default() });
    }
    let file = path.join("function.toml");
    let manifest = String::from_utf8(bytes(&file)?).with_context(|| format!("{} is not text", file.display()))?;
    let read = Manifest::read(&manifest).map_err(anyhow::Error::msg).context(file.display().to_string())?;
    let component = bytes(&path.join(read.component.unwrap_or_else(|| format!("{}.wasm", read.name))))?;
    let migrations = migrations(&path.join("migrations"))?;
    Ok(Upload { manifest, component, migrations, name: name.map(str::to_owned), ..Upload::default() })
}

/// In the order of their names, which is the order they are applied in.
fn migrations(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text))
    };
    paths.into_iter().map(read).collect()
}

/// The parts of `PUT /v1/functions/{name}`.
#[must_use]
pub fn form(upload: Upload) -> Form {
    let form = Form::new().text("manifest", upload.manifest).part("component", Part::bytes(upload.component));
    upload
        .migrations
        .into_iter()
        .fold(form, |form, (name, text)| form.part("migration", Part::text(text).file_name(name)))
}
