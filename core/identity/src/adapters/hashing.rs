use std::{
    fmt,
    sync::{Arc, Once},
    time::Instant,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::{
        Error as HashError,
        phc::{Output, PasswordHash, Salt},
    },
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::random::random;
use crate::{IdentityError, OptionsError, domain::Password, options::PasswordHashing};

/// Hashes and checks passwords with Argon2id on threads of their own, a bounded number at once and a bounded number waiting.
#[derive(Clone)]
pub(crate) struct Hashing {
    argon2: Argon2<'static>,
    /// One for each hash that runs or waits.
    places: Arc<Semaphore>,
    /// One for each hash that runs.
    runs: Arc<Semaphore>,
    pending_max: usize,
    running_max: usize,
}

impl Hashing {
    pub(crate) fn new(options: &PasswordHashing) -> Result<Self, OptionsError> {
        let refused = |reason: argon2::Error| OptionsError::PasswordHashing {
            memory_kib: options.memory_kib,
            iterations: options.iterations,
            parallelism: options.parallelism,
            reason: reason.to_string(),
        };
        let params = Params::new(options.memory_kib, options.iterations, options.parallelism, None).map_err(refused)?;
        let pending_max = options
            .running_max
            .saturating_add(options.waiting_max)
            .min(Semaphore::MAX_PERMITS);
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            places: Arc::new(Semaphore::new(pending_max)),
            runs: Arc::new(Semaphore::new(options.running_max.min(Semaphore::MAX_PERMITS))),
            pending_max,
            running_max: options.running_max,
        })
    }

    /// The PHC string of a new password.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, IdentityError> {
        let salt = random::<16>()?;
        let argon2 = self.argon2.clone();
        let hashed = self.run(move || argon2.hash_password_with_salt(password.as_bytes(), salt.as_slice()));
        Ok(hashed.await?.map_err(failed)?.to_string())
    }

    /// Whether `password` is the one of `stored`. Without `stored` it is not, after as much work.
    pub(crate) async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, IdentityError> {
        let Some(stored) = stored else {
            let decoy = self.decoy()?;
            let argon2 = self.argon2.clone();
            let _ = self
                .run(move || argon2.verify_password(password.as_bytes(), &decoy))
                .await?;
            return Ok(false);
        };
        let stored =
            PasswordHash::new(&stored).map_err(|error| IdentityError::internal("a stored password hash", &error))?;
        let argon2 = self.argon2.clone();
        match self
            .run(move || argon2.verify_password(password.as_bytes(), &stored))
            .await?
        {
            Ok(()) => Ok(true),
            Err(HashError::PasswordInvalid) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    /// A hash that no password has, as far as anyone can tell.
    fn decoy(&self) -> Result<PasswordHash, IdentityError> {
        let broken = |error: &dyn fmt::Display| IdentityError::internal("a decoy hash", &error);
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: self.argon2.params().try_into().map_err(|error| broken(&error))?,
            salt: Some(Salt::new(random::<16>()?.as_slice()).map_err(|error| broken(&error))?),
            hash: Some(Output::new(random::<32>()?.as_slice()).map_err(|error| broken(&error))?),
        })
    }

    /// Runs `work` on a thread for blocking work when its turn has come. A caller that goes away does not free its turn before
    /// the work has ended.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, IdentityError> {
        describe_metrics();
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            metrics::counter!("antiphon_password_refused_total").increment(1);
            return Err(IdentityError::Busy {
                pending_max: self.pending_max,
                retry_after_ms: self.retry_after_ms(),
            });
        };
        let run = self.runs.clone().acquire_owned().await;
        let run = run.map_err(|error| IdentityError::internal("the queue of passwords", &error))?;
        let ended = spawn_blocking(move || {
            let started = Instant::now();
            let result = work();
            metrics::histogram!("antiphon_password_seconds").record(started.elapsed());
            drop((run, place));
            result
        });
        ended
            .await
            .map_err(|error| IdentityError::internal("the hashing of a password", &error))
    }

    /// About when a full queue has drained, at 50 ms a hash.
    fn retry_after_ms(&self) -> u64 {
        let rounds = self.pending_max.div_ceil(self.running_max.max(1));
        u64::try_from(rounds)
            .unwrap_or(u64::MAX)
            .saturating_mul(50)
            .clamp(100, 10_000)
    }
}

