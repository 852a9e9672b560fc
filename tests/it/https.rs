//! HTTP and WebSocket over TLS, on the same port.
#![allow(clippy::wildcard_enum_match_arm, reason = "other events are passed over")]

use std::path::Path;

use antiphon_client::{Account, AccountError, Client, ClientOptions, Event, Transport, http_client};
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::support::{PATIENCE, Server, http::PASSWORD, text, until};

/// Another certificate for the edge, in these files; its SHA-256.
fn renew(certificate: &Path, key: &Path) -> String {
    let private = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let signed = params.self_signed(&private).unwrap();
    std::fs::write(key, private.serialize_pem()).unwrap();
    std::fs::write(certificate, signed.pem()).unwrap();
    HEXLOWER.encode(&Sha256::digest(signed.der()))
}

async fn log_in(account: &Account) -> Result<antiphon_client::Tokens, AccountError> {
    account.log_in("alice", PASSWORD, "phone").await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_believes_the_certificate_talks_over_tls_and_nobody_talks_without() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("edge.pem"), folder.path().join("edge.key"));
    let sha256 = renew(&certificate, &key);
    let server = Server::with(&[
        ("edge.https", "true"),
        ("edge.header_timeout_ms", "1000"),
        ("edge.tls_certificate_file", certificate.to_str().unwrap()),
        ("edge.tls_key_file", key.to_str().unwrap()),
    ])
    .await;
    let address = format!("127.0.0.1:{}", server.port());
    let url = format!("https://{address}");

    let account = Account::pinned(&url, Some(&sha256));
    account.register("alice", PASSWORD).await.unwrap();
    account.register("bob", PASSWORD).await.unwrap();
    let tokens = log_in(&account).await.unwrap();
    let strangers = [
        Account::pinned(&url, Some(&"0".repeat(64))),
        Account::new(&url),
        Account::new(&format!("http://{address}")),
    ];
    for stranger in strangers {
        let refused = log_in(&stranger).await;
        assert!(matches!(refused, Err(AccountError::Transport(_))), "{refused:?}");
    }

    let offers = http_client(Some(&sha256)).get(format!("{url}/v1/transports")).send();
    let offers: Value = offers.await.unwrap().json().await.unwrap();
    let web_socket = offers["transports"].as_array().unwrap().last().unwrap();
    assert_eq!(text(&web_socket["url"]), format!("wss://{address}/v1/connect"));

    let options = ClientOptions {
        certificate_sha256: Some(sha256.clone()),
        transport: Some(Transport::WebSocket),
        ..ClientOptions::new(&url, "phone")
    };
    let bob = account.user_by_name(&tokens.access_token, "bob").await.unwrap();
    let talk = account.open_direct(&tokens.access_token, &bob).await.unwrap();
    let (client, mut events, _) = Client::start(options, tokens);
    let connected = async {
        loop {
            if let Event::Connected { transport, .. } = events.recv().await.expect("the client has stopped") {
                return transport;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, connected).await.unwrap(), Transport::WebSocket);
    assert_eq!(client.send(&talk, "over tls").unwrap().sent().await.unwrap().seq, 1);

    // Who shakes no hands is not waited for.
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let ended = timeout(PATIENCE, silent.read(&mut [0; 64])).await;
    assert_eq!(ended.expect("it is waited for").unwrap(), 0);

    let renewed = renew(&certificate, &key);
    until("the renewed certificate", || async {
        log_in(&Account::pinned(&url, Some(&renewed))).await.ok()
    })
    .await;
    assert_eq!(client.send(&talk, "still here").unwrap().sent().await.unwrap().seq, 2);
}
