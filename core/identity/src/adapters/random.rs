use zeroize::Zeroizing;

use crate::IdentityError;

/// Bytes of the machine's cryptographic generator.
pub(crate) fn random<const LEN: usize>() -> Result<Zeroizing<[u8; LEN]>, IdentityError> {
    let mut bytes = Zeroizing::new([0; LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| IdentityError::internal("the random generator", &error))?;
    Ok(bytes)
}

/// 64 random bits, for the tail of an id.
pub(crate) fn random_u64() -> Result<u64, IdentityError> {
    Ok(u64::from_be_bytes(*random::<8>()?))
}