fn failed(error: HashError) -> IdentityError {
    IdentityError::internal("the hashing of a password", &error)
}

fn describe_metrics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        metrics::describe_histogram!(
            "antiphon_password_seconds",
            "Time to hash one password, without the wait for a turn"
        );
        metrics::describe_counter!(
            "antiphon_password_refused_total",
            "Passwords refused because too many waited"
        );
    });
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    fn options(running_max: usize, waiting_max: usize) -> PasswordHashing {
        PasswordHashing {
            memory_kib: 8,
            iterations: 1,
            parallelism: 1,
            running_max,
            waiting_max,
        }
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_alone() {
        let hashing = Hashing::new(&options(1, 1)).unwrap();
        let hash = hashing.hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert!(
            hashing
                .verify(password("correct horse"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !hashing
                .verify(password("correct horsf"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert_ne!(
            hashing.hash(password("correct horse")).await.unwrap(),
            hash,
            "every hash has a salt of its own"
        );
    }

    #[tokio::test]
    async fn without_a_hash_nothing_matches_after_the_same_work() {
        let hashing = Hashing::new(&options(1, 1)).unwrap();
        let real = PasswordHash::new(&hashing.hash(password("correct horse")).await.unwrap()).unwrap();
        let decoy = hashing.decoy().unwrap();
        assert_eq!(
            (decoy.algorithm, decoy.version, &decoy.params),
            (real.algorithm, real.version, &real.params)
        );
        assert_eq!(decoy.hash.unwrap().len(), real.hash.unwrap().len());
        let verified = hashing.argon2.verify_password(b"correct horse", &decoy);
        assert_eq!(
            verified,
            Err(HashError::PasswordInvalid),
            "the work was done to its end"
        );
        assert!(!hashing.verify(password("correct horse"), None).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_hashes_run_or_wait_than_may() {
        let hashing = Hashing::new(&options(2, 3)).unwrap();
        let running = Arc::new(AtomicUsize::new(0));
        let running_most = Arc::new(AtomicUsize::new(0));
        let (go, _) = tokio::sync::watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..5 {
            let (hashing, running, most, mut go) =
                (hashing.clone(), running.clone(), running_most.clone(), go.subscribe());
            let runtime = tokio::runtime::Handle::current();
            tasks.spawn(async move {
                let work = move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    runtime.block_on(go.wait_for(|go| *go)).unwrap();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                hashing.run(work).await
            });
        }
        while hashing.places.available_permits() > 0 || running.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = hashing.hash(password("correct horse")).await.unwrap_err();
        assert!(
            matches!(refused, IdentityError::Busy { pending_max: 5, .. }),
            "{refused}"
        );

        go.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        assert_eq!(running_most.load(Ordering::SeqCst), 2);
        hashing.hash(password("correct horse")).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_who_leaves_does_not_free_a_turn_that_is_still_used() {
        let hashing = Hashing::new(&options(1, 0)).unwrap();
        let (go, mut wait) = tokio::sync::watch::channel(false);
        let runtime = tokio::runtime::Handle::current();
        let caller = tokio::spawn({
            let hashing = hashing.clone();
            async move {
                hashing
                    .run(move || runtime.block_on(wait.wait_for(|go| *go)).map(|_| ()).unwrap())
                    .await
            }
        });
        while hashing.runs.available_permits() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        caller.abort();
        let _ = caller.await;
        assert!(matches!(hashing.run(|| ()).await, Err(IdentityError::Busy { .. })));
        go.send_replace(true);
        while hashing.run(|| ()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
