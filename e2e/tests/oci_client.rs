//! A second client, not ours, on our registry: the `oci-client` crate.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use e2e::{Registry, World};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{IMAGE_LAYER_GZIP_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};

fn client() -> Client {
    // reqwest panics where no provider of cryptography is installed; a second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    Client::try_from(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
        .unwrap()
}

#[test]
fn oci_client_moves_an_image_from_one_repository_to_another() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/first:1", registry.host());
    world.rbuild(&["push", "busybox", &name]);
    let second = format!("{}/second:1", registry.host());

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client();
        let from: Reference = name.parse().unwrap();
        let accepted = vec![IMAGE_LAYER_GZIP_MEDIA_TYPE, IMAGE_LAYER_MEDIA_TYPE];
        let image = client.pull(&from, &RegistryAuth::Anonymous, accepted).await.unwrap();
        assert_eq!(image.layers.len(), 1);
        let to: Reference = second.parse().unwrap();
        client
            .push(
                &to,
                &image.layers,
                image.config.clone(),
                &RegistryAuth::Anonymous,
                image.manifest.clone(),
            )
            .await
            .unwrap();
        let tags = client.list_tags(&to, &RegistryAuth::Anonymous, None, None).await.unwrap();
        assert_eq!(tags.tags, ["1"]);
    });

    let id = |name: &str| {
        world.rbuild(&["pull", name]);
        let inspected: serde_json::Value =
            serde_json::from_str(&world.rbuild(&["inspect", name]).stdout).unwrap();
        inspected[0]["Id"].clone()
    };
    assert_eq!(id(&name), id(&second), "the image is the same");
}
