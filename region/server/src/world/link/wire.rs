//! What one connection has in flight in one direction. No socket, no clock.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};
use tokio::time::Instant;

/// In flight per connection and direction, as the receive window of a TCP connection would have it.
pub(super) const FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Small pieces cost more than their bytes.
const FLIGHT_PIECES_MAX: usize = 8_192;

/// What travels.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// The sender has ended in order.
    Fin,
    /// The sender is gone.
    Reset,
}

/// Pieces in the order in which they were sent, each with the moment from which it may arrive.
#[derive(Default)]
pub(super) struct Wire {
    pieces: VecDeque<(Instant, Piece)>,
    bytes: usize,
    last: Option<Instant>,
    held_until: Option<Instant>,
    has_end: bool,
}

impl Wire {
    /// Sends a piece that arrives at `arrives`, or with the piece before it if that is later.
    pub(super) fn push(&mut self, piece: Piece, arrives: Instant) {
        let arrives = self.last.map_or(arrives, |last| last.max(arrives));
        self.last = Some(arrives);
        match &piece {
            Piece::Bytes(bytes) => self.bytes += bytes.len(),
            Piece::Fin | Piece::Reset => self.has_end = true,
        }
        self.pieces.push_back((arrives, piece));
    }

    /// Whether the sender may send more.
    pub(super) fn has_room(&self) -> bool {
        !self.has_end && self.bytes < FLIGHT_BYTES_MAX && self.pieces.len() < FLIGHT_PIECES_MAX
    }

    /// When the next piece arrives.
    pub(super) fn arrives(&self) -> Option<Instant> {
        let (arrives, _) = self.pieces.front()?;
        Some(self.held_until.map_or(*arrives, |until| until.max(*arrives)))
    }

    /// The next piece.
    pub(super) fn front(&self) -> Option<&Piece> {
        self.pieces.front().map(|(_, piece)| piece)
    }

    /// The receiver has taken `length` bytes of the next piece.
    pub(super) fn taken(&mut self, length: usize) {
        let Some((_, Piece::Bytes(bytes))) = self.pieces.front_mut() else {
            return;
        };
        bytes.advance(length);
        self.bytes -= length;
        if bytes.is_empty() {
            self.pieces.pop_front();
        }
    }

    /// Nothing arrives before `until`.
    pub(super) fn hold_until(&mut self, until: Instant) {
        self.held_until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bytes(length: usize) -> Piece {
        Piece::Bytes(Bytes::from(vec![7; length]))
    }

    #[test]
    fn a_piece_never_overtakes_the_one_before_it() {
        let now = Instant::now();
        let late = now + Duration::from_secs(1);
        let mut wire = Wire::default();
        wire.push(bytes(3), late);
        wire.push(bytes(2), now);
        wire.taken(3);
        assert_eq!((wire.arrives(), wire.front()), (Some(late), Some(&bytes(2))));
    }

    #[test]
    fn a_wire_takes_no_more_than_its_bytes_or_its_pieces() {
        let now = Instant::now();
        let mut wire = Wire::default();
        wire.push(bytes(FLIGHT_BYTES_MAX), now);
        assert!(!wire.has_room());
        wire.taken(1);
        assert!(wire.has_room());

        let mut wire = Wire::default();
        for _ in 0..FLIGHT_PIECES_MAX {
            assert!(wire.has_room());
            wire.push(bytes(1), now);
        }
        assert!(!wire.has_room());
    }

    #[test]
    fn nothing_is_sent_after_the_end() {
        let mut wire = Wire::default();
        wire.push(Piece::Fin, Instant::now());
        assert!(!wire.has_room());
    }

    #[test]
    fn what_is_held_arrives_later_and_in_order() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let mut wire = Wire::default();
        wire.push(bytes(1), now);
        wire.hold_until(until);
        wire.push(bytes(2), now);
        assert_eq!(wire.arrives(), Some(until));
        wire.taken(1);
        assert_eq!((wire.arrives(), wire.front()), (Some(until), Some(&bytes(2))));
    }
}
