use std::time::Duration;

use antiphon_client::{Connection, Connector, Transport};
use antiphon_proto::client::{ClientFrame, Hello, ServerFrame, client_frame, server_frame::Body};
use anyhow::{Result, bail};

use crate::people::DEVICE;

/// How long a connection may take to its Welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// A session on the SDK's own connection, without what the SDK keeps for an app.
pub(crate) struct Device {
    connection: Connection,
}

fn hello(access_token: &str) -> ClientFrame {
    let hello = Hello {
        access_token: access_token.to_owned(),
        device_id: DEVICE.to_owned(),
        cursors: Vec::new(),
    };
    ClientFrame {
        id: "hello".to_owned(),
        body: Some(client_frame::Body::Hello(hello)),
    }
}

/// Ways to edges over this transport alone.
pub(crate) fn connector(transport: Transport) -> Connector {
    Connector::new(Some(transport), Duration::ZERO, None)
}

impl Device {
    /// Connects and is welcomed.
    pub(crate) async fn open(connector: &mut Connector, url: &str, access_token: &str) -> Result<Self> {
        let opened = connector.open(url, &hello(access_token), CONNECT_TIMEOUT).await;
        let (connection, answer) = opened.map_err(anyhow::Error::msg)?;
        match answer.body {
            Some(Body::Welcome(_)) => Ok(Self { connection }),
            answer => bail!("a device was not welcomed but told {answer:?}"),
        }
    }

    /// Sends a request of this number; 0 asks for no answer but a refusal.
    pub(crate) async fn send(&mut self, id: u64, body: client_frame::Body) -> Result<()> {
        let id = if id == 0 { String::new() } else { id.to_string() };
        let frame = ClientFrame { id, body: Some(body) };
        self.connection.send(&frame).await.map_err(anyhow::Error::msg)
    }

    /// Cancel safe.
    pub(crate) async fn receive(&mut self) -> Result<ServerFrame> {
        self.connection.receive().await.map_err(anyhow::Error::msg)
    }

    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}
