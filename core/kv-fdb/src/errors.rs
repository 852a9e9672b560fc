//! What FoundationDB's errors are to the port: <https://apple.github.io/foundationdb/api-error-codes.html>.
//!
//! A commit is refused only when FoundationDB says that it did not happen. Whatever else comes back from one leaves it unknown.

use antiphon_kv::KvError;
use foundationdb::FdbError;

const TRANSACTION_TOO_OLD: i32 = 1007;
const NOT_COMMITTED: i32 = 1020;
const TRANSACTION_TOO_LARGE: i32 = 2101;

/// What passes by itself: below are no errors, above are those of files and of wrong use.
const PASSING: std::ops::Range<i32> = 1000..1500;
/// Wrong use, found before anything is sent.
const WRONG_USE: std::ops::Range<i32> = 2000..3000;

/// How long FoundationDB keeps old versions.
const AGE_MS_MAX: u64 = 5_000;
/// FoundationDB's own limit.
const TRANSACTION_BYTES_MAX: usize = 10_000_000;

/// A failure to begin, to read or to watch.
pub(crate) fn of_read(error: FdbError) -> KvError {
    match error.code() {
        TRANSACTION_TOO_OLD => KvError::TooOld { limit_ms: AGE_MS_MAX },
        code if PASSING.contains(&code) || error.is_retryable() => unavailable(error),
        _ => failed(error),
    }
}

/// A failure to commit so many bytes.
pub(crate) fn of_commit(error: FdbError, bytes: usize) -> KvError {
    match error.code() {
        NOT_COMMITTED => KvError::Conflict,
        TRANSACTION_TOO_OLD => KvError::TooOld { limit_ms: AGE_MS_MAX },
        TRANSACTION_TOO_LARGE => KvError::TooLarge {
            what: "a transaction",
            size: bytes,
            limit: TRANSACTION_BYTES_MAX,
        },
        code if WRONG_USE.contains(&code) => failed(error),
        _ if error.is_retryable_not_committed() => unavailable(error),
        _ => KvError::CommitUnknown,
    }
}

/// A failure that no cluster is asked about: the client's own.
pub(crate) fn failed(error: FdbError) -> KvError {
    KvError::Io(in_words(error))
}

fn unavailable(error: FdbError) -> KvError {
    KvError::Unavailable(in_words(error))
}

fn in_words(error: FdbError) -> String {
    format!("FoundationDB: {error} ({})", error.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &KvError) -> &'static str {
        match error {
            KvError::Conflict => "conflict",
            KvError::CommitUnknown => "unknown",
            KvError::TooLarge { .. } => "too large",
            KvError::TooOld { .. } => "too old",
            KvError::RetriesExhausted { .. } => "exhausted",
            KvError::Unavailable(_) => "unavailable",
            KvError::Closed => "closed",
            KvError::Io(_) => "failed",
        }
    }

    #[test]
    fn each_error_is_told_as_what_can_be_done_about_it() {
        for (code, read, commit) in [
            (1004, "unavailable", "unknown"),     // timed_out
            (1007, "too old", "too old"),         // transaction_too_old
            (1009, "unavailable", "unavailable"), // future_version
            (1020, "unavailable", "conflict"),    // not_committed
            (1021, "unavailable", "unknown"),     // commit_unknown_result
            (1025, "unavailable", "unknown"),     // transaction_cancelled
            (1031, "unavailable", "unknown"),     // transaction_timed_out
            (1037, "unavailable", "unavailable"), // process_behind
            (1038, "unavailable", "unavailable"), // database_locked
            (1039, "unavailable", "unknown"),     // cluster_version_changed
            (1042, "unavailable", "unavailable"), // commit_proxy_memory_limit_exceeded
            (1051, "unavailable", "unavailable"), // batch_transaction_throttled
            (1078, "unavailable", "unavailable"), // grv_proxy_memory_limit_exceeded
            (1101, "unavailable", "unknown"),     // operation_cancelled
            (1213, "unavailable", "unavailable"), // tag_throttled
            (1223, "unavailable", "unavailable"), // proxy_tag_throttled
            (1510, "failed", "unknown"),          // io_error
            (2000, "failed", "failed"),           // client_invalid_operation
            (2004, "failed", "failed"),           // key_outside_legal_range
            (2101, "failed", "too large"),        // transaction_too_large
            (4000, "failed", "unknown"),          // unknown_error
            (4100, "failed", "unknown"),          // internal_error
        ] {
            let error = FdbError::from_code(code);
            assert_eq!(kind(&of_read(error)), read, "{code} of a read");
            assert_eq!(kind(&of_commit(error, 1)), commit, "{code} of a commit");
        }
    }

    #[test]
    fn what_is_unknown_is_never_tried_again_and_what_passes_is() {
        for code in 1..5_000 {
            let error = FdbError::from_code(code);
            let told = of_commit(error, 1);
            assert!(
                !error.is_maybe_committed() || kind(&told) == "unknown",
                "{code}: {told:?}"
            );
            if error.is_retryable_not_committed() {
                assert!(told.is_retryable() && of_read(error).is_retryable(), "{code}: {told:?}");
            } else {
                assert!(!told.is_retryable(), "{code}: {told:?}");
            }
        }
    }

    #[test]
    fn an_error_is_told_in_words_and_by_its_number() {
        let told = of_read(FdbError::from_code(1038)).to_string();
        assert!(told.contains("locked") && told.contains("1038"), "{told}");
    }
}
