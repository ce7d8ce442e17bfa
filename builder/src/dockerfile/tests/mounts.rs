//! `RUN --mount`.

use super::super::{FileOwner, Mount, MountKind, MountText, Sharing};
use super::{error, good};

fn resolve(text: &str) -> Result<Mount, String> {
    let env = |name: &str| match name {
        "ID" => Some("a,b".to_owned()),
        "TYPE" => Some("tmpfs".to_owned()),
        _ => None,
    };
    MountText(text.to_owned()).resolve('\\', &env).map_err(|error| error.to_string())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn kinds_and_defaults() {
    let owner = FileOwner::default();
    let bind = |from: Option<&str>, source: Option<&str>| MountKind::Bind {
        from: from.map(str::to_owned),
        source: source.map(str::to_owned),
    };
    let cache = |id: &str, sharing| MountKind::Cache {
        id: id.to_owned(),
        sharing,
        from: None,
        source: None,
        owner,
    };
    let secret = |id: &str, env: Option<&str>, required| MountKind::Secret {
        id: id.to_owned(),
        env: env.map(str::to_owned),
        required,
        owner,
    };
    let ssh = |id: &str| MountKind::Ssh { id: id.to_owned(), required: false, owner };
    for (text, target, read_only, kind) in [
        ("target=/a", some("/a"), true, bind(None, None)),
        ("", None, true, bind(None, None)),
        ("type=bind,from=b,src=c,dst=d,rw", some("d"), false, bind(Some("b"), Some("c"))),
        ("type=cache,target=/a//b/", some("/a//b/"), false, cache("/a/b", Sharing::Shared)),
        (
            "TYPE=CACHE,id=$ID,target=x,sharing=Locked",
            some("x"),
            false,
            cache("a,b", Sharing::Locked),
        ),
        ("type=cache,target=x,ro,sharing=private", some("x"), true, cache("x", Sharing::Private)),
        (
            "type=${TYPE},target=x,size=64m",
            some("x"),
            false,
            MountKind::Tmpfs { size_bytes: Some(64 << 20) },
        ),
        ("type=secret,id=k", some("/run/secrets/k"), true, secret("k", None, false)),
        (
            "type=secret,source=d/k,required",
            some("/run/secrets/k"),
            true,
            secret("d/k", None, true),
        ),
        ("type=secret,target=/x/k,required=false", some("/x/k"), true, secret("k", None, false)),
        ("type=secret,id=k,env=K", None, true, secret("k", Some("K"), false)),
        ("type=secret,id=k,env=K,target=/k", some("/k"), true, secret("k", Some("K"), false)),
        ("type=ssh", None, true, ssh("default")),
        ("type=ssh,id=a,target=/s", some("/s"), true, ssh("a")),
        ("\"id=a\"\"b,c\",type=ssh", None, true, ssh("a\"b,c")),
    ] {
        // Quotes are a shell's when values are expanded, so this one needs escaping.
        let text = text.replace("a\"\"b", "a\\\"\"b");
        assert_eq!(resolve(&text), Ok(Mount { target, read_only, kind }), "{text}");
    }
    let mount = resolve("type=cache,target=x,mode=0755,uid=1,gid=2,readonly=0").unwrap();
    let MountKind::Cache { owner, .. } = mount.kind else { panic!("no cache") };
    assert_eq!(owner, FileOwner { mode: Some(0o755), uid: Some(1), gid: Some(2) });
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (text, message) in [
        ("type=cahce", "unsupported mount type \"cahce\" (did you mean cache?)"),
        ("taget=/a", "unexpected key 'taget' in 'taget=/a' (did you mean target?)"),
        ("cache", "invalid field 'cache' must be a key=value pair"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=-1", "invalid value -1 for uid"),
        ("uid=1", "uid not allowed for \"bind\" type mounts"),
        ("type=tmpfs,mode=1", "mode not allowed for \"tmpfs\" type mounts"),
        ("size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=big", "invalid value for size: big"),
        ("required,type=secret", "unexpected key 'required' for mount type 'bind'"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
        ("type=cache,sharing=shred", "unsupported sharing value \"shred\" (did you mean shared?)"),
        ("type=ssh,source=a", "ssh does not support source"),
        ("target=a\"b", "failed to parse csv mounts: bare \" in non-quoted field"),
        ("\"target=a", "failed to parse csv mounts: extraneous or missing \" in quoted-field"),
        ("target=${a", "failed to process \"${a\": syntax error: missing '}'"),
    ] {
        assert_eq!(resolve(text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn what_no_variable_can_mend_is_found_while_parsing() {
    assert_eq!(
        error("RUN --mount=type=cahce a"),
        "unsupported mount type \"cahce\" (did you mean cache?)"
    );
    let variable = "'from' doesn't support variable expansion, define alias stage instead";
    assert_eq!(error("RUN --mount=from=$x,target=/a a"), variable);
    // What variables may still mend is left to the build.
    good("FROM a\nRUN --mount=type=$T,target=/a a");
    good("FROM a\nRUN --mount=from=a$,target=/a a");
}
