//! Secrets of an edge that outlive its process, each in a file that nobody else reads.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The secret that resets are made with: a device that talked to an edge which was killed hears of it from the one in its place.
#[derive(Clone)]
pub struct ResetKey(pub(super) [u8; 32]);

impl ResetKey {
    /// The one in the file, which is made when it is not there.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is too short.
    pub fn kept(path: &Path) -> io::Result<Self> {
        let mut key = [0; 32];
        match fs::File::open(path) {
            Ok(mut file) => file.read_exact(&mut key)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                key = rand::random();
                write(path, &key)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetKey(…)")
    }
}

/// Writes a file whole or not at all: a start that is killed, or a machine that loses its power, leaves no half of one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_resets_outlives_the_process_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = ResetKey::kept(&path).unwrap();
        assert_eq!(ResetKey::kept(&path).unwrap().0, key.0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(ResetKey::kept(&path).is_err());
        assert!(!format!("{key:?}").contains(&key.0[0].to_string()));
    }
}
