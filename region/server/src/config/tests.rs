use std::{fs, path::Path};

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

fn flag(key: &str, text: &str) -> (String, String, String) {
    (key.to_owned(), text.to_owned(), format!("--set {key}"))
}

fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.toml");
    fs::write(&path, text).unwrap();
    (
        folder,
        Sources {
            file: Some(path),
            ..Sources::default()
        },
    )
}

#[test]
fn defaults_are_valid_and_say_that_they_are_defaults() {
    let effective = load(&Sources::default()).unwrap();
    assert_eq!(effective.config.node.base_port, 7400);
    assert_eq!(effective.origin("node.base_port"), "default");
}

#[test]
fn each_source_overrides_the_one_before_it_and_no_other_key() {
    let (_folder, mut sources) = with_file("[slot]\nqueue_len_max = 1\nbatch_len_max = 2\nlog_entries_kept = 3\n");
    sources.environment = environment(&[
        ("ANTIPHON_SLOT__BATCH_LEN_MAX", "20"),
        ("ANTIPHON_SLOT__LOG_ENTRIES_KEPT", "30"),
    ]);
    sources.flags = vec![flag("slot.log_entries_kept", "300")];
    let effective = load(&sources).unwrap();
    let slot = &effective.config.slot;
    assert_eq!(
        (slot.queue_len_max, slot.batch_len_max, slot.log_entries_kept),
        (1, 20, 300)
    );
    assert_eq!(slot.entry_bytes_max, Config::default().slot.entry_bytes_max);
    let file = sources.file.unwrap();
    assert_eq!(
        effective.origin("slot.queue_len_max"),
        format!("file {}", file.display())
    );
    assert_eq!(
        effective.origin("slot.batch_len_max"),
        "environment variable ANTIPHON_SLOT__BATCH_LEN_MAX"
    );
    assert_eq!(
        effective.origin("slot.log_entries_kept"),
        "flag --set slot.log_entries_kept"
    );
    assert_eq!(effective.origin("slot.entry_bytes_max"), "default");
}

#[test]
fn an_unknown_key_is_named_with_what_set_it() {
    let (_folder, sources) = with_file("[slot]\nqueue_length = 1\n");
    let error = load(&sources).unwrap_err().to_string();
    assert!(
        error.contains("`slot.queue_length`") && error.contains("some.toml"),
        "{error}"
    );

    for (name, key) in [
        ("ANTIPHON_SLOT__NOPE", "slot.nope"),
        ("ANTIPHON_NOPE", "nope"),
        ("ANTIPHON_SLOT_NOPE", "slot_nope"),
    ] {
        let sources = Sources {
            environment: environment(&[(name, "1")]),
            ..Sources::default()
        };
        let error = load(&sources).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")) && error.contains(name), "{error}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let sources = Sources {
        environment: environment(&[("PATH", "x"), ("ANTIPHON_PASSWORD", "x")]),
        ..Sources::default()
    };
    assert!(load(&sources).is_ok());
}

#[test]
fn a_wrong_type_is_named_with_what_set_it() {
    for (key, text) in [
        ("node.base_port", "many"),
        ("node.base_port", "70000"),
        ("slot.queue_len_max", "-1"),
        ("slot", "3"),
        ("store.engine", "paper"),
    ] {
        let sources = Sources {
            flags: vec![flag(key, text)],
            ..Sources::default()
        };
        let error = load(&sources).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`{key}`")) && error.contains("flag --set"),
            "{error}"
        );
    }
}

#[test]
fn a_value_out_of_its_limits_is_named_with_its_limit() {
    for (key, text) in [
        ("node.region", "Not A Name"),
        ("telemetry.trace_ratio", "1.5"),
        ("slot.queue_len_max", "0"),
        ("node.base_port", "65535"),
        ("world.regions", "a,B"),
        ("world.regions", "a"),
        ("world.regions", "a,b,a"),
        ("world.regions", "a,b,c,d,e,f,g,h,i,j"),
        ("world.restart_wait_ms_max", "0"),
        ("world.nodes", "0"),
        ("world.nodes", "6"),
        ("node.id", "no.dots"),
        ("node.voter", "false"),
        ("node.rpc_address", "nowhere"),
        ("message.text_bytes_max", "65536"),
        ("identity.key_publish_ahead_s", "60"),
        ("edge.presence_interval_ms", "60000"),
    ] {
        let sources = Sources {
            flags: vec![flag(key, text)],
            ..Sources::default()
        };
        let error = load(&sources).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")) && error.contains("must"), "{error}");
    }
}

#[test]
fn what_goes_with_several_regions_alone_and_with_one_alone_is_kept_apart() {
    for (regions, key, text, fits) in [
        ("", "world.wan", "true", false),
        ("a,b", "world.wan", "true", true),
        ("", "world.nodes", "2", false),
        ("", "node.region", "a", true),
        ("a,b", "node.region", "a", false),
    ] {
        let sources = Sources {
            flags: vec![flag("world.regions", regions), flag(key, text)],
            ..Sources::default()
        };
        let loaded = load(&sources);
        assert_eq!(loaded.is_ok(), fits, "{regions:?} with {key}");
        if let Err(error) = loaded {
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        }
    }
}

#[test]
fn variables_of_the_operators_commands_are_no_settings() {
    let sources = Sources {
        environment: environment(&[("ANTIPHON_ADMIN", "http://a"), ("ANTIPHON_WORLD", "http://b")]),
        ..Sources::default()
    };
    assert!(load(&sources).is_ok());
}

