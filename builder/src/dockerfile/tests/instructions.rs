//! The typed instructions.

use std::time::Duration;

use super::super::{
    ArgDeclaration, Code, CommandLine, Device, Healthcheck, KeyValue, Kind, RunNetwork,
    RunSecurity, Script, Source, parse, parse_trigger,
};
use super::{error, good, kind, strings};

#[test]
fn from_names_a_base_and_a_stage() {
    for (line, base, name, platform) in [
        ("FROM a", "a", None, None),
        ("from a as B-1_x.y", "a", Some("b-1_x.y"), None),
        (
            "FROM --platform=$BUILDPLATFORM a:1@sha256:00 AS b",
            "a:1@sha256:00",
            Some("b"),
            Some("$BUILDPLATFORM"),
        ),
        ("FROM --platform= ${X:-a}", "${X:-a}", None, None),
    ] {
        let from = &good(line).stages[0].from;
        let found = (from.base.as_str(), from.name.as_deref(), from.platform.as_deref());
        assert_eq!(found, (base, name, platform), "{line}");
    }
    for (line, message) in [
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a on b", "FROM requires either one or three arguments"),
        (
            "FROM a as 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        (
            "FROM a as b/c",
            "invalid name for build stage: \"b/c\", name can't start with a number or contain symbols",
        ),
        ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn instructions_belong_to_stages() {
    let file = good("ARG a=1 b\nARG c\nFROM x AS y\nRUN d\nFROM y\nRUN e\nRUN f");
    assert_eq!(file.globals.len(), 2);
    assert_eq!(file.stages.iter().map(|s| s.instructions.len()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(file.stages[0].name(), Some("y"));
    let (file, found) = parse("ARG a\nRUN b\nUSER c\nARG d\nFROM e\nRUN f");
    assert_eq!(found.len(), 1, "said once");
    assert_eq!(found[0].code, Code::MisplacedInstruction);
    assert_eq!((file.globals.len(), file.stages.len()), (2, 1));
    let (file, found) = parse("FROM a b\nRUN c\nUSER");
    assert_eq!(file.stages, []);
    let messages: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected =
        ["FROM requires either one or three arguments", "USER requires exactly one argument"];
    assert_eq!(messages, expected, "what follows a bad FROM is checked too");
}

#[test]
fn pairs_keep_their_order_and_quotes() {
    let pair = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    assert_eq!(
        kind("ENV b=\"x y\" a='$z' c=a\\ b d="),
        Kind::Env(vec![pair("b", "\"x y\""), pair("a", "'$z'"), pair("c", "a\\ b"), pair("d", "")])
    );
    assert_eq!(kind("ENV a  b=c  d"), Kind::Env(vec![pair("a", "b=c  d")]));
    assert_eq!(kind("LABEL \"a b\"=c=d"), Kind::Label(vec![pair("\"a b\"", "c=d")]));
    let declaration = |name: &str, default: Option<&str>| ArgDeclaration {
        name: name.into(),
        default: default.map(str::to_owned),
    };
    assert_eq!(
        kind("ARG a b= c=\"d e\""),
        Kind::Arg(vec![
            declaration("a", None),
            declaration("b", Some("")),
            declaration("c", Some("\"d e\""))
        ])
    );
    for (line, message) in [
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("ENV =b", "ENV names can not be blank"),
        ("LABEL =b", "LABEL names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =b", "ARG names can not be blank"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn commands_have_two_forms() {
    let shell = |line: &str| CommandLine::Shell(line.to_owned());
    for (line, expected) in [
        ("CMD a  b", shell("a  b")),
        ("CMD", shell("")),
        (r#"CMD ["a", "b"]"#, CommandLine::Exec(strings(&["a", "b"]))),
        ("CMD []", CommandLine::Exec(vec![])),
        ("CMD []random string", shell("[]random string")),
        ("CMD [ 'a' ]", shell("[ 'a' ]")),
    ] {
        assert_eq!(kind(line), Kind::Cmd(expected.clone()), "{line}");
        assert_eq!(kind(&line.replace("CMD", "ENTRYPOINT")), Kind::Entrypoint(expected));
    }
    let sh = strings(&["/bin/sh", "-c"]);
    assert_eq!(shell("a b").to_args(&sh), strings(&["/bin/sh", "-c", "a b"]));
    assert_eq!(CommandLine::Exec(strings(&["a"])).to_args(&sh), strings(&["a"]));
    assert_eq!(kind(r#"SHELL ["a","b"]"#), Kind::Shell(strings(&["a", "b"])));
    let json = "when using JSON array syntax, arrays must be comprised of strings only";
    for (line, message) in [
        ("CMD [\"a\", 1]", json),
        ("RUN [[\"a\"]]", json),
        ("COPY [\"a\", null]", json),
        ("HEALTHCHECK CMD [1]", json),
        ("ONBUILD RUN [1]", json),
        ("SHELL a b", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("RUN []", "RUN requires at least one argument"),
        ("CMD --doit a", "unknown flag: --doit"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn run_has_flags() {
    let Kind::Run(run) = kind(
        "RUN --mount=type=cache,target=/a --mount=type=tmpfs,target=/b --network=host --security=insecure --device=required,vendor.com/x=1 a b",
    ) else {
        panic!("no RUN")
    };
    assert_eq!(run.script, Script::Shell("a b".to_owned()));
    assert_eq!(run.mounts.len(), 2);
    assert_eq!((run.network, run.security), (RunNetwork::Host, RunSecurity::Insecure));
    assert_eq!(run.devices, [Device { name: "vendor.com/x=1".to_owned(), required: true }]);
    for (line, message) in [
        ("RUN --network=hots a", "invalid network mode \"hots\" (did you mean host?)"),
        ("RUN --network a", "missing a value on flag: --network"),
        ("RUN --network=none --network=host a", "duplicate flag specified: --network"),
        ("RUN --security=none a", "security \"none\" is not valid"),
        ("RUN --mont=type=cache a", "unknown flag: --mont (did you mean mount?)"),
        ("RUN --device=a,nam=b x", "unexpected key 'nam' in 'nam=b' (did you mean name?)"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn copy_and_add_have_sources_and_a_destination() {
    let path = |text: &str| Source::Path(text.to_owned());
    let Kind::Copy(copy) = kind(
        "COPY --from=b --chown=$U:1 --chmod=u+x --link --parents --exclude=*.a --exclude=!b.a $a b\\ c d/",
    ) else {
        panic!("no COPY")
    };
    assert_eq!(copy.files.sources, [path("$a"), path("b\\"), path("c")]);
    assert_eq!(copy.files.destination, "d/");
    assert_eq!((copy.from.as_deref(), copy.parents, copy.files.link), (Some("b"), true, true));
    assert_eq!(copy.files.chown.as_deref(), Some("$U:1"));
    assert_eq!(copy.files.chmod.as_deref(), Some("u+x"));
    assert_eq!(copy.files.exclude, ["*.a", "!b.a"]);
    let Kind::Add(add) =
        kind(r#"ADD --checksum=sha256:00 --unpack=FALSE --keep-git-dir --link=false ["a b", "c"]"#)
    else {
        panic!("no ADD")
    };
    assert_eq!((add.files.sources, add.files.destination), (vec![path("a b")], "c".to_owned()));
    assert_eq!((add.unpack, add.keep_git_dir, add.files.link), (Some(false), Some(true), false));
    assert_eq!(add.checksum.as_deref(), Some("sha256:00"));
    let missing = "requires at least two arguments, but only one was provided. Destination could not be determined";
    let variable = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
    for (line, message) in [
        ("COPY a", format!("COPY {missing}")),
        ("ADD", format!("ADD {missing}")),
        ("COPY []", format!("COPY {missing}")),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)".to_owned()),
        ("COPY --link= a b", "missing a value on flag: --link".to_owned()),
        ("COPY --link=yes a b", "expecting boolean value for flag --link, not: yes".to_owned()),
        ("COPY --chown a b", "missing a value on flag: --chown".to_owned()),
        ("COPY --from=$x a b", variable.to_owned()),
        ("ADD --from=x a b", "unknown flag: --from".to_owned()),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn healthchecks() {
    let seconds = Duration::from_secs;
    assert_eq!(
        kind(
            "HEALTHCHECK --interval=5s --timeout=1m --start-period=0s --start-interval=1.5s --retries=3 cmd a  b"
        ),
        Kind::Healthcheck(Healthcheck {
            test: strings(&["CMD-SHELL", "a  b"]),
            interval: seconds(5),
            timeout: seconds(60),
            start_period: Duration::ZERO,
            start_interval: Duration::from_millis(1500),
            retries: 3,
        })
    );
    let test = |words: &[&str]| {
        Kind::Healthcheck(Healthcheck { test: strings(words), ..Healthcheck::default() })
    };
    assert_eq!(kind(r#"HEALTHCHECK CMD ["a","b"]"#), test(&["CMD", "a", "b"]));
    assert_eq!(kind("HEALTHCHECK none"), test(&["NONE"]));
    assert_eq!(kind("HEALTHCHECK --interval=5s NONE"), test(&["NONE"]));
    for (line, message) in [
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK tcp 80", "Unknown type \"TCP\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=1us CMD a", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=-1s CMD a", "Interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=5 CMD a", "time: missing unit in duration \"5\""),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retires=1 CMD a", "unknown flag: --retires (did you mean retries?)"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn one_argument_is_the_rest_of_the_line() {
    assert_eq!(kind("USER a:b c"), Kind::User("a:b c".to_owned()));
    assert_eq!(kind("WORKDIR /a b"), Kind::Workdir("/a b".to_owned()));
    assert_eq!(kind("STOPSIGNAL $S"), Kind::StopSignal("$S".to_owned()));
    assert_eq!(kind("MAINTAINER A <a@b>"), Kind::Maintainer("A <a@b>".to_owned()));
    assert_eq!(kind("EXPOSE 80 $P/udp"), Kind::Expose(strings(&["80", "$P/udp"])));
    assert_eq!(kind(r#"VOLUME ["/a b", " /c "]"#), Kind::Volume(strings(&["/a b", "/c"])));
    for (line, message) in [
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("USER --x a", "unknown flag: --x"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn onbuild_holds_an_instruction() {
    let Kind::Onbuild(onbuild) = kind("ONBUILD  COPY --from=b . /x") else { panic!("no ONBUILD") };
    assert_eq!(onbuild.expression, "COPY --from=b . /x");
    let trigger = onbuild.trigger.unwrap();
    assert_eq!(trigger.text(), "COPY --from=b . /x");
    assert_eq!(*trigger, parse_trigger("COPY --from=b . /x").unwrap());
    for (line, message) in [
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD MAINTAINER a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD --x RUN a", "unknown flag: --x"),
    ] {
        assert_eq!(error(line), message, "{line}");
    }
}

#[test]
fn a_trigger_that_is_no_good_is_stored_with_a_warning() {
    for (line, message) in [
        ("ONBUILD FOO a", "unknown instruction: FOO (did you mean FROM?)"),
        (
            "ONBUILD COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("ONBUILD RUN --x a", "unknown flag: --x"),
    ] {
        let (file, found) = parse(&format!("FROM a\n{line}"));
        assert_eq!((found.len(), found[0].code), (1, Code::BrokenTrigger), "{line}");
        assert_eq!(found[0].to_string(), message);
        assert!(!found[0].is_error());
        let Kind::Onbuild(onbuild) = &file.stages[0].instructions[0].kind else { panic!("{line}") };
        assert_eq!(format!("ONBUILD {}", onbuild.expression), line);
        assert_eq!(onbuild.trigger, None);
        assert!(parse_trigger(&onbuild.expression).is_err(), "{line}");
    }
}

#[test]
fn a_trigger_is_one_instruction() {
    assert!(parse_trigger("ARG a=b").is_ok());
    assert!(parse_trigger("RUN <<E\na\nE").is_ok());
    for text in ["", "RUN a\nRUN b", "FROM a", "FROM a\nRUN b", "# c", "RUN <<E\na"] {
        assert!(parse_trigger(text).is_err(), "accepted {text:?}");
    }
}
