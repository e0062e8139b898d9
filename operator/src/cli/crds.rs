//! `crds` and `reference`: what is generated from the types.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use operator_core::api;

/// Prints the CustomResourceDefinitions, writes them into a folder, or checks that the folder holds them.
///
/// # Errors
/// When a file can't be written, or with `check` when it differs; the error names the file.
pub fn run(folder: Option<&Path>, check: bool, mut out: impl Write) -> anyhow::Result<()> {
    for (name, yaml) in api::crd_yaml_files() {
        let Some(folder) = folder else {
            write!(out, "---\n{yaml}")?;
            continue;
        };
        let path = folder.join(name);
        if check {
            let found = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if found != yaml {
                bail!("{} is not what the types say; run `make crds` and commit the result", path.display());
            }
        } else {
            fs::write(&path, yaml).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Prints the reference of the kinds' fields.
///
/// # Errors
/// When the output can't be written.
pub fn reference(mut out: impl Write) -> anyhow::Result<()> {
    Ok(write!(out, "{}", api::reference_markdown())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_differs_fails_the_check() {
        let folder = std::env::temp_dir().join(format!("crds-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        run(Some(&folder), false, std::io::sink()).unwrap();
        run(Some(&folder), true, std::io::sink()).unwrap();
        let file = folder.join("temporal.io_connections.yaml");
        fs::write(&file, "other").unwrap();
        let error = run(Some(&folder), true, std::io::sink()).unwrap_err().to_string();
        fs::remove_dir_all(&folder).unwrap();
        assert!(error.contains("temporal.io_connections.yaml"), "{error}");
    }
}
