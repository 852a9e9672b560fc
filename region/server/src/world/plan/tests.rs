use super::*;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn no_two_ports_of_the_largest_world_are_the_same() {
    let many: Vec<String> = (0..REGIONS_MAX).map(|at| format!("r{at}")).collect();
    let world = World::new(&many, 7400);
    let mut ports = vec![world.admin_port];
    for region in &world.regions {
        let first = 7400 + 100 * region.index;
        assert_eq!((region.http_port, region.rpc_port), (first, first + 4));
        // Offsets 0 to 4 are the region's own, whether it listens on them today or not.
        ports.extend(first..=first + 4);
        ports.extend(region.links.values());
    }
    let distinct: BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!(distinct.len(), ports.len());
    assert_eq!(ports.len(), 1 + 9 * 5 + 9 * 8);
    let last = ports.iter().copied().max().unwrap();
    assert!(u32::from(last) < ports_end(7400, REGIONS_MAX), "{last}");
}

#[test]
fn the_nodes_of_the_largest_world_have_ports_of_their_own_and_are_dialled_where_links_listen() {
    let many: Vec<String> = (0..REGIONS_MAX).map(|at| format!("r{at}")).collect();
    let world = World::new(&many, 7400).with_nodes(NODES_MAX);
    let mut ports = vec![world.admin_port];
    for region in &world.regions {
        for node in world.nodes_of(region) {
            ports.extend(node.http_port..=node.rpc_port);
        }
    }
    let links = world.links(false);
    ports.extend(links.iter().map(|link| link.listen.port()));
    assert_eq!(ports.len(), 1 + 9 * 5 * 5 + 9 * 8 * 5);
    let distinct: BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!(distinct.len(), ports.len());
    assert!(ports.iter().all(|port| u32::from(*port) < ports_end(7400, REGIONS_MAX)));
    for link in links {
        let from = world.region(&link.from).unwrap().index;
        let dialled = detour(7400, from, &link.target.to_string());
        assert_eq!(dialled, Some(link.listen), "{link:?}");
        let to = world.region(&link.to).unwrap().index;
        assert_eq!(detour(7400, to, &link.target.to_string()), None, "within a region");
    }
}

#[test]
fn a_node_is_called_and_kept_by_region_and_number() {
    let world = World::new(&names(&["a", "b"]), 7400).with_nodes(2);
    let nodes: Vec<_> = world.regions.iter().flat_map(|region| world.nodes_of(region)).collect();
    let of = |node: &NodePlan| (node.name.clone(), node.is_first(), node.http_port, node.rpc_port);
    assert_eq!(
        nodes.iter().map(of).collect::<Vec<_>>(),
        [
            ("a".to_owned(), true, 7400, 7404),
            ("a.2".to_owned(), false, 7410, 7414),
            ("b".to_owned(), true, 7500, 7504),
            ("b.2".to_owned(), false, 7510, 7514),
        ]
    );
    assert_eq!(nodes[3].folder(Path::new("data")), Path::new("data/b.2"));
}

#[test]
fn a_world_is_written_as_ever_and_remembers_further_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let world = World::new(&names(&["a", "b"]), 7400);
    let file = world.keep(data).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains("nodes"));
    assert_eq!(nodes_in(data).unwrap(), Some(1));
    world.with_nodes(3).keep(data).unwrap();
    assert_eq!(nodes_in(data).unwrap(), Some(3));
}

#[test]
fn each_ordered_pair_has_a_link_to_the_port_between_nodes() {
    let world = World::new(&names(&["us-east", "eu-central", "ap-northeast"]), 9000);
    let near = world.links(false);
    assert_eq!(near.len(), 6);
    assert!(near.iter().all(|link| link.settings == LinkSettings::default()));
    let far = world.links(true);
    let link = far
        .iter()
        .find(|link| (link.from.as_str(), link.to.as_str()) == ("us-east", "ap-northeast"));
    let link = link.unwrap();
    assert_eq!((link.listen.port(), link.target.port()), (9052, 9204));
    assert_eq!((link.settings.delay_ms, link.settings.jitter_ms), (75, 3));
    assert!(
        far.iter()
            .all(|link| link.listen.ip().is_loopback() && link.target.ip().is_loopback())
    );
}

