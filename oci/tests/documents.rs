//! Laws and refusals of the documents: manifests, indexes and image configs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use oci::{
    Compression, Descriptor, Digest, Document, Error, ImageConfig, Index, Json, MAX_MANIFEST_BYTES,
    MAX_NESTING, Manifest, MediaType, Platform,
};
use proptest::prelude::*;

const SHA: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn descriptor(media_type: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{SHA}","size":3}}"#)
}

fn manifest_with(fields: &str) -> String {
    let config = descriptor("application/vnd.oci.image.config.v1+json");
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]{fields}}}"#)
}

fn index_with(fields: &str) -> String {
    format!(r#"{{"schemaVersion":2,"manifests":[]{fields}}}"#)
}

fn refusal(text: &str) -> String {
    Document::parse(text.as_bytes(), None).unwrap_err().to_string()
}

/// As `docker save` and Docker Hub have it, shortened.
const DOCKER_CONFIG: &str = r##"{
  "architecture": "amd64",
  "config": {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false,
    "ExposedPorts": {"80/tcp": {}},
    "Tty": false, "OpenStdin": false, "StdinOnce": false,
    "Env": ["PATH=/usr/bin:/bin"],
    "Cmd": ["nginx", "-g", "daemon off;"],
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 30000000000},
    "ArgsEscaped": true,
    "Image": "sha256:1111111111111111111111111111111111111111111111111111111111111111",
    "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    "StopSignal": "SIGQUIT"
  },
  "container": "0e1f",
  "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) "], "MemorySwap": 123456789012345678901234567890},
  "created": "2021-04-10T07:35:43.2423566Z",
  "docker_version": "19.03.12",
  "history": [
    {"created": "2021-04-10T02:57:53Z", "created_by": "/bin/sh -c #(nop) ADD file:x in / "},
    {"created": "2021-04-10T02:57:54Z", "created_by": "CMD [\"bash\"]", "empty_layer": true, "new": 1.0}
  ],
  "os": "linux",
  "rootfs": {"type": "layers", "diff_ids": ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}
}"##;

#[test]
fn dockers_config_is_understood() {
    let config = ImageConfig::parse(DOCKER_CONFIG.as_bytes()).unwrap();
    assert_eq!(config.platform, Platform::new("linux", "amd64", None));
    assert_eq!(config.config.user, None);
    assert_eq!(config.config.env, ["PATH=/usr/bin:/bin"]);
    assert_eq!(config.config.entrypoint, None);
    assert_eq!(config.config.cmd.as_ref().unwrap().len(), 3);
    assert!(config.config.exposed_ports.contains("80/tcp"));
    assert!(config.config.volumes.is_empty() && config.config.labels.is_empty());
    assert_eq!(config.config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.rootfs_diff_ids.len(), 1);
    assert_eq!(config.chain_id().unwrap().digest().to_string(), SHA);
    assert!(!config.history[0].empty_layer && config.history[1].empty_layer);
}

#[test]
fn dockers_unknown_fields_survive() {
    let config = ImageConfig::parse(DOCKER_CONFIG.as_bytes()).unwrap();
    let written = String::from_utf8(config.to_bytes()).unwrap();
    for kept in [
        r#""docker_version":"19.03.12""#,
        r##"{"Cmd": ["/bin/sh", "-c", "#(nop) "], "MemorySwap": 123456789012345678901234567890}"##,
        r#""new":1.0"#,
        r#""Image":"sha256:1111111111111111111111111111111111111111111111111111111111111111""#,
        r#""Healthcheck":{"Test": ["CMD-SHELL", "true"], "Interval": 30000000000}"#,
    ] {
        assert!(written.contains(kept), "lost {kept}:\n{written}");
    }
    assert_eq!(ImageConfig::parse(written.as_bytes()).unwrap(), config);
}

#[test]
fn configs_of_podman_and_old_docker_are_understood() {
    let config = ImageConfig::parse(
        br#"{"architecture":"arm","variant":"v7","os":"linux","config":null,"history":null,
            "rootfs":{"type":"layers","diff_ids":null}}"#,
    )
    .unwrap();
    assert_eq!(config.platform.to_string(), "linux/arm/v7");
    assert!(config.rootfs_diff_ids.is_empty());

    let one_word =
        ImageConfig::parse(br#"{"architecture":"amd64","os":"linux","config":{"Cmd":"/bin/sh"}}"#)
            .unwrap();
    assert_eq!(one_word.config.cmd.unwrap(), ["/bin/sh"]);
}

