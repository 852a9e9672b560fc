use std::{collections::BTreeSet, path::Path};

use antiphon_kv::Limits;
use serde_json::Value;

use super::{ConfigError, Effective, sections::NodeSection};
use crate::{
    deployment,
    world::{NODES_MAX, REGIONS_MAX, ports_end},
};

/// Whole numbers that may be 0, which their docs say what it means; any other 0 would stop what it bounds.
const MAY_BE_ZERO: [&str; 14] = [
    "deployment.region_id",
    "slot.log_entries_kept",
    "slot.patience_ms",
    "identity.refresh_reuse_grace_ms",
    "identity.password_running_max",
    "edge.idle_timeout_ms",
    "edge.reconnect_window_ms",
    "edge.resume_push_max",
    "edge.trusted_proxies",
    "edge.handshake_rate_per_second",
    "edge.address_rate_per_second",
    "edge.credential_rate_per_second",
    "edge.user_rate_per_second",
    "edge.session_rate_per_second",
];

const FDB_PREFIX_BYTES_MAX: usize = 64;

/// Refuses values that no part could work with.
pub(super) fn check(effective: &Effective) -> Result<(), ConfigError> {
    let config = &effective.config;
    let require = |key: &str, holds: bool, rule: &str| {
        if holds {
            return Ok(());
        }
        Err(ConfigError::Value {
            key: key.to_owned(),
            origin: effective.origin(key),
            rule: rule.to_owned(),
        })
    };
    require(
        "node.region",
        is_name(&config.node.region),
        "must be 1 to 32 of a-z, 0-9 and '-'",
    )?;
    require(
        "node.id",
        is_name(&config.node.id),
        "must be 1 to 32 of a-z, 0-9 and '-'",
    )?;
    require(
        "node.voter",
        config.node.voter || !config.deployment.regions.is_empty(),
        "must be true without deployment.regions, which names the voters that a node without one follows",
    )?;
    require(
        "node.rpc_address",
        config.node.rpc_address.is_empty() || is_address(&config.node.rpc_address),
        "must be HOST:PORT",
    )?;
    // A region of a deployment has no world around it, whatever the default is.
    let no_world = Vec::new();
    let regions = if config.deployment.regions.is_empty() {
        &config.world.regions
    } else {
        &no_world
    };
    require(
        "world.regions",
        regions.iter().all(|region| is_name(region)),
        "must be names of 1 to 32 of a-z, 0-9 and '-' each",
    )?;
    require(
        "world.regions",
        regions.is_empty() || (2..=REGIONS_MAX).contains(&regions.len()),
        "must name 2 to 9 regions; for one leave it empty and set node.region",
    )?;
    require(
        "world.regions",
        regions.iter().collect::<BTreeSet<_>>().len() == regions.len(),
        "must not name a region twice",
    )?;
    require(
        "node.region",
        regions.is_empty() || config.node.region == NodeSection::default().region,
        "names a region that runs alone, so world.regions must be empty: `--regions NAME` sets both",
    )?;
    require(
        "world.wan",
        !config.world.wan || !regions.is_empty(),
        "must be false without world.regions: one region has no links",
    )?;
    require(
        "world.nodes",
        (1..=NODES_MAX).contains(&config.world.nodes),
        "must be 1 to 5",
    )?;
    require(
        "world.nodes",
        config.world.nodes == 1 || !regions.is_empty(),
        "must be 1 without world.regions: a region that runs alone has one node",
    )?;
    require(
        "node.base_port",
        ports_end(config.node.base_port, regions.len()) <= u32::from(u16::MAX),
        "must leave 100 ports for each of world.regions",
    )?;
    require(
        "node.base_port",
        config.node.base_port < u16::MAX,
        "must be at most 65534: metrics and health are on the port after it",
    )?;
    check_deployment(effective)?;
    check_transports(effective)?;
    let store = &config.store;
    require(
        "store.fdb_prefix",
        store.fdb_prefix.len() <= FDB_PREFIX_BYTES_MAX && !store.fdb_prefix.contains('\0'),
        "must be at most 64 bytes without a zero among them: it is part of every key",
    )?;
    let tls_files = [
        ("store.fdb_tls_certificate_file", &store.fdb_tls_certificate_file),
        ("store.fdb_tls_key_file", &store.fdb_tls_key_file),
        ("store.fdb_tls_ca_file", &store.fdb_tls_ca_file),
    ];
    let has_tls = tls_files.iter().any(|(_, file)| !file.as_os_str().is_empty());
    for (key, file) in tls_files {
        require(
            key,
            !has_tls || !file.as_os_str().is_empty(),
            "must be set, as the other two of store.fdb_tls_* are",
        )?;
    }
    require(
        "telemetry.trace_ratio",
        (0.0..=1.0).contains(&config.telemetry.trace_ratio),
        "must be between 0 and 1",
    )?;
    let endpoint = &config.telemetry.otlp_endpoint;
    require(
        "telemetry.otlp_endpoint",
        endpoint.is_empty() || endpoint.starts_with("http://") || endpoint.starts_with("https://"),
        "must begin with http:// or https://",
    )?;
    require(
        "slot.entry_bytes_max",
        config.slot.entry_bytes_max < Limits::default().value_bytes_max,
        "must be below 100000: an entry is one value of the store",
    )?;
    require(
        "conversation.founding_bytes_max",
        config.conversation.founding_bytes_max < config.slot.entry_bytes_max,
        "must be below slot.entry_bytes_max: a group is founded in one entry",
    )?;
    require(
        "message.text_bytes_max",
        config.message.text_bytes_max < config.edge.frame_bytes_max.min(config.slot.entry_bytes_max),
        "must be below edge.frame_bytes_max and slot.entry_bytes_max, which hold the text",
    )?;
    require(
        "identity.key_publish_ahead_s",
        config.identity.key_publish_ahead_s.saturating_mul(1_000) > config.edge.jwks_interval_ms,
        "must be longer than edge.jwks_interval_ms, or edges meet tokens of a key they have not read",
    )?;
    require(
        "edge.presence_interval_ms",
        config.edge.presence_interval_ms < config.presence.restored_ms.min(config.presence.lease_ms),
        "must be below presence.lease_ms and presence.restored_ms, or users flap between two reports",
    )?;
    for key in zeros(effective) {
        require(&key, MAY_BE_ZERO.contains(&key.as_str()), "must be at least 1")?;
    }
    Ok(())
}

