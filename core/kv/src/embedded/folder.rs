//! The folder of a store: one process at a time, and never half created.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::EmbeddedOptions;
use crate::KvError;

/// An open store. The lock goes last.
pub(super) struct Opened {
    pub(super) keyspace: Arc<Keyspace>,
    pub(super) database: Database,
    _lock: File,
}

/// Opens the store in the folder; creates it when it is missing.
///
/// It is created beside its place and then moved there: a crash in between would leave a folder that fjall can neither open
/// nor create.
pub(super) fn open(options: &EmbeddedOptions) -> Result<Opened, KvError> {
    let path = options.path.as_path();
    let lock = lock(path)?;
    let store = path.join("store");
    if !store.try_exists().map_err(|error| failed(path, error))? {
        create(options, &store).map_err(|error| failed(path, error))?;
    }
    let (database, keyspace) = open_database(&store, options.cache_bytes).map_err(|error| {
        if matches!(error, fjall::Error::Locked) {
            return in_use(path);
        }
        failed(path, error)
    })?;
    Ok(Opened {
        keyspace: Arc::new(keyspace),
        database,
        _lock: lock,
    })
}

fn lock(path: &Path) -> Result<File, KvError> {
    let is_new = !path.try_exists().map_err(|error| failed(path, error))?;
    fs::create_dir_all(path).map_err(|error| failed(path, error))?;
    if let (true, Some(parent)) = (is_new, path.parent().filter(|parent| !parent.as_os_str().is_empty())) {
        sync_folder(parent).map_err(|error| failed(path, error))?;
    }
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"));
    let lock = lock.map_err(|error| failed(path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => Err(failed(path, error)),
    }
}

fn create(options: &EmbeddedOptions, store: &Path) -> Result<(), fjall::Error> {
    let unfinished = options.path.join("creating");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    drop(open_database(&unfinished, options.cache_bytes)?);
    fs::rename(&unfinished, store)?;
    Ok(sync_folder(&options.path)?)
}

fn open_database(path: &Path, cache_bytes: u64) -> Result<(Database, Keyspace), fjall::Error> {
    let database = Database::builder(path)
        .cache_size(cache_bytes)
        .manual_journal_persist(true)
        .open()?;
    let keyspace = database.keyspace("antiphon", KeyspaceCreateOptions::default)?;
    Ok((database, keyspace))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn failed(path: &Path, error: impl Into<fjall::Error>) -> KvError {
    KvError::Io(format!("the store in {}: {}", path.display(), error.into()))
}

fn in_use(path: &Path) -> KvError {
    KvError::Unavailable(format!(
        "the store in {} is open already, here or in another process",
        path.display()
    ))
}
