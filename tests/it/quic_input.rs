//! Whatever comes over QUIC: datagrams, streams, handshakes; and what the edge shows.

use std::time::Duration;

use antiphon_proto::client::{ClientFrame, ServerFrame, Typing, client_frame, server_frame};
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    support::{
        PATIENCE, RawSession, SILENCE,
        quic::{self, QUIC, WEB_TRANSPORT},
        server::Server,
        until,
        wire::Transport,
    },
    transports::{at, two},
};

#[tokio::test]
async fn that_somebody_types_comes_and_goes_as_a_datagram() {
    let server = Server::start().await;
    let (alice, bob, talk) = two(&server).await;
    let mut typist = RawSession::open_over(Transport::Quic, server.port(), &alice).await;
    // A reader of datagrams alone: what is on its stream is not read.
    let reader = RawSession::open_over(Transport::Quic, server.port(), &bob).await;
    let typing = |conversation_id: &str| ClientFrame {
        id: String::new(),
        body: Some(client_frame::Body::Typing(Typing {
            conversation_id: conversation_id.to_owned(),
        })),
    };
    let datagram = typing(&talk).encode_to_vec();
    typist.wire.connection().send_datagram(datagram.into()).unwrap();
    let heard = timeout(PATIENCE, reader.wire.connection().read_datagram()).await;
    let heard = ServerFrame::decode(heard.unwrap().unwrap()).unwrap();
    assert!(
        matches!(&heard.body, Some(server_frame::Body::Typing(typing)) if typing.conversation_id == talk),
        "{heard:?}"
    );
    // Whatever else comes that way is dropped: a message is sent where it cannot be lost.
    let send = json!({"id": "1", "send": {"conversationId": talk, "clientMsgId": "m1", "text": "no"}});
    let send: ClientFrame = serde_json::from_value(send).unwrap();
    for bytes in [send.encode_to_vec(), b"garbage".to_vec(), Vec::new()] {
        typist.wire.connection().send_datagram(bytes.into()).unwrap();
    }
    assert_eq!(typist.any_event(SILENCE).await, None);
    assert_eq!(typist.send(&talk, "m1", "yes").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_on_a_stream_is_answered_by_name_and_harms_nobody_else() {
    let server = Server::with(&[("edge.hello_timeout_ms", "700")]).await;
    let (alice, bob, talk) = two(&server).await;
    let mut live = RawSession::open_over(Transport::Quic, server.port(), &alice).await;

    // A length far over the limit.
    let mut bad = RawSession::open_over(Transport::Quic, server.port(), &bob).await;
    let long = json!({"id": "1", "send": {"conversationId": talk, "clientMsgId": "m", "text": "x".repeat(2 << 20)}});
    bad.wire.send(&long).await.ok();
    let events = bad.closed().await;
    assert!(
        events.iter().any(|event| event["error"]["code"] == "TOO_LARGE"),
        "{events:?}"
    );

    // A second stream, where a session has one.
    let connection = quic::connect(server.port()).await.unwrap();
    let (mut writer, _reader) = connection.open_bi().await.unwrap();
    writer.write_all(&[0]).await.unwrap();
    assert!(
        timeout(SILENCE, connection.open_bi()).await.is_err(),
        "a second stream was given"
    );
    // The first frame's length and nothing more, for ever.
    writer.write_all(&[0, 0, 1]).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("it waits for ever");

    // A stream that is cut in the middle of a frame.
    let connection = quic::connect(server.port()).await.unwrap();
    let (mut writer, _reader) = connection.open_bi().await.unwrap();
    writer.write_all(&[0, 0, 0, 9, 1, 2]).await.unwrap();
    writer.reset(1_u32.into()).unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("it waits for ever");

    // A protocol that is not spoken here, and another path than the session's.
    let to = at(server.port() + QUIC);
    let refused = quic::endpoint().connect_with(quic::client_config(b"antiphon/9"), to, "localhost");
    let refused = refused.unwrap().await.unwrap_err().to_string();
    assert!(refused.contains("any known protocol"), "{refused}");
    let config = wtransport::ClientConfig::builder()
        .with_bind_default()
        .build_with_quic_config(quic::client_config(b"h3"));
    let endpoint = wtransport::Endpoint::client(config).unwrap();
    for path in ["/v1/other", "/v1/connect?protocol=antiphon.v9"] {
        let url = format!("https://127.0.0.1:{}{path}", server.port() + WEB_TRANSPORT);
        assert!(endpoint.connect(&url).await.is_err(), "{path}");
    }

    // A connection that opens nothing.
    let connection = quic::connect(server.port()).await.unwrap();
    timeout(PATIENCE, connection.closed()).await.expect("it waits for ever");

    assert_eq!(live.send(&talk, "m1", "still here").await, 1);
    server.sessions_become(1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_without_end_and_handshakes_that_never_finish_harm_nobody() {
    let server = Server::with(&[("edge.hello_timeout_ms", "1000"), ("edge.quic_retry_above", "8")]).await;
    let (alice, _, talk) = two(&server).await;
    let mut live = RawSession::open_over(Transport::Quic, server.port(), &alice).await;
    let to = at(server.port() + QUIC);
    let flood = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind(at(0)).unwrap();
        let mut random = StdRng::seed_from_u64(8);
        let (mut datagram, mut sent) = ([0; 1200], 0_u64);
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            random.fill(&mut datagram[..]);
            match sent % 4 {
                // The head of a first packet of QUIC 1, of a version that nobody speaks, of a connection that there is not.
                0 => datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
                1 => datagram[..6].copy_from_slice(&[0xc3, 0xba, 0xad, 0xba, 0xad, 8]),
                2 => datagram[0] = 0x43,
                _ => {}
            }
            sent += u64::from(socket.send_to(&datagram, to).is_ok());
        }
        sent
    });
    // First packets that are followed by nothing: a device that is gone at once.
    let mut begun = Vec::new();
    for _ in 0..64 {
        let endpoint = quic::endpoint();
        let connecting = endpoint
            .connect_with(quic::client_config(b"antiphon/1"), to, "localhost")
            .unwrap();
        begun.push(tokio::spawn(async move {
            let _ = timeout(Duration::from_millis(5), connecting).await;
            drop(endpoint);
        }));
    }
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(2) {
        number += 1;
        assert_eq!(live.send(&talk, &format!("m{number}"), "hello").await, number);
    }
    let sent = flood.await.unwrap();
    eprintln!("{sent} datagrams of garbage in 2 s; {number} messages meanwhile");
    assert!(number > 5 && sent > 1_000);
    for begun in begun {
        begun.await.unwrap();
    }
    // Whoever comes after them has the edge to itself.
    let opened = RawSession::open_over(Transport::Quic, server.port(), &alice);
    timeout(PATIENCE, opened).await.expect("nobody is let in any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart_and_no_session_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("edge.pem"), folder.path().join("edge.key"));
    let renew = || {
        let private = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signed = params.self_signed(&private).unwrap();
        std::fs::write(&key, private.serialize_pem()).unwrap();
        std::fs::write(&certificate, signed.pem()).unwrap();
        signed.der().to_vec()
    };
    let first = renew();
    let settings = [
        ("edge.tls_certificate_file", certificate.to_str().unwrap()),
        ("edge.tls_key_file", key.to_str().unwrap()),
    ];
    let server = Server::with(&settings).await;
    let (alice, _, talk) = two(&server).await;
    let shown = || async {
        let connection = quic::connect(server.port()).await.unwrap();
        let identity = connection.peer_identity().unwrap();
        let chain = identity
            .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
            .unwrap();
        chain[0].to_vec()
    };
    let mut live = RawSession::open_over(Transport::Quic, server.port(), &alice).await;
    assert_eq!(shown().await, first);
    let offers = server.http().get("/v1/transports").await.expect(200);
    assert!(offers["transports"][0]["certificateSha256"].is_null(), "{offers}");

    let second = renew();
    until("the renewed certificate", || async {
        (shown().await == second).then_some(())
    })
    .await;
    assert_eq!(live.send(&talk, "m1", "still here").await, 1);
}