#[test]
fn configs_with_wrong_fields_are_refused() {
    let refusal = |text: &str| ImageConfig::parse(text.as_bytes()).unwrap_err().to_string();
    insta::assert_snapshot!(refusal(r#"{"os":"linux"}"#), @"invalid image config: field `architecture` is missing");
    insta::assert_snapshot!(
        refusal(r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:00"]}}"#),
        @r#"invalid image config: field `rootfs`: invalid rootfs: field `diff_ids`: invalid digest "sha256:00": sha256 has 64 hexadecimal digits"#
    );
    insta::assert_snapshot!(
        refusal(r#"{"os":"linux","architecture":"amd64","config":{"Env":"A=1"}}"#),
        @r#"invalid image config: field `config`: invalid container config: field `Env`: invalid type: string "A=1", expected a sequence"#
    );
    insta::assert_snapshot!(refusal("[]"), @"invalid image config: invalid type: sequence, expected an object at line 1 column 0");
}

#[test]
fn kinds_are_told_apart() {
    let oci_index = r#","mediaType":"application/vnd.oci.image.index.v1+json""#;
    let docker = r#","mediaType":"application/vnd.docker.distribution.manifest.v2+json""#;
    // (document, content type, is it an index)
    for (text, content_type, index) in [
        (manifest_with(""), None, false),
        (manifest_with(""), Some(MediaType::OCI_MANIFEST), false),
        (manifest_with(""), Some(MediaType::OCTET_STREAM), false),
        (manifest_with(docker), None, false),
        (manifest_with(docker), Some(MediaType::OCI_MANIFEST), false),
        (index_with(""), None, true),
        (index_with(oci_index), Some(MediaType::DOCKER_MANIFEST_LIST), true),
        (index_with(r#","layers":null"#), None, true),
    ] {
        let document = Document::parse(text.as_bytes(), content_type.as_ref()).unwrap();
        assert_eq!(matches!(document, Document::Index(_)), index, "{text}");
    }
}

#[test]
fn ambiguous_documents_are_refused() {
    let index_type = r#","mediaType":"application/vnd.oci.image.index.v1+json""#;
    for text in [
        manifest_with(r#","manifests":[]"#),
        manifest_with(r#","Manifests":[]"#),
        manifest_with(&format!(r#"{index_type},"manifests":[]"#)),
        index_with(r#","layers":[]"#),
        index_with(&format!(r#","LAYERS":[]{index_type}"#)),
        index_with(r#","config":{}"#),
    ] {
        let error = Document::parse(text.as_bytes(), None).unwrap_err();
        assert!(matches!(error, Error::Ambiguous { .. }), "{text}: {error}");
    }
    let disagreeing =
        Document::parse(index_with(index_type).as_bytes(), Some(&MediaType::OCI_MANIFEST));
    insta::assert_snapshot!(
        disagreeing.unwrap_err(),
        @"ambiguous manifest: its media type and the registry's content type disagree"
    );
}

#[test]
fn other_documents_are_refused() {
    insta::assert_snapshot!(refusal("{}"), @"unsupported manifest: it is neither a manifest nor an index");
    insta::assert_snapshot!(
        refusal(r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#),
        @"unsupported manifest: it has docker's schema 1, which was retired in 2019"
    );
    insta::assert_snapshot!(
        refusal(r#"{"mediaType":"application/vnd.wasm.config.v0+json"}"#),
        @"unsupported manifest: its media type is application/vnd.wasm.config.v0+json"
    );
    insta::assert_snapshot!(
        refusal(&manifest_with("").replace("\"schemaVersion\":2", "\"schemaVersion\":3")),
        @"unsupported manifest: its schema version is 3"
    );
    insta::assert_snapshot!(refusal(r#"{"config":{},"config":{}}"#), @"invalid manifest: field `config` appears twice at line 1 column 25");
    for text in ["", "null", "[]", "{", "\u{feff}{}", "{} {}", r#"{"schemaVersion":2,"layers":[]}"#]
    {
        assert!(Document::parse(text.as_bytes(), None).is_err(), "accepted {text:?}");
    }
    assert!(Document::parse(b"{\"a\":\"\xff\"}", None).is_err());
}

#[test]
fn descriptors_with_wrong_fields_are_refused() {
    let with =
        |descriptor: &str| refusal(&format!(r#"{{"schemaVersion":2,"config":{descriptor}}}"#));
    insta::assert_snapshot!(
        with(r#"{"mediaType":"a/b","digest":"sha256:00","size":1}"#),
        @r#"invalid manifest: field `config`: invalid descriptor: field `digest`: invalid digest "sha256:00": sha256 has 64 hexadecimal digits"#
    );
    insta::assert_snapshot!(
        with(&format!(r#"{{"mediaType":"a/b","digest":"{SHA}","size":18446744073709551615}}"#)),
        @"invalid manifest: field `config`: invalid descriptor: field `size`: 18446744073709551615 is out of range"
    );
    for size in ["-1", "1.5", "1e3", "\"1\"", "null", "99999999999999999999"] {
        let text = format!(r#"{{"mediaType":"a/b","digest":"{SHA}","size":{size}}}"#);
        assert!(serde_json::from_str::<Descriptor>(&text).is_err(), "accepted {size}");
    }
}

#[test]
fn large_and_deep_documents_are_refused() {
    let exact = |length: usize| {
        let start = manifest_with(r#","note":""#).trim_end_matches('}').to_owned();
        let padding = length - start.len() - 2;
        format!("{start}{}\"}}", "x".repeat(padding))
    };
    assert!(Document::parse(exact(MAX_MANIFEST_BYTES).as_bytes(), None).is_ok());
    insta::assert_snapshot!(
        refusal(&exact(MAX_MANIFEST_BYTES + 1)),
        @"manifest of 8388609 bytes is larger than the limit of 8388608"
    );

    let nested = |depth: usize| {
        manifest_with(&format!(r#","note":{}{}"#, "[".repeat(depth), "]".repeat(depth)))
    };
    assert!(Document::parse(nested(MAX_NESTING - 1).as_bytes(), None).is_ok());
    insta::assert_snapshot!(refusal(&nested(MAX_NESTING)), @"manifest nests deeper than 64 levels");
    // Without its end it is no JSON, but must be refused before anything recurses.
    insta::assert_snapshot!(refusal(&"[".repeat(1_000_000)), @"manifest nests deeper than 64 levels");
}

/// A document of a million short fields must not take quadratic time.
#[test]
fn many_fields_are_read_in_time() {
    let fields: String = (0..500_000).map(|n| format!(r#","{n:x}":0"#)).collect();
    let manifest = Manifest::parse(manifest_with(&fields).as_bytes()).unwrap();
    assert_eq!(manifest.extra.iter().count(), 500_000);
}

#[test]
fn new_documents_look_as_everyone_writes_them() {
    let layer = Descriptor::new(MediaType::OCI_LAYER_GZIP, SHA.parse().unwrap(), 7);
    let config = Descriptor::new(MediaType::OCI_CONFIG, SHA.parse().unwrap(), 3);
    assert_eq!(layer.media_type.layer_compression(), Some(Compression::Gzip));
    let manifest = Manifest::new(config, vec![layer]);
    let text = String::from_utf8(manifest.to_bytes()).unwrap();
    insta::assert_snapshot!(text, @r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":7}]}"#);

    let mut config = ImageConfig::new(Platform::new("linux", "x86_64", None));
    config.config.env.push("A=1".to_owned());
    config.config.exposed_ports.insert("80/tcp".to_owned());
    config.rootfs_diff_ids.push(SHA.parse().unwrap());
    let text = String::from_utf8(config.to_bytes()).unwrap();
    insta::assert_snapshot!(text, @r#"{"architecture":"amd64","os":"linux","config":{"ExposedPorts":{"80/tcp":{}},"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}}"#);
}

/// Documents also pass through `serde_json::Value` and larger types of ours.
#[test]
fn descriptors_can_be_part_of_other_types() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Record {
        target: Descriptor,
        all: Vec<Descriptor>,
    }
    let text = format!(r#"{{"target":{0},"all":[{0}]}}"#, descriptor("a/b"));
    let record: Record = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let again: Record = serde_json::from_value(value).unwrap();
    assert_eq!(again.target, record.target);
}

/// Any JSON text, with numbers, escapes and spacing that no value type keeps.
fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        "\"([ -!#-\\[\\]-~é😀]|\\\\[\"\\\\/bfnrt]|\\\\u00[0-9a-fA-F]{2}|\\\\ud83d\\\\ude00){0,12}\"",
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[ {} ]", items.join("\n,"))),
            // A field may well appear twice in what we do not look into.
            prop::collection::vec(("[a-c/]{0,2}", inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{{}}}", fields.join(" , "))
            }),
        ]
    })
}

/// Unknown fields, with names that no type of ours knows.
fn unknown_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[xyz][a-z.é]{0,4}", json_text(), 0..4)
        .prop_map(|fields| fields.into_iter().rev().collect())
}

fn as_text(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect()
}

fn as_list(extra: &oci::Extra) -> Vec<(String, String)> {
    extra.iter().map(|(name, value)| (name.to_owned(), value.as_str().to_owned())).collect()
}

proptest! {
    #[test]
    fn unknown_fields_of_manifests_survive(
        outer in unknown_fields(), config in unknown_fields(), layer in unknown_fields(),
    ) {
        let descriptor = |extra: &[(String, String)]| {
            format!(r#"{{"mediaType":"a/b","digest":"{SHA}","size":3{}}}"#, as_text(extra))
        };
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{}}}"#,
            descriptor(&config), descriptor(&layer), as_text(&outer),
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(as_list(&manifest.extra), outer);
        prop_assert_eq!(as_list(&manifest.config.extra), config);
        prop_assert_eq!(as_list(&manifest.layers[0].extra), layer);
        // Everything was written in our order, so that all of the text comes back.
        prop_assert_eq!(String::from_utf8(manifest.to_bytes()).unwrap(), text);
    }

    #[test]
    fn unknown_fields_of_indexes_survive(
        outer in unknown_fields(), entry in unknown_fields(), platform in unknown_fields(),
    ) {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{SHA}","size":3,"platform":{{"architecture":"arm64","os":"linux","variant":"v8"{}}}{}}}]{}}}"#,
            as_text(&platform), as_text(&entry), as_text(&outer),
        );
        let index = Index::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), text);
    }

    #[test]
    fn unknown_fields_of_configs_survive(
        outer in unknown_fields(), config in unknown_fields(), rootfs in unknown_fields(),
        history in unknown_fields(), healthcheck in json_text(),
    ) {
        prop_assume!(healthcheck != "null");
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=1"],"Healthcheck":{healthcheck}{}}},"rootfs":{{"type":"layers","diff_ids":["{SHA}"]{}}},"history":[{{"created_by":"x"{}}}]{}}}"#,
            as_text(&config), as_text(&rootfs), as_text(&history), as_text(&outer),
        );
        let parsed = ImageConfig::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(String::from_utf8(parsed.to_bytes()).unwrap(), text);
    }

    #[test]
    fn raw_values_are_kept(text in json_text()) {
        let json = Json::parse(&text).unwrap();
        prop_assert_eq!(json.as_str(), text);
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(
        bytes: Vec<u8>, cut in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut config = DOCKER_CONFIG.as_bytes().to_vec();
        let position = cut.index(config.len());
        config[position] = byte;
        for bytes in [bytes.as_slice(), config.as_slice(), &config[..position]] {
            if let Ok(config) = ImageConfig::parse(bytes) {
                prop_assert_eq!(ImageConfig::parse(&config.to_bytes()).unwrap(), config);
            }
            if let Ok(document) = Document::parse(bytes, None) {
                prop_assert_eq!(Document::parse(&document.to_bytes(), None).unwrap(), document);
            }
        }
    }

    #[test]
    fn descriptors_round_trip(bytes: Vec<u8>, size in 0..=i64::MAX.cast_unsigned(), note: String) {
        let mut descriptor = Descriptor::new(MediaType::OCI_LAYER_ZSTD, Digest::sha512(&bytes), size);
        descriptor.annotations.insert(note.clone(), note);
        let text = serde_json::to_string(&descriptor).unwrap();
        prop_assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), descriptor);
    }
}