fn check_deployment(effective: &Effective) -> Result<(), ConfigError> {
    let config = &effective.config;
    let section = &config.deployment;
    let refuse = |key: &str, rule: String| {
        let origin = effective.origin(key);
        let key = key.to_owned();
        Err(ConfigError::Value { key, origin, rule })
    };
    let mut names = BTreeSet::new();
    for text in &section.regions {
        let read = deployment::region(text).filter(|(name, addresses)| is_name(name) && is_address(&addresses.rpc));
        let Some((name, _)) = read else {
            let rule = format!("holds {text:?}, which is not NAME HOST:PORT URL");
            return refuse("deployment.regions", rule);
        };
        if !names.insert(name.clone()) {
            return refuse("deployment.regions", format!("names {name} twice"));
        }
    }
    if !names.is_empty() && !names.contains(&config.node.region) {
        let rule = format!("does not name node.region, {}", config.node.region);
        return refuse("deployment.regions", rule);
    }
    if !names.is_empty() && !config.world.regions.is_empty() && !effective.is_default("world.regions") {
        let rule = "must be empty with world.regions: a world is a deployment of its own".to_owned();
        return refuse("deployment.regions", rule);
    }
    let files = [
        ("deployment.ca_file", &section.ca_file),
        ("deployment.certificate_file", &section.certificate_file),
        ("deployment.key_file", &section.key_file),
    ];
    for (key, file) in files {
        if !names.is_empty() && file.as_os_str().is_empty() {
            return refuse(
                key,
                "must be set: regions believe each other by certificates alone".to_owned(),
            );
        }
    }
    if config.placement.min_in_sync > config.placement.in_sync_copies {
        let rule = format!(
            "must be at most placement.in_sync_copies, {}",
            config.placement.in_sync_copies
        );
        return refuse("placement.min_in_sync", rule);
    }
    for text in &config.placement.allowed {
        let Some((home, regions)) = deployment::allowed(text) else {
            let rule = format!("holds {text:?}, which is not HOME: REGION REGION");
            return refuse("placement.allowed", rule);
        };
        names.extend(config.world.regions.iter().cloned());
        if names.is_empty() {
            continue;
        }
        if let Some(unknown) = regions.iter().chain([&home]).find(|region| !names.contains(*region)) {
            return refuse(
                "placement.allowed",
                format!("names {unknown}, which is no region of this deployment"),
            );
        }
    }
    Ok(())
}

fn is_name(region: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&region.len()) && region.bytes().all(of_name)
}

fn check_transports(effective: &Effective) -> Result<(), ConfigError> {
    let edge = &effective.config.edge;
    let (certificate, key) = (&edge.tls_certificate_file, &edge.tls_key_file);
    let has = |file: &Path| !file.as_os_str().is_empty();
    let rules = [
        (
            "edge.tls_key_file",
            has(certificate) == has(key),
            "must be set with edge.tls_certificate_file, and only then",
        ),
        (
            "edge.quic_url",
            edge.quic_url.is_empty() || edge.quic_url.strip_prefix("quic://").is_some_and(is_address),
            "must be quic://HOST:PORT",
        ),
        (
            "edge.web_transport_url",
            edge.web_transport_url.is_empty() || edge.web_transport_url.starts_with("https://"),
            "must be https://HOST:PORT/v1/connect",
        ),
    ];
    match rules.into_iter().find(|(_, holds, _)| !holds) {
        None => Ok(()),
        Some((key, _, rule)) => Err(ConfigError::Value {
            key: key.to_owned(),
            origin: effective.origin(key),
            rule: rule.to_owned(),
        }),
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn zeros(effective: &Effective) -> Vec<String> {
    let tree = serde_json::to_value(&effective.config).unwrap_or_default();
    let sections = tree.as_object().into_iter().flatten();
    sections
        .flat_map(|(section, keys)| {
            keys.as_object()
                .into_iter()
                .flatten()
                .map(move |(key, value)| (section, key, value))
        })
        .filter(|(_, _, value)| value.as_u64() == Some(0) && matches!(value, Value::Number(_)))
        .map(|(section, key, _)| format!("{section}.{key}"))
        .collect()
}
