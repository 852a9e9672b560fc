use antiphon_client::Transport;
use antiphon_proto::client::{Send, client_frame, server_frame::Body};
use anyhow::{Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

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

/// Lets the writer of each team send this many messages to each of its conversations, and waits until all are acknowledged.
pub(crate) async fn write_to_all(server: &Server, teams: &[Team], messages: u64, text_bytes: usize) -> Result<()> {
    let writing = stream::iter(teams).map(Ok).try_for_each_concurrent(WRITERS, |team| {
        let token = &team.writer.access_token;
        write(server, token, &team.conversation_ids, messages, text_bytes)
    });
    writing.await
}

/// Lets the first member of each conversation send this many messages to it, and waits until all are acknowledged.
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
                        messages,
                        text_bytes,
                    )
                    .await?;
                    progress.step();
                    Ok(())
                }
            });
    filling.await
}

async fn write(
    server: &Server,
    access_token: &str,
    conversation_ids: &[String],
    messages: u64,
    text_bytes: usize,
) -> Result<()> {
    let mut device = Device::open(
        &mut server.connector(Transport::WebSocket)?,
        server.url(0),
        access_token,
        &[],
    )
    .await?;
    let sends = (0..messages).flat_map(|number| conversation_ids.iter().map(move |id| (number, id)));
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
