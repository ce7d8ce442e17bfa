use super::*;

fn volumes() -> (tempfile::TempDir, Volumes) {
    let dir = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(dir.path(), Containers::new(dir.path()));
    (dir, volumes)
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn make(volumes: &Volumes, text: &str) -> VolumeConfig {
    volumes.create(Some(name(text)), BTreeMap::new(), Timestamp::default()).unwrap()
}

#[test]
fn volumes_are_made_once_and_listed_by_name() {
    let (_dir, volumes) = volumes();
    assert_eq!(volumes.list().unwrap(), []);
    let labels = BTreeMap::from([("tier".to_owned(), "db".to_owned())]);
    let first = volumes.create(Some(name("web")), labels, Timestamp::default()).unwrap();
    fs::write(volumes.data(&name("web")).join("file"), "kept").unwrap();
    assert_eq!(make(&volumes, "web"), first, "it stays as it is");
    assert_eq!(fs::read_to_string(volumes.data(&name("web")).join("file")).unwrap(), "kept");
    make(&volumes, "db");
    let names: Vec<_> = volumes.list().unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, [name("db"), name("web")]);
    let error = volumes.find("other").unwrap_err();
    assert_eq!(error.to_string(), "no such volume: other");
    assert!(volumes.find("../containers").is_err(), "a name is no path");
}

#[test]
fn a_volume_without_a_name_is_anonymous() {
    let (_dir, volumes) = volumes();
    let volume = volumes.create(None, BTreeMap::new(), Timestamp::default()).unwrap();
    assert!(volume.is_anonymous());
    assert_eq!(volume.name.as_str().len(), 64);
    assert!(!make(&volumes, "named").is_anonymous());
}

#[test]
fn many_make_the_same_volume_at_once_and_all_have_it() {
    let (dir, volumes) = volumes();
    let made: Vec<VolumeConfig> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| make(&volumes, "shared"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(made.iter().all(|volume| volume == &made[0]));
    let mut left: Vec<_> = fs::read_dir(dir.path().join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".lock", "shared"]);
}

#[test]
fn what_is_removed_is_gone_with_its_files() {
    let (_dir, volumes) = volumes();
    let volume = make(&volumes, "old");
    fs::create_dir_all(volumes.data(&volume.name).join("a/b")).unwrap();
    volumes.remove(&volume).unwrap();
    volumes.remove(&volume).unwrap();
    assert_eq!(volumes.list().unwrap(), []);
    assert_eq!(volumes.entries().unwrap(), [".lock"]);
}

#[test]
fn what_killed_programs_have_left_is_swept_but_not_while_one_makes_a_container() {
    let (dir, volumes) = volumes();
    make(&volumes, "kept");
    for name in [".new-0", ".old-0"] {
        fs::create_dir_all(dir.path().join("volumes").join(name).join(DATA)).unwrap();
    }
    assert_eq!(volumes.list().unwrap().len(), 1, "they are no volumes");
    let held = volumes.hold().unwrap();
    volumes.sweep().unwrap();
    assert_eq!(volumes.entries().unwrap().len(), 4);
    drop(held);
    volumes.sweep().unwrap();
    let mut left = volumes.entries().unwrap();
    left.sort();
    assert_eq!(left, [".lock", "kept"]);
}

#[test]
fn a_newer_format_is_refused() {
    let (_dir, volumes) = volumes();
    let volume = make(&volumes, "new");
    let newer = VolumeConfig { version: VERSION + 1, ..volume };
    write_json(&volumes.dir(&newer.name).join("config.json"), &newer).unwrap();
    assert!(matches!(volumes.find("new"), Err(Error::StateVersion { found: 2, .. })));
}
