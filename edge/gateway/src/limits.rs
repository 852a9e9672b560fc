//! Token buckets by address, user and session, and counts of connections.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ahash::AHashMap;
use antiphon_session::Refusal;
use antiphon_types::{ErrorCode, UserId};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{GatewayOptions, Rate};

/// Every bucket of the edge.
pub(crate) struct Limits {
    pub(crate) handshakes: Buckets<IpAddr>,
    pub(crate) addresses: Buckets<IpAddr>,
    pub(crate) credentials: Buckets<IpAddr>,
    pub(crate) users: Buckets<UserId>,
    pub(crate) sessions: Buckets<u64>,
    pub(crate) sends: Room,
}

impl Limits {
    pub(crate) fn new(options: &GatewayOptions) -> Self {
        Self {
            handshakes: Buckets::new("connections of one address", options.handshake_rate),
            addresses: Buckets::new("requests of one address", options.address_rate),
            credentials: Buckets::new("registrations and log-ins of one address", options.credential_rate),
            users: Buckets::new("requests of one user", options.user_rate),
            sessions: Buckets::new("requests of one session", options.session_rate),
            sends: Room::new(options.sends_in_flight_max),
        }
    }

    /// Forgets buckets that are full again, so that memory follows who is active and not who ever was.
    pub(crate) fn forget_full(&self) {
        self.handshakes.forget_full();
        self.addresses.forget_full();
        self.credentials.forget_full();
        self.users.forget_full();
        self.sessions.forget_full();
    }
}

/// When to send again what found no room, milliseconds: about what it takes to answer all that is in flight.
const SENDS_RETRY_MS: u64 = 500;

/// Room for the messages of all sessions that are not answered yet. Those over it would wait where nobody tells them that they do.
pub(crate) struct Room {
    permits: Arc<Semaphore>,
    max: usize,
}

impl Room {
    fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Room for one message, until what is returned is dropped.
    pub(crate) fn take(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.permits.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{} messages are in flight at this edge, which is the limit", self.max);
            Refusal::new(ErrorCode::ResourceExhausted, message).retry_after(SENDS_RETRY_MS)
        })
    }
}

/// One kind of bucket, by key.
pub(crate) struct Buckets<K: Hash + Eq + Clone> {
    what: &'static str,
    rate: Rate,
    limiter: Option<DefaultKeyedRateLimiter<K>>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(what: &'static str, rate: Rate) -> Self {
        let quota = NonZeroU32::new(rate.per_second).map(|per_second| {
            Quota::per_second(per_second).allow_burst(NonZeroU32::new(rate.burst).unwrap_or(per_second))
        });
        Self {
            what,
            rate,
            limiter: quota.map(RateLimiter::keyed),
        }
    }

    /// Takes a token of `key`.
    pub(crate) fn take(&self, key: &K) -> Result<(), Refusal> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let message = format!(
                "{} {} a second are allowed, {} at once",
                self.rate.per_second, self.what, self.rate.burst
            );
            Refusal::new(ErrorCode::RateLimited, message).retry_after(wait_ms)
        })
    }

    fn forget_full(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// The address that limits count: an IPv6 host owns its whole /64.
pub(crate) fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        },
    }
}

/// How many connections each address has.
#[derive(Clone)]
pub(crate) struct Connections {
    shared: Arc<Counted>,
}

struct Counted {
    by_address: Mutex<AHashMap<IpAddr, usize>>,
    all: AtomicUsize,
    all_max: usize,
    per_address_max: usize,
}

impl Connections {
    pub(crate) fn new(all_max: usize, per_address_max: usize) -> Self {
        let counted = Counted {
            by_address: Mutex::default(),
            all: AtomicUsize::new(0),
            all_max,
            per_address_max,
        };
        Self {
            shared: Arc::new(counted),
        }
    }

    /// Counts a connection until the guard is dropped; `None` when the edge has too many, or the address.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<ConnectionGuard> {
        let mut guard = self.admit_anyone()?;
        guard.address = Some(self.count_address(address)?);
        Some(guard)
    }

    /// Counts a connection of a proxy: whose it is shows only in its requests.
    pub(crate) fn admit_anyone(&self) -> Option<ConnectionGuard> {
        let shared = self.shared.clone();
        if shared.all.fetch_add(1, Ordering::Relaxed) >= shared.all_max {
            shared.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnectionGuard {
            _all: AllGuard { shared },
            address: None,
        })
    }

    /// Counts a connection for an address until the guard is dropped; `None` when the address has too many.
    pub(crate) fn count_address(&self, address: IpAddr) -> Option<AddressGuard> {
        let address = counted(address);
        let mut by_address = self.shared.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.shared.per_address_max {
            return None;
        }
        *count += 1;
        Some(AddressGuard {
            shared: self.shared.clone(),
            address,
        })
    }
}

/// One counted connection.
pub(crate) struct ConnectionGuard {
    _all: AllGuard,
    address: Option<AddressGuard>,
}

struct AllGuard {
    shared: Arc<Counted>,
}

impl Drop for AllGuard {
    fn drop(&mut self) {
        self.shared.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection counted for its address.
pub(crate) struct AddressGuard {
    shared: Arc<Counted>,
    address: IpAddr,
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let mut by_address = self.shared.by_address.lock();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_finds_no_room_is_told_when_to_come_back_and_room_returns_with_each_answer() {
        let room = Room::new(2);
        let (one, _other) = (room.take().unwrap(), room.take().unwrap());
        let refusal = room.take().unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ResourceExhausted);
        assert!(refusal.message.starts_with("2 messages") && refusal.retry_after_ms == Some(SENDS_RETRY_MS));
        drop(one);
        assert!(room.take().is_ok());
    }

    #[test]
    fn a_spent_bucket_says_when_to_come_back_and_others_are_not_touched() {
        let buckets = Buckets::new("things", Rate::new(1, 2));
        assert_eq!((buckets.take(&1), buckets.take(&1)), (Ok(()), Ok(())));
        let refusal = buckets.take(&1).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!((1..=1_000).contains(&refusal.retry_after_ms.unwrap()));
        assert_eq!(buckets.take(&2), Ok(()));
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let buckets = Buckets::new("things", Rate::new(0, 0));
        assert!((0..10_000).all(|_| buckets.take(&1).is_ok()));
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let connections = Connections::new(3, 2);
        let one = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = connections.admit(one);
        let _second = connections.admit(one).unwrap();
        assert!(connections.admit(one).is_none());
        drop(first);
        let _third = connections.admit(one).unwrap();
        let other = IpAddr::V4(Ipv4Addr::BROADCAST);
        let _fourth = connections.admit(other).unwrap();
        assert!(connections.admit(other).is_none());
    }

    #[test]
    fn hosts_of_one_network_count_as_one() {
        let address = |text: &str| counted(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:10.0.0.1"), address("10.0.0.1"));
    }
}