#[test]
fn a_list_is_names_divided_by_commas_wherever_it_comes_from() {
    let (_folder, mut sources) = with_file("[world]\nregions = [\"a\", \"b\"]\n");
    let regions = |sources: &Sources| load(sources).unwrap().config.world.regions;
    assert_eq!(regions(&sources), ["a", "b"]);
    sources.environment = environment(&[("ANTIPHON_WORLD__REGIONS", "c, 7")]);
    assert_eq!(regions(&sources), ["c", "7"]);
    sources.flags = vec![flag("world.regions", "")];
    assert!(regions(&sources).is_empty());
}

#[test]
fn a_world_needs_room_for_its_ports() {
    for (regions, port, fits) in [("a,b", "65335", true), ("a,b", "65336", false), ("", "65534", true)] {
        let sources = Sources {
            flags: vec![flag("world.regions", regions), flag("node.base_port", port)],
            ..Sources::default()
        };
        assert_eq!(load(&sources).is_ok(), fits, "{regions} from {port}");
    }
}

#[test]
fn text_that_looks_like_a_number_may_be_a_name() {
    let sources = Sources {
        flags: vec![flag("node.region", "7"), flag("world.regions", "")],
        ..Sources::default()
    };
    assert_eq!(load(&sources).unwrap().config.node.region, "7");
}

#[test]
fn a_file_that_is_named_must_be_there_and_readable() {
    let sources = Sources {
        file: Some("/nowhere/some.toml".into()),
        ..Sources::default()
    };
    assert!(load(&sources).unwrap_err().to_string().contains("/nowhere/some.toml"));
    let (_folder, sources) = with_file("[slot\n");
    assert!(load(&sources).unwrap_err().to_string().contains("some.toml"));
}

#[test]
fn what_is_shown_names_each_origin_and_hides_secrets() {
    let sources = Sources {
        environment: environment(&[("ANTIPHON_TELEMETRY__OTLP_AUTHORIZATION", "Bearer hush")]),
        flags: vec![flag("node.base_port", "9000")],
        ..Sources::default()
    };
    let effective = load(&sources).unwrap();
    let shown = show(&effective);
    assert!(
        !shown.contains("hush") && !format!("{:?}", effective.config).contains("hush"),
        "{shown}"
    );
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("base_port = 9000") && line.ends_with("# flag --set node.base_port")),
        "{shown}"
    );
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("# otlp_authorization = (hidden)")),
        "{shown}"
    );
}

#[test]
fn what_is_shown_can_be_read_back() {
    let (_folder, sources) = with_file(&show(&load(&Sources::default()).unwrap()));
    let again = load(&sources).unwrap();
    assert_eq!(toml::to_string(&again.config).unwrap(), defaults());
}

#[test]
fn every_setting_has_words_and_a_section_with_words() {
    for line in reference::lines(&Config::default()) {
        assert!(!line.doc.is_empty(), "{} has no docs", line.path());
        assert!(!line.section_doc.is_empty(), "[{}] has no docs", line.section);
    }
    let known = defaults().lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(reference::lines(&Config::default()).len(), known);
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CONFIG.md");
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == reference(),
        "run: cargo run -- config --reference > docs/CONFIG.md"
    );
}

fn defaults() -> String {
    toml::to_string(&Config::default()).unwrap()
}

#[test]
fn foundationdb_takes_all_of_its_tls_files_and_a_prefix_that_can_be_one() {
    let refused = |settings: &[(&str, &str)]| {
        let sources = Sources {
            flags: settings.iter().map(|(key, text)| flag(key, text)).collect(),
            ..Sources::default()
        };
        load(&sources).err().map(|error| error.to_string())
    };
    let (certificate, key, ca) = (
        ("store.fdb_tls_certificate_file", "a.pem"),
        ("store.fdb_tls_key_file", "a.key"),
        ("store.fdb_tls_ca_file", "ca.pem"),
    );
    assert_eq!(refused(&[("store.engine", "fdb"), certificate, key, ca]), None);
    assert!(refused(&[certificate, ca]).unwrap().contains("store.fdb_tls_key_file"));
    assert!(refused(&[key]).unwrap().contains("store.fdb_tls_certificate_file"));
    for prefix in ["with\0zero", &"long".repeat(20)] {
        assert!(
            refused(&[("store.fdb_prefix", prefix)])
                .unwrap()
                .contains("store.fdb_prefix")
        );
    }
}

#[test]
fn a_certificate_of_the_edge_has_its_key_and_addresses_are_whole() {
    let refused = |settings: &[(&str, &str)]| {
        let sources = Sources {
            flags: settings.iter().map(|(key, text)| flag(key, text)).collect(),
            ..Sources::default()
        };
        load(&sources).err().map(|error| error.to_string())
    };
    let (certificate, key) = (("edge.tls_certificate_file", "a.pem"), ("edge.tls_key_file", "a.key"));
    assert_eq!(
        refused(&[certificate, key, ("edge.quic_url", "quic://edge.example:443")]),
        None
    );
    for settings in [&[certificate][..], &[key]] {
        assert!(refused(settings).unwrap().contains("edge.tls_key_file"));
    }
    for url in ["edge.example:443", "quic://edge.example"] {
        assert!(refused(&[("edge.quic_url", url)]).unwrap().contains("quic://HOST:PORT"));
    }
    assert!(
        refused(&[("edge.web_transport_url", "edge.example")])
            .unwrap()
            .contains("https://HOST")
    );
}
