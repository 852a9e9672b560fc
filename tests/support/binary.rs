use antiphon_proto::client::{ClientFrame, Hello, ServerFrame, client_frame, server_frame};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::{PATIENCE, Person, session::shake_hands, wire::Socket};

/// Frames as protobuf.
pub(crate) struct BinarySession {
    pub(crate) socket: Socket,
}

impl BinarySession {
    pub(crate) async fn connect(port: u16) -> Self {
        let (socket, response) = shake_hands(port, "antiphon.v1").await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "antiphon.v1");
        Self { socket }
    }

    pub(crate) async fn open(port: u16, person: &Person) -> Self {
        let mut session = Self::connect(port).await;
        let hello = Hello {
            access_token: person.token.clone(),
            device_id: person.device_id.clone(),
            cursors: vec![],
        };
        session.ask("hello", client_frame::Body::Hello(hello)).await;
        let frame = session.next().await;
        assert!(matches!(frame.body, Some(server_frame::Body::Welcome(_))), "{frame:?}");
        session
    }

    pub(crate) async fn ask(&mut self, id: &str, body: client_frame::Body) {
        let frame = ClientFrame {
            id: id.to_owned(),
            body: Some(body),
        };
        self.socket.send(Message::binary(frame.encode_to_vec())).await.unwrap();
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> ServerFrame {
        loop {
            let message = timeout(PATIENCE, self.socket.next())
                .await
                .expect("no frame")
                .expect("the end")
                .unwrap();
            if let Message::Binary(bytes) = message {
                return ServerFrame::decode(bytes).unwrap();
            }
        }
    }

    /// The next frame that fits.
    pub(crate) async fn next_where<T>(&mut self, fits: impl Fn(ServerFrame) -> Option<T>) -> T {
        loop {
            if let Some(found) = fits(self.next().await) {
                return found;
            }
        }
    }
}
