use std::{ops::Range, time::Duration};

use antiphon_client::Transport;
use antiphon_proto::client::{Send, client_frame, server_frame::Body};
use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{sleep, timeout};

use crate::{
    Say, Server,
    device::Device,
    people::{Conversation, Progress, Team},
};

/// Writers who write at once.
const WRITERS: usize = 16;

/// As above, where there is nothing else to do.
const FILLERS: usize = 256;

/// Messages under way at once.
const IN_FLIGHT: u64 = 32;

/// A server that writes less in so long a time has put in order what it holds: what it writes when nobody talks is far less.
const QUIET: (u64, Duration) = (1 << 20, Duration::from_secs(3));
/// How long that is waited for.
const QUIET_PATIENCE: Duration = Duration::from_secs(600);

/// Lets the writer of each team send the messages of these numbers to each of its conversations, and waits until all are acknowledged.
pub(crate) async fn write_to_all(
    server: &Server,
    teams: &[Team],
    messages: Range<u64>,
    text_bytes: usize,
) -> Result<()> {
    let writing = stream::iter(teams).map(Ok).try_for_each_concurrent(WRITERS, |team| {
        let token = &team.writer.access_token;
        write(server, token, &team.conversation_ids, messages.clone(), text_bytes)
    });
    writing.await
}

/// Lets the first member of each conversation send this many messages to it, and waits until all are acknowledged and the server has
/// put them in order on its disk.
pub(crate) async fn fill(
    server: &Server,
    conversations: &[Conversation],
    messages: u64,
    text_bytes: usize,
    say: Say,
) -> Result<()> {
    if messages == 0 {
        return Ok(());
    }
    let progress = Progress::new("conversations filled", conversations.len(), say);
    let filling =
        stream::iter(conversations)
            .map(Ok)
            .try_for_each_concurrent(FILLERS, |Conversation { id, members }| {
                let progress = &progress;
                async move {
                    let Some(writer) = members.first() else { return Ok(()) };
                    write(
                        server,
                        &writer.access_token,
                        std::slice::from_ref(id),
                        0..messages,
                        text_bytes,
                    )
                    .await?;
                    progress.step();
                    Ok::<_, anyhow::Error>(())
                }
            });
    filling.await?;
    say("the server puts in order what it holds");
    timeout(QUIET_PATIENCE, until_quiet(server))
        .await
        .context("the server still writes what was stored before, after ten minutes")?
}

/// Waits until the server writes next to nothing.
async fn until_quiet(server: &Server) -> Result<()> {
    loop {
        let before = server.usage()?;
        sleep(QUIET.1).await;
        if (server.usage()? - before).written_bytes < QUIET.0 {
            return Ok(());
        }
    }
}

async fn write(
    server: &Server,
    access_token: &str,
    conversation_ids: &[String],
    messages: Range<u64>,
    text_bytes: usize,
) -> Result<()> {
    let mut device = Device::open(
        &mut server.connector(Transport::WebSocket)?,
        server.url(0),
        access_token,
        &[],
    )
    .await?;
    let sends = messages.flat_map(|number| conversation_ids.iter().map(move |id| (number, id)));
    let mut under_way = 0;
    for (at, (number, conversation_id)) in (1..).zip(sends) {
        if under_way == IN_FLIGHT {
            acknowledged(&mut device).await?;
            under_way -= 1;
        }
        let send = Send {
            conversation_id: conversation_id.clone(),
            client_msg_id: format!("stored-{number}"),
            text: "x".repeat(text_bytes),
        };
        device.send(at, client_frame::Body::Send(send)).await?;
        under_way += 1;
    }
    for _ in 0..under_way {
        acknowledged(&mut device).await?;
    }
    device.close().await;
    Ok(())
}

async fn acknowledged(device: &mut Device) -> Result<()> {
    loop {
        match device.receive().await?.body {
            Some(Body::Sent(_)) => return Ok(()),
            Some(Body::Error(error)) => bail!("a message was refused: {error:?}"),
            _ => {}
        }
    }
}
