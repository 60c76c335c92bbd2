//! Room for the next read of a connection: bytes to read, memory to read them into, and a turn.
//!
//! Enters: what the connection wants. Leaves: a grant, once there is something to read. Holds no buffer meanwhile. Can go
//! wrong: the socket fails; the client is quiet for longer than it may be.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::conn::READ;
use crate::inputs::InputContext;
use crate::net::Conn;
use crate::rt::Charge;

/// Declared lengths up to this are believed while half of the memory is free.
const PLENTY: usize = 1 << 20;

/// Room behind a declared length: behind a payload come the frame's options, and to learn of their first byte a full buffer
/// would be copied to one half as large again.
const BEHIND: usize = 256;

/// What a connection wants for its next read.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// Bytes in the buffer.
    pub(super) buffered: usize,
    /// Bytes of the frame at hand that must be there before another look.
    pub(super) need: usize,
    /// What the buffer takes of the budget already.
    pub(super) charged: u64,
    pub(super) max_frame: usize,
    pub(super) has_oversize: bool,
    /// How long the client may be quiet; it is not quiet while bytes wait in the socket for memory.
    pub(super) quiet: Option<Duration>,
}

pub(super) enum Room {
    Granted(Grant),
    /// Nothing came for so long.
    Quiet,
}

/// Room for the next read.
pub(super) struct Grant {
    /// Bytes the buffer may hold.
    pub(super) target: usize,
    /// Most bytes to read: little further than to the end of a large frame, so that little has to be moved after it.
    pub(super) most: usize,
    pub(super) charge: Charge,
    pub(super) oversize: Option<OwnedSemaphorePermit>,
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

/// Waits until there is something to read and room to read it into.
///
/// `turn` is the one that is kept from the read before, if any: it is good for what is there already, and whoever has to
/// wait gives it back. Sixteen that wait for their own output would else stop every source.
pub(super) async fn room_to_read(
    cx: &InputContext,
    conn: &Conn,
    wish: Wish,
    turn: Option<OwnedSemaphorePermit>,
) -> std::io::Result<Room> {
    let turn = turn.filter(|_| is_ready(conn.readable()) && is_ready(cx.meter.below_limit()));
    match wish.quiet {
        None => conn.readable().await?,
        Some(quiet) => match tokio::time::timeout(quiet, conn.readable()).await {
            Ok(result) => result?,
            Err(_) => return Ok(Room::Quiet),
        },
    }
    // What counts is inside already: a frame of which a part is here waits like one that has not begun, and a frame
    // larger than the limit is still read whole.
    cx.meter.below_limit().await;
    let Wish { buffered, need, charged, has_oversize, .. } = wish;
    let plenty = need <= PLENTY && cx.budget.used() + need as u64 <= cx.budget.limit() / 2;
    let target = target(&wish, plenty);
    let most = if need > buffered + READ { (need - buffered).saturating_add(BEHIND) } else { usize::MAX };
    let more = (target as u64).saturating_sub(charged);
    // The turn comes first, so that memory is not lent to those that wait for theirs; and is given back before a wait for
    // memory, which only others' turns can free.
    let turn = match turn {
        Some(turn) => Some(turn),
        None => cx.budget.turn().await,
    };
    let grant = |charge, oversize, turn| Ok(Room::Granted(Grant { target, most, charge, oversize, turn }));
    if has_oversize {
        return grant(cx.budget.take(more), None, turn);
    }
    if let Some(charge) = cx.budget.try_take(more) {
        return grant(charge, None, turn);
    }
    drop(turn);
    let (charge, oversize) = if buffered == 0 {
        (cx.budget.wait_take(more).await, None)
    } else {
        tokio::select! {
            charge = cx.budget.wait_take(more) => (charge, None),
            oversize = cx.budget.oversize() => (cx.budget.take(more), oversize),
        }
    };
    grant(charge, oversize, cx.budget.turn().await)
}

/// Bytes that the buffer is to hold. A declared length is believed at once only while memory is plentiful; else the buffer
/// never becomes more than four times what has been received, and a read. Where no end is declared it grows by half, so that
/// all the copying from one buffer to the next is linear.
fn target(wish: &Wish, plenty: bool) -> usize {
    let Wish { buffered, need, charged, max_frame, .. } = *wish;
    let has = usize::try_from(charged).unwrap_or(usize::MAX);
    let whole = need.saturating_add(BEHIND);
    let grown = if has > buffered && has >= need {
        has
    } else if need <= buffered + READ {
        whole.max(buffered + (READ / 4).max(buffered / 2))
    } else if plenty {
        whole
    } else {
        let grown = buffered.saturating_mul(4).max(buffered + READ / 4);
        // The last step goes to the end: from just before it the buffer would grow by half.
        if whole.saturating_sub(grown) <= READ { whole } else { grown }
    };
    grown.max(READ).min(max_frame + READ)
}

/// Whether it is over without a wait.
pub(super) fn is_ready(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::inputs::testing::Bench;
    use crate::net::Listener;

    const WISH: Wish =
        Wish { buffered: 1, need: 1 << 20, charged: 0, max_frame: 6 << 20, has_oversize: false, quiet: None };

    #[test]
    fn a_frame_without_a_declared_end_is_copied_a_few_times_and_a_declared_one_never_past_its_end() {
        let (mut has, mut steps) = (0, 0);
        while has < 6 << 20 {
            let wish = Wish { buffered: has, need: has + 1, charged: has as u64, ..WISH };
            let next = target(&wish, false);
            assert!(next > has && next <= (has * 3 / 2).max(READ), "{next} after {has}");
            (has, steps) = (next, steps + 1);
        }
        assert!(steps < 15, "{steps} steps");
        let wish = Wish { buffered: 300_000, need: 310_000, charged: 310_000, ..WISH };
        assert_eq!(target(&wish, true), 310_000);
        let wish = Wish { buffered: 65_536, need: 310_000, charged: 65_536, ..WISH };
        // 310,000 is a step and less than a read away.
        assert_eq!((target(&wish, true), target(&wish, false)), (310_256, 310_256));
        let wish = Wish { need: 400_000, ..wish };
        assert_eq!((target(&wish, true), target(&wish, false)), (400_256, 262_144));
        assert_eq!(target(&Wish { need: usize::MAX, ..wish }, false), 262_144);
    }

    #[test]
    fn behind_a_declared_payload_there_is_room_for_the_options() {
        for end in [70_000, 100_000, 131_072, 345_354, 1_500_000, 5_000_000] {
            let mut wish = Wish { buffered: READ, need: end, charged: READ as u64, ..WISH };
            while wish.buffered < end {
                let has = target(&wish, false);
                wish = Wish { buffered: has.min(end), charged: has as u64, ..wish };
            }
            let options = Wish { buffered: end, need: end + 1, ..wish };
            assert_eq!(target(&options, false), wish.charged as usize, "{end}");
        }
    }

    /// The turns that can be had.
    async fn turns(cx: &InputContext) -> Vec<OwnedSemaphorePermit> {
        let mut turns = Vec::new();
        let mut next = Box::pin(cx.budget.turn());
        while let std::task::Poll::Ready(turn) = next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            turns.push(turn.unwrap());
            next = Box::pin(cx.budget.turn());
        }
        turns
    }

