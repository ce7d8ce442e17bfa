//! `rbuild check`, `--check` and `--call`; warnings and errors of the linter in a build.

use std::fs;

use crate::world::{Built, NAME, World};

/// Checks a Dockerfile inside the context.
fn check(world: &World, text: &str, arguments: &[&str]) -> Built {
    world.write("Dockerfile", text);
    let context = world.context();
    let mut all = arguments.to_vec();
    all.push(context.to_str().unwrap());
    world.run(&all)
}

/// Returns `rule line detail` of each warning in the JSON of a check.
fn warnings(built: &Built) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&built.stdout).unwrap();
    let Some(list) = json["warnings"].as_array() else { return Vec::new() };
    let line = |warning: &serde_json::Value| {
        let line = &warning["location"]["ranges"][0]["start"]["line"];
        let text = |name: &str| warning[name].as_str().unwrap().to_owned();
        format!("{} {line} {}", text("ruleName"), text("detail"))
    };
    list.iter().map(line).collect()
}

#[test]
fn a_check_prints_what_buildx_prints() {
    let world = World::new();
    let text = "FROM scratch AS A\nCMD echo\n";
    let checked = check(&world, text, &["check"]);
    assert_eq!(checked.status, 1);
    assert_eq!(
        checked.stdout,
        "Check complete, 2 warnings have been found!\n\
         \nWARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
         Stage name 'A' should be lowercase\nDockerfile:1\n--------------------\n   1 | >>> FROM scratch AS A\n   \
         2 |     CMD echo\n   3 |     \n--------------------\n\
         \nWARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
         JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n\
         Dockerfile:2\n--------------------\n   1 |     FROM scratch AS A\n   2 | >>> CMD echo\n   3 |     \n\
         --------------------\n"
    );
    assert_eq!(checked.stderr, "");
    assert!(!world.root().exists(), "looking makes no store");
    for same in [&["build", "--check"][..], &["--call=check"], &["--call", "lint"]] {
        let other = check(&world, text, same);
        assert_eq!((other.status, &other.stdout), (1, &checked.stdout), "{same:?}");
    }
    let ignored = check(&world, text, &["--call=check,ignorestatus=true"]);
    assert_eq!((ignored.status, &ignored.stdout), (0, &checked.stdout));
    let clean = check(&world, "FROM scratch\nCMD [\"x\"]\n", &["check"]);
    assert_eq!((clean.status, clean.stdout.as_str()), (0, "Check complete, no warnings found.\n"));
}

#[test]
fn json_is_buildkits_document() {
    let world = World::new();
    let checked = check(&world, "FROM scratch\nEXPOSE 80/TCP\n", &["--call=check,format=json"]);
    assert_eq!(checked.status, 1);
    let json: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let place = serde_json::json!({"line": 2});
    assert_eq!(
        json,
        serde_json::json!({
            "warnings": [{
                "ruleName": "ExposeProtoCasing",
                "description": "Protocol in EXPOSE instruction should be lowercase",
                "url": "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
                "detail": "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
                "location": {"ranges": [{"start": place, "end": place}]}
            }],
            "sources": [{
                "filename": "Dockerfile",
                "data": "RlJPTSBzY3JhdGNoCkVYUE9TRSA4MC9UQ1AK",
                "language": "Dockerfile"
            }]
        })
    );
    assert!(checked.stdout.ends_with("  ]\n}\n"));
    let clean = check(&world, "FROM scratch\n", &["check", "--json"]);
    assert_eq!(clean.status, 0);
    assert!(clean.stdout.starts_with("{\n  \"warnings\": null,\n"), "{}", clean.stdout);
}

#[test]
fn directives_and_the_argument_choose_rules() {
    let world = World::new();
    let json = |text: &str, arguments: &[&str]| {
        let mut all = vec!["check", "--json"];
        all.extend(arguments);
        let checked = check(&world, text, &all);
        (checked.status, warnings(&checked), checked.stderr)
    };
    let text = "#check=skip=ConsistentInstructionCasing\nFROM scratch as base\ncopy x .\n";
    world.write("x", "");
    let casing = "FromAsCasing 2 'as' and 'FROM' keywords' casing do not match".to_owned();
    assert_eq!(json(text, &[]), (1, vec![casing.clone()], String::new()));
    let skip = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    assert_eq!(json(text, &skip), (0, vec![], String::new()));
    let error =
        ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=ConsistentInstructionCasing;error=true"];
    let violation = "error: lint violation found for rules: FromAsCasing\n".to_owned();
    assert_eq!(json(text, &error), (1, vec![casing], violation));
    let (status, found, said) = json("# check=skipp=all\nFROM scratch\n", &[]);
    assert_eq!((status, found), (1, vec![]));
    assert!(
        said.contains(":1:1: error: failed to parse check options: invalid check option \"skipp\""),
        "{said}"
    );
    let text = "# check=experimental=all\n# other words\nFROM scratch AS base\n";
    let described = "InvalidDefinitionDescription 3 Comment for FROM should follow the format: \
                     `# base <description>`";
    assert_eq!(json(text, &[]), (1, vec![described.to_owned()], String::new()));
}

