//! One direction of one connection.

use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{ReadHalf, WriteHalf},
    time::Instant,
};
use tokio_timerd::Delay;

use super::{
    path::{Condition, Path},
    wire::{Piece, Wire},
};

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The sender ended, and the receiver has all of it.
    InOrder,
    /// The receiver takes nothing any more.
    Deaf,
}

/// One side is gone, and the other one is to learn it now.
pub(super) struct Torn;

impl From<io::Error> for Torn {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Carries bytes along `path` until their sender ends. Dropping it loses what is in flight.
pub(super) async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, path: &Path) -> Result<Ended, Torn> {
    let mut conditions = path.watch();
    let mut condition = *conditions.borrow_and_update();
    let mut wire = Wire::default();
    let mut buffer = BytesMut::new();
    // When the bottleneck takes the next piece: a sender that is not read from is a sender that slows down.
    let mut turn = Instant::now();
    // The runtime's own timers count whole milliseconds and wake late: a message that crosses four links would be late by as many.
    let mut alarm = Delay::new(turn.into_std())?;
    loop {
        if !condition.is_up() {
            if conditions.wait_for(Condition::is_up).await.is_err() {
                return Err(Torn);
            }
            condition = *conditions.borrow_and_update();
            // What was on its way when the link was cut is sent again by TCP once it is back.
            turn = Instant::now();
            wire.hold_until(turn + condition.delay());
        }
        let now = Instant::now();
        let reads = wire.has_room() && turn <= now;
        let arrived = wire.arrives().is_some_and(|arrives| arrives <= now);
        let next = wakes_at(&wire, turn, now);
        if let Some(next) = next {
            alarm.reset(next.into_std());
        }
        tokio::select! {
            changed = conditions.changed() => {
                if changed.is_err() {
                    return Err(Torn);
                }
                let before = condition;
                condition = *conditions.borrow_and_update();
                if before.settings.bits_per_s != condition.settings.bits_per_s {
                    turn = Instant::now();
                }
            }
            delivered = deliver(&mut to, wire.front()), if arrived => match delivered {
                Delivered::Bytes(length) => {
                    wire.taken(length);
                    path.carried(length);
                }
                Delivered::Fin => return Ok(Ended::InOrder),
                Delivered::Reset => return Err(Torn),
                Delivered::Deaf => return Ok(Ended::Deaf),
            },
            read = read(&mut from, &mut buffer, condition.piece_bytes_max()), if reads => {
                let now = Instant::now();
                let piece = match read {
                    Ok(0) => Piece::Fin,
                    Ok(_) => Piece::Bytes(buffer.split().freeze()),
                    Err(_) => Piece::Reset,
                };
                if let Piece::Bytes(bytes) = &piece {
                    turn = path.take_turn(bytes.len(), condition.settings.bits_per_s, now);
                }
                wire.push(piece, turn.max(now) + condition.delay());
            }
            woken = &mut alarm, if next.is_some() => woken?,
        }
    }
}

/// The next moment at which something may be done that may not be done now.
fn wakes_at(wire: &Wire, turn: Instant, now: Instant) -> Option<Instant> {
    let turn = wire.has_room().then_some(turn);
    turn.into_iter().chain(wire.arrives()).filter(|at| *at > now).min()
}

async fn read(from: &mut ReadHalf<'_>, buffer: &mut BytesMut, length_max: usize) -> io::Result<usize> {
    // Whole blocks, of which small pieces take their share.
    if buffer.capacity() < length_max {
        buffer.reserve(64 * 1024);
    }
    from.take(u64::try_from(length_max).unwrap_or(u64::MAX))
        .read_buf(buffer)
        .await
}

enum Delivered {
    Bytes(usize),
    Fin,
    Reset,
    Deaf,
}

/// May be dropped while it waits: nothing was delivered then.
async fn deliver(to: &mut WriteHalf<'_>, piece: Option<&Piece>) -> Delivered {
    match piece {
        Some(Piece::Bytes(bytes)) => match to.write(bytes).await {
            Ok(length @ 1..) => Delivered::Bytes(length),
            Ok(0) | Err(_) => Delivered::Deaf,
        },
        // A receiver that is gone already will be heard of by the other direction.
        Some(Piece::Fin) => match to.shutdown().await {
            Ok(()) | Err(_) => Delivered::Fin,
        },
        Some(Piece::Reset) => Delivered::Reset,
        None => std::future::pending().await,
    }
}
