use antiphon_kv::Kv;

use crate::{
    error::StartError,
    raft::codec::{decode, encode},
};

const STARTS: &[u8] = b"n";

/// Counts one more start on this store, durably; how many there are now.
pub(crate) async fn count_start(kv: &Kv) -> Result<u64, StartError> {
    let before: u64 = match super::read(kv, STARTS).await? {
        Some(bytes) => decode("the number of starts", &bytes)?,
        None => 0,
    };
    let starts = before + 1;
    super::write(kv, STARTS, encode("the number of starts", &starts)?).await?;
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_start_on_a_store_is_counted_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        for expected in 1..=3 {
            let kv = super::super::open(folder.path()).await.unwrap();
            assert_eq!(count_start(&kv).await.unwrap(), expected);
            kv.close().await.unwrap();
        }
    }
}
