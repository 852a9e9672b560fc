//! The folder of a store: one process at a time, and never half created.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::Arc,
    thread,
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

/// How far a thread that gives way steps back (`nice`, of 19).
#[cfg(target_os = "linux")]
const STEPS_BACK: i32 = 10;

/// This thread, which writes or frees what commits have left, steps back behind those that answer.
pub(super) fn give_way() {
    // Elsewhere it would be of the whole process. Without it all goes on as before.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(STEPS_BACK);
}

fn open_database(path: &Path, cache_bytes: u64) -> Result<(Database, Keyspace), fjall::Error> {
    let open = || {
        // The engine's threads are as the one that starts them.
        give_way();
        Database::builder(path)
            .cache_size(cache_bytes)
            .manual_journal_persist(true)
            .open()
    };
    let opened = thread::scope(|scope| scope.spawn(open).join());
    let database = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_the_engine_give_way_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions {
            path: folder.path().to_owned(),
            ..EmbeddedOptions::default()
        };
        // After the name, in parentheses: its state, and 16 fields on how nice it is (proc_pid_stat(5)).
        let nice = |stat: &str| -> i32 {
            stat.rsplit_once(") ")
                .unwrap()
                .1
                .split(' ')
                .nth(16)
                .unwrap()
                .parse()
                .unwrap()
        };
        let of_this_thread = || nice(&fs::read_to_string("/proc/thread-self/stat").unwrap());
        let own = of_this_thread();
        let _opened = open(&options).unwrap();
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok());
        let engine: Vec<i32> = stats
            .filter(|stat| stat.contains("(fjall"))
            .map(|stat| nice(&stat))
            .collect();
        // Not below the lowest, where the tests themselves are.
        let lower = (own + STEPS_BACK).min(19);
        assert!(
            !engine.is_empty() && engine.iter().all(|nice| *nice == lower),
            "{engine:?}, and this thread {own}"
        );
        assert_eq!(of_this_thread(), own);
    }
}
