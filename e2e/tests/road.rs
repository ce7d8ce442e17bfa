//! The whole road: build, push, wipe, pull, run.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use e2e::{Registry, World};

const DOCKERFILE: &str = "\
FROM busybox AS build
WORKDIR /src
COPY greeting.txt .
RUN tr a-z A-Z <greeting.txt >/greeting && mkdir -p /var/lib/app && touch /var/lib/app/own && chown -R 1000:1000 /var/lib/app
FROM busybox
ENV NAME=road
COPY --from=build /greeting /etc/greeting
COPY --from=build /var/lib/app /var/lib/app
USER 1000:1000
WORKDIR /var/lib/app
CMD [\"sh\", \"-c\", \"cat /etc/greeting; id -u; pwd; echo $NAME; stat -c %u own\"]
";

fn image_id(world: &World, name: &str) -> String {
    let inspected: serde_json::Value =
        serde_json::from_str(&world.rbuild(&["inspect", name]).stdout).unwrap();
    inspected[0]["Id"].as_str().unwrap().to_owned()
}

#[test]
fn privileged_an_image_runs_the_same_after_push_and_pull() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/team/road:1", registry.host());
    let expected = "HELLO\n1000\n/var/lib/app\nroad\n1000\n";

    let built = world.build(&name, DOCKERFILE, &[("greeting.txt", "hello\n")]);
    assert_eq!(world.rrun(&["run", "--rm", &name]).stdout, expected);

    let pushed = world.rbuild(&["push", &name]);
    let reference = pushed.text().lines().last().unwrap().to_owned();
    assert!(reference.contains("@sha256:"), "{reference}");

    world.rbuild(&["rmi", &name]);
    world.rbuild(&["prune", "--all", "--force"]);
    assert_eq!(world.rbuild(&["images", "-q"]).text(), "", "the wiped store holds no image");

    world.rbuild(&["pull", &name]);
    assert_eq!(image_id(&world, &name), built, "the image keeps its id");
    assert_eq!(world.rrun(&["run", "--rm", &name]).stdout, expected);

    // The digest that push printed names the same image.
    world.rbuild(&["pull", &reference]);
    assert_eq!(image_id(&world, &reference), built);
}

#[test]
fn privileged_run_pulls_an_image_that_is_missing() {
    let maker = World::with_busybox();
    let registry = Registry::start(&maker.path("registry"));
    let name = format!("{}/lazy", registry.host());
    maker.build(&name, "FROM busybox\nCMD [\"echo\", \"pulled\"]\n", &[]);
    maker.rbuild(&["push", &name]);

    let user = World::new();
    assert_eq!(user.rrun(&["run", "--rm", &name]).stdout, "pulled\n");
    assert_eq!(
        user.try_rrun(&["run", "--rm", "--pull", "never", &format!("{}/other", registry.host())])
            .code(),
        125
    );
}

#[test]
fn privileged_pushing_again_sends_nothing_new_and_keeps_the_digest() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/again:1", registry.host());
    world.build(&name, "FROM busybox\nRUN echo 1 >/one\n", &[]);
    let first = world.rbuild(&["push", &name]).text().to_owned();
    let second = world.rbuild(&["push", &name]).text().to_owned();
    assert_eq!(first, second);
    // Another repository of the registry takes the layers by mounting them.
    let other = format!("{}/elsewhere:1", registry.host());
    world.rbuild(&["push", &name, &other]);
    assert_eq!(world.rbuild(&["pull", &other]).code(), 0);
}

#[test]
fn privileged_a_saved_image_loads_into_another_store() {
    let world = World::with_busybox();
    let id = world.build(
        "saved:1",
        "FROM busybox\nRUN echo kept >/kept\nCMD [\"cat\", \"/kept\"]\n",
        &[],
    );
    let archive = world.path("saved.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "saved:1"]);

    let other = World::new();
    other.rbuild(&["load", "-i", archive.to_str().unwrap()]);
    assert_eq!(image_id(&other, "saved:1"), id);
    assert_eq!(other.rrun(&["run", "--rm", "saved:1"]).stdout, "kept\n");
}