#[test]
fn a_world_is_found_again_whatever_the_order_of_its_regions() {
    let folder = tempfile::tempdir().unwrap();
    let made = World::find(folder.path(), &names(&["a", "b", "c"]), 7400).unwrap();
    made.keep(folder.path()).unwrap();
    let again = World::find(folder.path(), &names(&["c", "a", "b"]), 7400).unwrap();
    assert_eq!(made, again);
    assert_eq!(again.region("c").unwrap().index, 2);
}

#[test]
fn another_world_than_the_one_that_is_there_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    World::new(&names(&["a", "b"]), 7400).keep(folder.path()).unwrap();
    for (asked, port, advice) in [
        (&["a", "b", "c"][..], 7400, "--regions a,b,"),
        (&["a"], 7400, "--regions a,b,"),
        (&["a", "c"], 7400, "--regions a,b,"),
        (&["a", "b"], 9000, "--base-port 7400,"),
    ] {
        let error = World::find(folder.path(), &names(asked), port).unwrap_err().to_string();
        assert!(error.contains(advice) && error.contains("--data"), "{error}");
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_folder_holds_a_world_or_a_region_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    assert!(none_in(data).is_ok());
    assert_eq!(names_in(data).unwrap(), None);
    fs::create_dir(data.join("local")).unwrap();
    fs::write(data.join("local/lock"), "1").unwrap();
    let error = World::find(data, &names(&["a", "b"]), 7400).unwrap_err().to_string();
    assert!(
        error.contains("--regions local,") && error.contains("--data"),
        "{error}"
    );

    let folder = tempfile::tempdir().unwrap();
    World::new(&names(&["a", "b"]), 7400).keep(folder.path()).unwrap();
    assert_eq!(names_in(folder.path()).unwrap(), Some(names(&["a", "b"])));
    let error = none_in(folder.path()).unwrap_err().to_string();
    assert!(error.contains("--regions a,b,") && error.contains("--data"), "{error}");
}

#[test]
fn what_is_dialled_is_where_the_links_listen() {
    let mut world = World::new(&names(&["a", "b", "c"]), 7400);
    world = world.with("d").unwrap();
    for link in world.links(false) {
        let from = world.region(&link.from).unwrap().index;
        assert_eq!(
            detour(7400, from, &link.target.to_string()),
            Some(link.listen),
            "{link:?}"
        );
    }
    for elsewhere in [
        "127.0.0.1:7404",
        "127.0.0.1:7505",
        "127.0.0.1:7554",
        "127.0.0.1:80",
        "10.0.0.1:7504",
        "example.org:7504",
    ] {
        assert_eq!(detour(7400, 0, elsewhere), None, "{elsewhere}");
    }
}

#[test]
fn regions_come_and_go_and_no_index_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(&names(&["a", "b", "c"]), 7400);
    let grown = world.with("d").unwrap().joined("d", 4);
    assert!(grown.with("d").is_err());
    assert_eq!(grown.links(false).len(), 12);
    let shrunk = grown.without("d");
    assert_eq!(
        (shrunk.links(false).len(), shrunk.names()),
        (6, names(&["a", "b", "c"]))
    );
    let path = folder.path().join(WORLD_FILE);
    shrunk.write(&path).unwrap();
    let again = World::read(&path)
        .unwrap()
        .without("a")
        .with("a")
        .unwrap()
        .joined("a", 5);
    let a = again.region("a").unwrap();
    assert_eq!((a.index, a.id(), again.region("b").unwrap().id()), (4, 5, 2));
    let full = (0..4).fold(again, |world, at| world.with(&format!("r{at}")).unwrap());
    assert!(full.with("one-more").unwrap_err().to_string().contains("room for 9"));
}

#[test]
fn a_world_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(WORLD_FILE), "base_port = 1\nbase").unwrap();
    let error = format!(
        "{:#}",
        World::find(folder.path(), &names(&["a", "b"]), 7400).unwrap_err()
    );
    assert!(error.contains(WORLD_FILE), "{error}");
}
