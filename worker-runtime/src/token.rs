//! The token by which services in the pod know that a request comes from the runtime.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

/// Makes a token of 256 random bits, in hexadecimal digits, and writes it to a file that every user of the pod may read.
/// The file is there as a whole or not at all.
///
/// # Errors
/// The file can't be written; names it.
pub fn create(path: &Path) -> anyhow::Result<Arc<str>> {
    let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let unfinished = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all(token.as_bytes())?;
        fs::set_permissions(&unfinished, Permissions::from_mode(0o444))?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| {
        format!("token file {} can't be written; mount a volume there that this process may write to", path.display())
    })?;
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_token_of_its_own_that_others_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let first = create(&path).unwrap();
        assert_eq!((first.len(), fs::read_to_string(&path).unwrap().as_str()), (64, &*first));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        let second = create(&path).unwrap();
        assert_ne!(first, second);
        assert_eq!(fs::read_to_string(&path).unwrap(), &*second);
        let message = create(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/token") && message.contains("mount"), "{message}");
    }
}
