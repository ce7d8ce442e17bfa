//! Each rule where it speaks and where it is silent.

use std::collections::BTreeMap;

use oci::Platform;

use super::{Base, Input, Options, OptionsError, Rule, Warning, lint, options};
use crate::dockerfile::parse;
use crate::ignore::Ignore;

/// Lints a file for linux/amd64; the base `image` has HOME and a shell, `foreign`
/// is for arm64, nothing is known of others.
fn warnings(text: &str, ignore: Option<&str>, build_args: &[(&str, &str)]) -> Vec<Warning> {
    let (file, found) = parse(text);
    let platform = Platform::new("linux", "amd64", None);
    let predefined: Vec<(String, String)> = [
        ("BUILDPLATFORM", "linux/amd64"),
        ("TARGETPLATFORM", "linux/amd64"),
        ("TARGETARCH", "amd64"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    let build_args: BTreeMap<String, String> =
        build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let base = |name: &str| match name {
        "image" => Some(Base {
            env: vec!["HOME=/root".to_owned()],
            has_shell: true,
            platform: Some(Platform::new("linux", "amd64", None)),
        }),
        "foreign" => {
            Some(Base { platform: Some(Platform::new("linux", "arm64", None)), ..Base::default() })
        }
        _ => None,
    };
    let ignore = ignore.map(|text| Ignore::parse(text).unwrap());
    let input = Input {
        file: &file,
        found: &found,
        predefined: &predefined,
        build_args: &build_args,
        platform: &platform,
        ignore: ignore.as_ref(),
        base: &base,
        stages: None,
    };
    lint(&input, &options(text).unwrap())
}

fn lines(warnings: &[Warning]) -> Vec<String> {
    let line = |warning: &Warning| {
        format!("{} {}: {}", warning.span.line, warning.rule.name(), warning.message)
    };
    warnings.iter().map(line).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(lines(&warnings(text, None, &[])), expected, "{text}");
}

#[test]
fn names_and_cases() {
    check("FROM scratch AS a\nCOPY b /\n", &[]);
    check("from scratch as a\ncopy b /\n", &[]);
    check(
        "FROM scratch AS Ab\nFROM Ab as c\nfrom scratch AS d\n",
        &[
            "1 StageNameCasing: Stage name 'Ab' should be lowercase",
            "2 FromAsCasing: 'as' and 'FROM' keywords' casing do not match",
            "3 FromAsCasing: 'AS' and 'from' keywords' casing do not match",
            "3 ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase)",
            "2 InvalidDefaultArgInFrom: Default value for ARG Ab results in empty or invalid base image name",
        ],
    );
    check(
        "FROM scratch\nCopy a /\nuser b\nuser c\nuser d\n",
        &[
            "1 ConsistentInstructionCasing: Command 'FROM' should match the case of the command majority (lowercase)",
            "2 ConsistentInstructionCasing: Command 'Copy' should match the case of the command majority (lowercase)",
        ],
    );
    check(
        "FROM scratch AS scratch\nFROM scratch AS a\nFROM scratch AS A\n",
        &[
            "3 StageNameCasing: Stage name 'A' should be lowercase",
            "1 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
            "3 DuplicateStageName: Duplicate stage name \"a\", stage names should be unique",
        ],
    );
}

#[test]
fn text() {
    check(
        "FROM scratch\nMAINTAINER me\nRUN a \\\n\n  b\n",
        &[
            "5 NoEmptyContinuation: Empty continuation line",
            "2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        ],
    );
    check(
        "FROM scratch\nENV a b\nLABEL c d\nENV e=f\n",
        &[
            "2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3 LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    );
    check(
        "FROM scratch\nEXPOSE 80/TCP 1.2.3.4:80:80 90:80 443\n",
        &[
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:80:80'",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '90:80'",
        ],
    );
}

#[test]
fn commands() {
    let json =
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    check("FROM scratch\nCMD a\n", &[&format!("2 JSONArgsRecommended: {json}")]);
    check("FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"b\"]\n", &[]);
    // A shell that was chosen was chosen.
    check("FROM image\nCMD a\n", &[]);
    check("FROM scratch AS a\nSHELL [\"b\"]\nFROM a\nENTRYPOINT c\n", &[]);
    let multiple = |name: &str| {
        format!(
            "MultipleInstructionsDisallowed: Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    check(
        "FROM image\nCMD a\nENTRYPOINT b\nHEALTHCHECK NONE\nCMD c\nENTRYPOINT d\nHEALTHCHECK NONE\nFROM image\nCMD e\n",
        &[
            &format!("2 {}", multiple("CMD")),
            &format!("3 {}", multiple("ENTRYPOINT")),
            &format!("4 {}", multiple("HEALTHCHECK")),
        ],
    );
}

#[test]
fn variables() {
    check("FROM scratch\nARG a\nARG b=c\nENV d=$a$b$PATH\nUSER ${d:-x}\n", &[]);
    check(
        "FROM image\nARG verison=1\nENV a=\"$version ${HOME}\"\nLABEL \"b\"=$HOMES\n",
        &[
            "3 UndefinedVar: Usage of undefined variable '$version' (did you mean $verison?)",
            "4 UndefinedVar: Usage of undefined variable '$HOMES' (did you mean $HOME?)",
        ],
    );
    // An instruction sees the environment before it; an ARG sees the ARG before it.
    check(
        "FROM scratch\nENV a=1 b=$a\nARG c=1 d=$c\nENV e=$b\n",
        &["2 UndefinedVar: Usage of undefined variable '$a'"],
    );
    check(
        "FROM scratch AS one\nARG a\nENV b=1\nFROM one\nWORKDIR /$a/$b\nVOLUME $c\nEXPOSE $d\nSTOPSIGNAL $e\n",
        &[
            "6 UndefinedVar: Usage of undefined variable '$c' (did you mean $b?)",
            "8 UndefinedVar: Usage of undefined variable '$e' (did you mean $b?)",
        ],
    );
    check(
        "FROM scratch\nCOPY --chown=$u <<A <<'B' $f /\n$x\nA\n$y\nB\nRUN --mount=type=cache,target=$t $shell\n",
        &[
            "2 UndefinedVar: Usage of undefined variable '$u'",
            "2 UndefinedVar: Usage of undefined variable '$f'",
            "2 UndefinedVar: Usage of undefined variable '$x'",
            "7 UndefinedVar: Usage of undefined variable '$t'",
        ],
    );
    // What a base that is not known sets is not known, but slips of the keyboard are.
    check("FROM unknown\nENV a=$JAVA_HOME\n", &[]);
    check(
        "FROM unknown\nARG VERSION\nENV a=$VERSOIN b=$PAHT\n",
        &["3 UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)"],
    );
}

#[test]
fn secrets() {
    let secret = |line: usize, kind: &str, name: &str| {
        format!(
            "{line} SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data ({kind} \"{name}\")"
        )
    };
    check(
        "FROM scratch\nARG API_KEY GitHub_Token PASSWORD_FILE\nENV secret=1 keyboard=1 PUBLIC_KEY=1 AUTH_x=2 monkey=3 apikey=4\n",
        &[
            &secret(2, "ARG", "API_KEY"),
            &secret(2, "ARG", "GitHub_Token"),
            &secret(3, "ENV", "secret"),
            &secret(3, "ENV", "AUTH_x"),
            &secret(3, "ENV", "apikey"),
        ],
    );
}

#[test]
fn base_names_and_platforms() {
    check("ARG a=image\nFROM --platform=$BUILDPLATFORM $a\n", &[]);
    check(
        "ARG tag=1\nFROM image:$tga\nFROM --platform=$PLATFROM image AS $x\n",
        &[
            "2 InvalidDefaultArgInFrom: Default value for ARG image:$tga results in empty or invalid base image name",
            "2 UndefinedArgInFrom: FROM argument 'tga' is not declared (did you mean tag?)",
        ],
    );
    check(
        "ARG base\nFROM $base\n",
        &[
            "2 InvalidDefaultArgInFrom: Default value for ARG $base results in empty or invalid base image name",
        ],
    );
    check(
        "FROM --platform=$TARGETPLATFORM image\nFROM --platform=linux/arm64 image\nFROM --platform=linux/arm64 image AS for-arm64\nFROM foreign\n",
        &[
            "1 RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            "2 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\"",
            "4 InvalidBaseImagePlatform: Base image foreign was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build",
        ],
    );
    let given = warnings("ARG base\nFROM $base\nENV x=$HOME\n", None, &[("base", "image")]);
    assert_eq!(given.len(), 1, "the default is bad, what was given is used: {given:?}");
}

#[test]
fn directories() {
    check(
        "FROM scratch AS a\nWORKDIR b\nWORKDIR c\nFROM a\nWORKDIR d\nFROM scratch\nWORKDIR /e\nWORKDIR f\n",
        &[
            "2 WorkdirRelativePath: Relative workdir \"b\" can have unexpected results if the base image changes",
        ],
    );
    let ignored = |text: &str, ignore: &str| lines(&warnings(text, Some(ignore), &[]));
    assert_eq!(
        ignored(
            "FROM scratch AS a\nCOPY x /y/../log /\nADD log/a http://log /\nCOPY --from=a log /\n",
            "log"
        ),
        [
            "2 CopyIgnoredFile: Attempting to Copy file \"/log\" that is excluded by .dockerignore",
            "3 CopyIgnoredFile: Attempting to Add file \"log/a\" that is excluded by .dockerignore",
        ]
    );
    assert_eq!(ignored("FROM scratch\nCOPY . /\n", "*.log").len(), 0);
    assert_eq!(ignored("FROM scratch\nCOPY . /\n", "*").len(), 1);
    assert_eq!(ignored("FROM scratch\nCOPY a /\n", "*\n!b").len(), 0, "exceptions cannot be told");
}

#[test]
fn descriptions_are_an_experiment() {
    let text = "# wrong\nARG a=1\n# b it is\nARG b=1\n# other\nFROM scratch AS c\n# neither\nARG d=1 e=2\n# no comment for this\n\n#\nARG f=1\n";
    check(text, &[]);
    check(
        &format!("# check=experimental=all\n{text}"),
        &[
            "3 InvalidDefinitionDescription: Comment for ARG should follow the format: `# a <description>`",
            "7 InvalidDefinitionDescription: Comment for FROM should follow the format: `# c <description>`",
            "9 InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    );
}

#[test]
fn checks_can_be_skipped() {
    let text = "FROM scratch\nCMD a\nENV b c\n";
    assert_eq!(warnings(text, None, &[]).len(), 2);
    check(&format!("# check=skip=all\n{text}"), &[]);
    check(
        &format!("# check=skip=JSONArgsRecommended, LegacyKeyValueFormat\n{text}"),
        &[
            "4 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ],
    );
    check(&format!("# check=skip=JSONArgsRecommended,LegacyKeyValueFormat\n{text}"), &[]);
    // A comment above an instruction is about that instruction.
    check(
        "FROM scratch\n# check=skip=JSONArgsRecommended\nCMD a\nENTRYPOINT b\n",
        &[
            "4 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        ],
    );
    assert!(options("# check=error=true;skip=a\nFROM b").unwrap().error);
    assert_eq!(Options::parse("a"), Err(OptionsError::Unknown("a".to_owned())));
    assert_eq!(
        Options::parse("error=maybe").unwrap_err().to_string(),
        "failed to parse check option \"error=maybe\""
    );
    assert_eq!(Options::parse("skp=a").unwrap_err().to_string(), "invalid check option \"skp\"");
}

#[test]
fn rules_have_names_and_pages() {
    let mut names: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 22);
    for (rule, page) in [
        (Rule::JsonArgsRecommended, "json-args-recommended"),
        (Rule::SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env"),
        (Rule::FromAsCasing, "from-as-casing"),
    ] {
        let url = format!("https://docs.docker.com/go/dockerfile/rule/{page}/");
        assert_eq!(rule.url(), Some(url));
    }
    assert_eq!(Rule::InvalidBaseImagePlatform.url(), None);
}
