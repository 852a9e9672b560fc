use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::{Ending, Network, SEGMENT_BYTES, Segment, WINDOW_BYTES};

/// One end of a connection.
pub(crate) struct End {
    pub(super) network: Network,
    pub(super) id: u64,
    pub(super) side: usize,
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.network.inner.lock();
        let Some(connection) = inner.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let pipe = &mut connection.pipes[1 - self.side];
        let mut taken = 0;
        while buffer.remaining() > 0
            && let Some(data) = pipe.arrived.front_mut()
        {
            let len = data.len().min(buffer.remaining());
            buffer.put_slice(&data[..len]);
            data.advance(len);
            taken += len;
            if data.is_empty() {
                pipe.arrived.pop_front();
            }
        }
        if taken > 0 {
            pipe.bytes -= taken;
            let writer = pipe.writer.take();
            drop(inner);
            writer.into_iter().for_each(Waker::wake);
            return Poll::Ready(Ok(()));
        }
        match pipe.end {
            Some(Ending::Closed) => Poll::Ready(Ok(())),
            Some(Ending::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.network.inner.lock();
        let Some(hosts) = inner.connections.get(&self.id).map(|connection| connection.hosts) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let due_us = inner.due(hosts[self.side], hosts[1 - self.side]);
        let Some(connection) = inner.connections.get_mut(&self.id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if connection.pipes[1 - self.side].end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let pipe = &mut connection.pipes[self.side];
        let room = WINDOW_BYTES.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let len = bytes.len().min(room).min(SEGMENT_BYTES);
        pipe.bytes += len;
        let data = Bytes::copy_from_slice(&bytes[..len]);
        let due_us = pipe
            .under_way
            .back()
            .map_or(due_us, |(before_us, _)| due_us.max(*before_us));
        pipe.under_way.push_back((due_us, Segment::Data(data)));
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl End {
    /// Nothing more comes from this end.
    fn finish(&self) {
        let mut inner = self.network.inner.lock();
        let Some(hosts) = inner.connections.get(&self.id).map(|connection| connection.hosts) else {
            return;
        };
        let due_us = inner.due(hosts[self.side], hosts[1 - self.side]);
        let Some(connection) = inner
            .connections
            .get_mut(&self.id)
            .filter(|connection| connection.held[self.side])
        else {
            return;
        };
        let under_way = &mut connection.pipes[self.side].under_way;
        if !matches!(under_way.back(), Some((_, Segment::End(_)))) {
            let due_us = under_way.back().map_or(due_us, |(before_us, _)| due_us.max(*before_us));
            under_way.push_back((due_us, Segment::End(Ending::Closed)));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.finish();
        if let Some(connection) = self.network.inner.lock().connections.get_mut(&self.id) {
            connection.held[self.side] = false;
        }
    }
}

impl Connected for End {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