#[test]
fn a_check_without_a_target_looks_at_all_stages() {
    let world = World::new();
    let text = "FROM scratch AS a\nCOPY $foo /\nFROM scratch\nCOPY $bar /\n";
    let all = check(&world, text, &["check", "--json"]);
    let foo = "UndefinedVar 2 Usage of undefined variable '$foo'".to_owned();
    let bar = "UndefinedVar 4 Usage of undefined variable '$bar'".to_owned();
    assert_eq!(warnings(&all), [foo.clone(), bar]);
    let one = check(&world, text, &["check", "--json", "--target", "a"]);
    assert_eq!(warnings(&one), [foo]);
}

#[test]
fn errors_are_all_explained_and_the_first_is_in_the_json() {
    let world = World::new();
    let text = "FROM scratch\nMAINTAINER me\nCOPPY a /\nRUN --mont=type=cache x\n";
    let checked = check(&world, text, &["check", "--json"]);
    assert_eq!(checked.status, 1);
    let json: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    let place = serde_json::json!({"line": 3});
    assert_eq!(
        json["buildError"],
        serde_json::json!({
            "message": "dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)",
            "location": {"ranges": [{"start": place, "end": place}]}
        })
    );
    assert_eq!(warnings(&checked)[0][..22], *"MaintainerDeprecated 2");
    assert!(checked.stderr.contains("3 | COPPY a /\n  | ^^^^^\n"), "{}", checked.stderr);
    assert!(checked.stderr.ends_with("error: Dockerfile has 2 errors\n"), "{}", checked.stderr);
    let late = check(&world, "FROM scratch\nEXPOSE x\nVOLUME $a\n", &["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&late.stdout).unwrap();
    assert_eq!(json["buildError"]["message"], "invalid containerPort: x");
    assert!(late.stderr.contains("VOLUME specified can not be an empty string"), "{}", late.stderr);
}

#[test]
fn ignored_files_and_images_of_the_store_count() {
    let world = World::new();
    world.write(".dockerignore", "secret\n");
    let text = "FROM scratch\nCOPY secret /\nADD dir/../secret /\n";
    let checked = check(&world, text, &["check", "--json"]);
    let message = |verb: &str, line: usize| {
        format!(
            "CopyIgnoredFile {line} Attempting to {verb} file \"secret\" that is excluded by .dockerignore"
        )
    };
    assert_eq!(warnings(&checked), [message("Copy", 2), message("Add", 3)]);

    let text = format!("FROM {NAME}\nCOPY $FOO$BAR /\nCMD x\n");
    let unknown = check(&world, &text, &["check", "--json"]);
    assert_eq!(warnings(&unknown).len(), 1, "what an unknown image sets is not known");
    world.build("FROM scratch\nENV FOO=x\nSHELL [\"/x\"]\n");
    let known = check(&world, &text, &["check", "--json", "--platform", "linux/s390x"]);
    let host = oci::Platform::host();
    assert_eq!(
        warnings(&known),
        [
            format!(
                "InvalidBaseImagePlatform 1 Base image {NAME} was pulled with platform \"{host}\", expected \
                 \"linux/s390x\" for current build"
            ),
            "UndefinedVar 2 Usage of undefined variable '$BAR'".to_owned(),
        ]
    );
}

#[test]
fn a_build_shows_its_warnings_and_fails_where_they_are_errors() {
    let world = World::new();
    world.write("x", "");
    let text = "FROM scratch AS A\nCOPY x \\\n\n  /\n";
    let built = world.build(text);
    let (_, end) = built.stderr.split_once("\n2 warnings found").unwrap();
    assert!(
        end.starts_with(
            " (rbuild check shows the lines):\n - NoEmptyContinuation: Empty continuation line (line 4)\n \
             - StageNameCasing: Stage name 'A' should be lowercase (line 1)\nbuilt test/image:latest  "
        ),
        "{end}"
    );
    let built = world.build_with(text, &["--progress", "json"]);
    let warning: serde_json::Value = serde_json::from_str(
        built.stderr.lines().find(|line| line.contains("\"warning\"")).unwrap(),
    )
    .unwrap();
    assert_eq!(
        (&warning["rule"], &warning["line"]),
        (&serde_json::json!("NoEmptyContinuation"), &serde_json::json!(4))
    );
    let quiet = world.build_with(text, &["-q"]);
    assert_eq!((quiet.status, quiet.stderr.as_str()), (0, ""));
    let said = world.fail(&format!("# check=error=true\n{text}"));
    assert!(said.contains(" - StageNameCasing"), "{said}");
    assert!(
        said.ends_with(
            "error: lint violation found for rules: NoEmptyContinuation, StageNameCasing\n"
        ),
        "{said}"
    );
    let unreachable = "FROM scratch AS a\nCMD x\nFROM scratch\nCOPY x /\n";
    let built = world.build(unreachable);
    assert!(!built.stderr.contains("warning"), "{}", built.stderr);
}

#[test]
fn targets_and_outlines_are_listed() {
    let world = World::new();
    let text = "ARG base=scratch\n# sfx is a suffix\nARG sfx=\"1$base\"\nARG unused=1\n\
                # first compiles\nFROM $base AS first\nENV V=2\n# BAR counts\nARG BAR=$V\nARG BAZ\n\
                RUN --mount=type=secret,id=key$BAR,required=true --mount=type=ssh x\n\
                FROM scratch AS other\nARG NOT=1\nFROM --platform=linux/$sfx scratch\nCOPY --from=first / /\n";
    let targets = check(&world, text, &["--call=targets"]);
    assert_eq!((targets.status, targets.stderr.as_str()), (0, ""));
    assert_eq!(
        targets.stdout,
        "TARGET    DESCRIPTION\nfirst     compiles\nother     \n(default) \n"
    );
    let json = check(&world, text, &["--call=targets,format=json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let place = serde_json::json!({"line": 6});
    assert_eq!(
        json["targets"][0],
        serde_json::json!({
            "name": "first", "description": "compiles", "base": "$base",
            "location": {"ranges": [{"start": place, "end": place}]}
        })
    );
    assert_eq!(json["targets"][2]["default"], true);
    assert_eq!(json["targets"][2]["platform"], "linux/$sfx");
    let outline =
        check(&world, text, &["--call=outline", "--target=first", "--build-arg", "BAZ=z"]);
    assert_eq!(
        outline.stdout,
        "TARGET:      first\nDESCRIPTION: compiles\n\n\
         BUILD ARG   VALUE     DESCRIPTION\nbase        scratch   \nBAR         2         counts\n\
         BAZ         z         \n\nSECRET   REQUIRED\nkey2     true\n\nSSH       REQUIRED\ndefault   \n\n"
    );
    let last = check(&world, text, &["--call=outline,format=json"]);
    let json: serde_json::Value = serde_json::from_str(&last.stdout).unwrap();
    let names: Vec<&str> =
        json["args"].as_array().unwrap().iter().map(|arg| arg["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "sfx", "BAR", "BAZ"], "and not `unused` or `NOT`");
    assert_eq!(json["args"][1]["value"], "1scratch");
    assert_eq!(json["secrets"][0]["name"], "key2");
    let wrong = check(&world, text, &["--call=outline", "--target=frist"]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.stderr.contains("(did you mean first?)"), "{}", wrong.stderr);
    assert_eq!(check(&world, text, &["--call=outlin"]).status, 125);
}

#[test]
fn files_for_other_frontends_are_refused() {
    let world = World::new();
    let text = "# syntax=ghcr.io/other/frontend:1\nOTHER language\n";
    let said = world.fail(text);
    assert!(
        said.contains("Dockerfile:1:1: error: # syntax=ghcr.io/other/frontend:1 asks for"),
        "{said}"
    );
    assert!(!said.contains("OTHER language\n  | ^"), "only that: {said}");
    let checked = check(&world, text, &["check"]);
    assert_eq!(checked.status, 1);
    assert!(checked.stderr.contains("[foreign-syntax]"), "{}", checked.stderr);
    let text = "# syntax=ghcr.io/other/frontend:1\nFROM scratch\nLABEL a=1\n";
    let known = ["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"];
    assert_eq!(world.build_with(text, &known).status, 0);
    let said = world.build_with("FROM scratch\n", &["--build-arg", "BUILDKIT_SYNTAX=other"]);
    assert_eq!(said.status, 1);
    assert!(said.stderr.contains("--build-arg BUILDKIT_SYNTAX=other asks for"), "{}", said.stderr);
}

#[test]
fn a_dockerfile_elsewhere_is_called_as_it_was_given() {
    let world = World::new();
    let path = world.context().join("sub");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("Other"), "FROM scratch\nMAINTAINER x\n").unwrap();
    let mut command = world.command(&["check", "-f", "sub/Other"]);
    let checked = Built::of(command.current_dir(world.context()).output().unwrap());
    assert!(checked.stdout.contains("\nsub/Other:2\n-----"), "{}", checked.stdout);
    let mut command = world.command(&["check", "--json", "-f", "sub/Other"]);
    let checked = Built::of(command.current_dir(world.context()).output().unwrap());
    assert!(checked.stdout.contains("\"filename\": \"Other\""), "{}", checked.stdout);
}
