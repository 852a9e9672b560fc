//! What does not come from a voter as it should.

use std::time::Duration;

use antiphon_directory::{
    DirectoryError,
    domain::{Command, InSyncChange, RegionId},
};
use antiphon_proto::rpc::{
    ProposeRequest, RaftEnvelope, RaftRequest, SnapshotHead, SnapshotPart, directory_client::DirectoryClient,
    raft_client::RaftClient, snapshot_part,
};
use antiphon_types::Slot;
use tonic::{Code, transport::Endpoint};

use crate::world::{World, soon};

fn envelope(to: u64, from_store: u64) -> RaftEnvelope {
    RaftEnvelope {
        deployment: "test".to_owned(),
        from: 9,
        from_store,
        to,
    }
}

fn request(envelope: Option<RaftEnvelope>) -> RaftRequest {
    RaftRequest {
        envelope,
        payload: b"no MessagePack at all".as_slice().into(),
    }
}

fn head(size: u64) -> SnapshotPart {
    SnapshotPart {
        part: Some(snapshot_part::Part::Head(SnapshotHead {
            envelope: Some(envelope(1, 9)),
            meta: b"nor this".as_slice().into(),
            size,
        })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_misdirected_messages_are_refused_and_harm_nothing() {
    let world = World::founded().await;
    let channel = Endpoint::from_shared(format!("http://{}", world.addresses(1).rpc))
        .unwrap()
        .connect_lazy();
    let mut raft = RaftClient::new(channel.clone());

    let code = |answer: Result<_, tonic::Status>| answer.map(|_: tonic::Response<_>| ()).unwrap_err().code();
    assert_eq!(code(soon(raft.append(request(None))).await), Code::InvalidArgument);
    assert_eq!(
        code(soon(raft.append(request(Some(envelope(2, 9))))).await),
        Code::FailedPrecondition
    );
    let elsewhere = RaftEnvelope {
        deployment: "other".to_owned(),
        ..envelope(1, 9)
    };
    assert_eq!(
        code(soon(raft.vote(request(Some(elsewhere)))).await),
        Code::FailedPrecondition
    );
    assert_eq!(
        code(soon(raft.vote(request(Some(envelope(1, 9))))).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(soon(raft.pre_vote(request(Some(envelope(1, 9))))).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(soon(raft.transfer_leader(request(Some(envelope(1, 9))))).await),
        Code::InvalidArgument
    );
    // Not the store that region 2 has greeted from meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let impostor = RaftEnvelope {
        from: 2,
        ..envelope(1, 9)
    };
    assert_eq!(
        code(soon(raft.vote(request(Some(impostor)))).await),
        Code::PermissionDenied
    );

    let parts = |parts: Vec<SnapshotPart>| futures_util::stream::iter(parts);
    assert_eq!(code(soon(raft.snapshot(parts(vec![]))).await), Code::InvalidArgument);
    assert_eq!(
        code(soon(raft.snapshot(parts(vec![SnapshotPart { part: None }]))).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(soon(raft.snapshot(parts(vec![head(1)]))).await),
        Code::InvalidArgument
    );

    let mut directory = DirectoryClient::new(channel);
    let propose = ProposeRequest {
        deployment: "test".to_owned(),
        command: b"nor that".as_slice().into(),
        passed_on: false,
    };
    assert_eq!(
        code(
            soon(directory.propose(propose))
                .await
                .map(|_| tonic::Response::new(Default::default()))
        ),
        Code::InvalidArgument
    );

    soon(world.node(1).state_linearizable()).await.unwrap();
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_about_all_slots_goes_through_and_a_larger_one_is_refused() {
    let world = World::founded().await;
    let follower = world.follower().await;
    let slots: Vec<Slot> = (0..60).flat_map(|_| Slot::all()).collect();
    let too_large = Command::FailOver { slots, to: None };
    let error = soon(world.node(follower).propose(too_large)).await.unwrap_err();
    assert!(matches!(error, DirectoryError::TooLarge { .. }), "{error}");

    // All slots at once, each of them decided on a state that never was: the longest answer.
    let changes = Slot::all().map(|slot| InSyncChange {
        slot,
        epoch: 1 << 40,
        version: 1 << 40,
        opening: 1 << 40,
        set: vec![RegionId(1 << 40); 5],
    });
    let stale = Command::ChangeInSync {
        home: RegionId(1),
        changes: changes.collect(),
    };
    let applied = soon(world.node(follower).propose(stale)).await.unwrap();
    assert_eq!(applied.refused.len(), 4_096);
    world.close().await;
}
