use std::time::Duration;

use antiphon_client::Transport;
use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::{
    Figures, Say, Server,
    crowd::{Back, Crowd, Member},
    figures::{float, histogram},
    people::{self, Progress, Team},
    write::write_to_all,
};

/// Devices that are away while somebody writes to them, and all come back at the same moment.
#[derive(Debug, Clone)]
pub struct AbsenceOptions {
    /// As the figures call it.
    pub scenario: &'static str,
    /// What they are connected over.
    pub transport: Transport,
    /// How many writers; each has listeners and conversations of its own.
    pub teams: usize,
    /// Listeners of each.
    pub listeners: usize,
    /// Conversations of each, among all of the team.
    pub conversations: usize,
    /// Messages that each conversation gets meanwhile.
    pub missed: u64,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How often they go away and come back.
    pub times: u16,
    /// How long the server is left alone each time before its memory is read.
    pub settle: Duration,
}

/// How long it takes until everybody who returns has everything, each time.
///
/// # Errors
/// When the teams cannot be made, or a device is not welcomed within five minutes.
pub async fn absence(server: &Server, options: &AbsenceOptions, say: Say) -> Result<Vec<Figures>> {
    let teams = people::teams(server, options.teams, options.listeners, options.conversations, say).await?;
    let mut members = Vec::new();
    for Team {
        members: users,
        conversation_ids,
        ..
    } in &teams
    {
        members.extend(
            users
                .iter()
                .map(|user| (user.access_token.clone(), conversation_ids.clone())),
        );
    }
    let member = |(at, (access_token, conversation_ids))| Member {
        url: server.url(at).to_owned(),
        access_token,
        conversation_ids,
    };
    let members: Vec<Member> = members.into_iter().enumerate().map(member).collect();
    let count = members.len();

    sleep(options.settle).await;
    let empty = server.usage()?;
    let mut crowd = Crowd::connect(server, options.transport, &members, say).await?;
    sleep(options.settle).await;
    let full = server.usage()?;
    let added_bytes = full.rss_bytes.saturating_sub(empty.rss_bytes);
    let mut all = Vec::new();
    let mut before = full;
    say(&format!("{count} devices go away"));
    crowd.leave().await?;
    for time in 1..=options.times {
        let written = options.missed * u64::from(time);
        write_to_all(server, &teams, written - options.missed..written, options.text_bytes).await?;

        say(&format!("{count} devices come back"));
        let (server_before, load_before) = (server.usage()?, crowd.usage()?);
        let fsyncs_before = server.fsyncs().await?;
        let began = Instant::now();
        let mut latencies = histogram();
        let (mut refused, mut lost) = (0, 0);
        let progress = Progress::new("devices have everything", count, say);
        let is_back = |back: Back| {
            latencies.saturating_record(back.whole_after_us);
            refused += back.refused;
            lost += back.lost;
            progress.step();
        };
        let coming = crowd.come_back(written, is_back);
        let ((), rss_bytes_max) = server.watched().rss_max_while(coming).await?;
        let all_back = began.elapsed();
        let (server_used, load_used) = (server.usage()? - server_before, crowd.usage()? - load_before);
        let fsyncs = server
            .fsyncs()
            .await?
            .zip(fsyncs_before)
            .map(|(after, before)| after - before);
        sleep(options.settle).await;
        crowd.answer().await?;
        let back = server.usage()?;

        say(&format!("{count} devices go away, time {time} of {}", options.times));
        crowd.leave().await?;
        sleep(options.settle).await;
        let after = server.usage()?;

        let messages = u64::try_from(count * options.conversations)? * options.missed;
        let mut figures = Figures {
            scenario: options.scenario,
            transport: options.transport.name(),
            time: (options.times > 1).then_some(time),
            // What was lost the times before is missing still.
            deliveries_per_s: Some(float(messages.saturating_sub(lost)) / all_back.as_secs_f64()),
            all_back_ms: Some(all_back.as_secs_f64() * 1_000.0),
            connections: Some(count),
            bytes_per_connection: Some(added_bytes / u64::try_from(count.max(1))?),
            refused: Some(refused),
            lost: Some(lost),
            ..Figures::default()
        };
        figures.set_latencies(&latencies);
        figures.set_costs(messages, server_used, load_used);
        figures.fsyncs_per_message = fsyncs
            .filter(|_| messages > 0)
            .map(|fsyncs| float(fsyncs) / float(messages));
        figures.server_rss_bytes_empty = Some(empty.rss_bytes);
        figures.server_rss_bytes_before = Some(before.rss_bytes);
        figures.server_rss_bytes_max = Some(rss_bytes_max.max(back.rss_bytes));
        figures.server_rss_bytes = Some(back.rss_bytes);
        figures.server_rss_bytes_after = Some(after.rss_bytes);
        all.push(figures);
        before = back;
    }
    Ok(all)
}
