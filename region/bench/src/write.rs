use antiphon_client::Transport;
use antiphon_proto::client::{Send, client_frame, server_frame::Body};
use anyhow::{Result, bail};

use crate::{Server, device::Device};

/// Messages under way at once.
const IN_FLIGHT: u64 = 32;

/// Lets a user send this many messages to each of these conversations, and waits until all are acknowledged.
pub(crate) async fn write(
    server: &Server,
    access_token: &str,
    conversation_ids: &[String],
    messages: u64,
    text_bytes: usize,
) -> Result<()> {
    let mut device = Device::open(
        &mut server.connector(Transport::WebSocket),
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
            client_msg_id: number.to_string(),
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