    #[tokio::test]
    async fn a_kept_turn_is_used_at_once_or_given_back_before_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.sock");
        let listener = Listener::unix(path.to_str().unwrap(), None).await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut conn = listener.accept().await.unwrap();
        // A socket counts as readable until a read has found nothing.
        assert!(conn.try_read(&mut BytesMut::with_capacity(1), 1).is_err());
        let cx = Bench::with_limit(1000).context();

        let mut all = turns(&cx).await;
        let mut quiet = Box::pin(room_to_read(&cx, &conn, WISH, all.pop()));
        assert!(!is_ready(quiet.as_mut()));
        all.extend(turns(&cx).await);
        assert_eq!(all.len(), 16, "given back while nothing is there to read");
        drop(quiet);

        client.write_all(b"there").await.unwrap();
        conn.readable().await.unwrap();
        let full = cx.meter.charge(1000);
        let mut limited = Box::pin(room_to_read(&cx, &conn, WISH, all.pop()));
        assert!(!is_ready(limited.as_mut()));
        all.extend(turns(&cx).await);
        assert_eq!(all.len(), 16, "given back while the input is at its limit");
        drop((limited, full));

        let kept = all.pop();
        assert!(
            matches!(room_to_read(&cx, &conn, WISH, kept).await, Ok(Room::Granted(g)) if g.turn.is_some())
        );
    }
}
