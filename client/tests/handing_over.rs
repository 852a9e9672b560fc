//! What the app is told when it hands something over, without a server.

use std::time::Duration;

use antiphon_client::{Client, ClientError, ClientOptions, CoreOptions, OutboxFull, SendError, Tokens};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// A client of a server that is not there; whoever drops the events ends it.
fn start(outbox_len_max: usize) -> (Client, impl Sized, tokio::task::JoinHandle<()>) {
    let options = ClientOptions {
        core: CoreOptions {
            outbox_len_max,
            ..CoreOptions::default()
        },
        // The discard port: nobody listens.
        ..ClientOptions::new("http://127.0.0.1:9", "device")
    };
    let tokens = Tokens {
        access_token: "access".into(),
        refresh_token: "refresh".into(),
        expires_in_s: 900,
        user_id: "u".into(),
    };
    Client::start(options, tokens)
}

#[tokio::test]
async fn a_message_beyond_the_outbox_is_refused_by_the_call_wherever_the_others_are() {
    let (client, _events, _) = start(2);
    let _first = client.send("c", "1").unwrap();
    // The first is with the driver by now, the second is not.
    sleep(Duration::from_millis(50)).await;
    let _second = client.send("c", "2").unwrap();
    assert_eq!(client.send("c", "3").unwrap_err(), OutboxFull { limit: 2 });
    sleep(Duration::from_millis(50)).await;
    assert_eq!(client.send("c", "3").unwrap_err(), OutboxFull { limit: 2 });
}

#[tokio::test]
async fn a_dropped_handle_does_not_make_room() {
    let (client, _events, _) = start(1);
    drop(client.send("c", "1").unwrap());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(client.send("c", "2").unwrap_err(), OutboxFull { limit: 1 });
}

#[tokio::test]
async fn whoever_waits_hears_that_the_client_has_stopped() {
    let (client, _events, driver) = start(2);
    let (sending, marking) = (client.send("c", "1").unwrap(), client.read("c", 1));
    client.close().await;
    timeout(PATIENCE, driver)
        .await
        .expect("the client does not stop")
        .unwrap();
    let (late_sending, late_marking) = (client.send("c", "2").unwrap(), client.read("c", 2));
    for sending in [sending, late_sending] {
        let sent = timeout(PATIENCE, sending.sent()).await.expect("nobody answers");
        assert_eq!(sent, Err(SendError::Stopped));
    }
    for marking in [marking, late_marking] {
        let marked = timeout(PATIENCE, marking.marked()).await.expect("nobody answers");
        assert_eq!(marked, Err(ClientError::Stopped));
    }
}
