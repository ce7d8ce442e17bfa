//! Plans as text: what a Dockerfile comes to, without any store.

use std::collections::BTreeMap;

use oci::{ImageConfig, Platform};

use super::{Action, Base, CopySource, NamedContext, Options, Origin, Plan, Planned, plan};
use crate::dockerfile;

fn options(build_args: &[(&str, &str)], target: Option<&str>) -> Options {
    Options {
        target: target.map(str::to_owned),
        build_args: build_args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        labels: BTreeMap::new(),
        platform: Platform::new("linux", "amd64", None),
        build_platform: Platform::new("linux", "amd64", None),
        ..Options::default()
    }
}

fn base_image() -> ImageConfig {
    let mut image = ImageConfig::new(Platform::new("linux", "amd64", None));
    image.config.env = vec!["PATH=/bin".into(), "BASE=1".into()];
    image.config.cmd = Some(vec!["sh".into()]);
    image.config.working_dir = Some("/home".into());
    image
}

fn images() -> BTreeMap<String, ImageConfig> {
    BTreeMap::from([("busybox".to_owned(), base_image())])
}

#[track_caller]
fn planned(text: &str, options: &Options) -> Plan {
    let (file, diagnostics) = dockerfile::parse(text);
    assert!(!dockerfile::has_errors(&diagnostics), "{diagnostics:?}");
    match plan(&file, options, &images()) {
        Ok(Planned::Ready(plan)) => *plan,
        other => panic!("no plan: {other:?}"),
    }
}

#[track_caller]
fn problem(text: &str, options: &Options) -> String {
    let (file, _) = dockerfile::parse(text);
    let problems = plan(&file, options, &images()).unwrap_err();
    problems.0.iter().map(|p| format!("{}: {p}\n", p.span.line)).collect()
}

/// Prints what of a plan a person would check.
fn print(plan: &Plan) -> String {
    let mut out = String::new();
    for (index, stage) in &plan.stages {
        let base = match &stage.base {
            Base::Scratch => "scratch".to_owned(),
            Base::Stage(stage) => format!("stage {stage}"),
            Base::Image(name) => name.clone(),
        };
        out.push_str(&format!("stage {index} from {base}\n"));
        for (number, step) in stage.steps.iter().enumerate() {
            out.push_str(&format!("  {}\n", stage.step_name(number)));
            match &step.action {
                Action::Run(run) => {
                    out.push_str(&format!(
                        "    run {:?} in {} as {:?} env {:?}\n",
                        run.args, run.cwd, run.user, run.env
                    ));
                }
                Action::Copy(copy) => {
                    let origin = match &copy.origin {
                        Origin::Context => "context".to_owned(),
                        Origin::Named(name) => format!("context {name}"),
                        Origin::Stage(stage) => format!("stage {stage}"),
                        Origin::Image(name) => name.clone(),
                    };
                    let sources: Vec<&str> = copy
                        .sources
                        .iter()
                        .map(|source| match source {
                            CopySource::Path(path) => path.as_str(),
                            CopySource::Inline { name, .. } => name.as_str(),
                            CopySource::Http { url, .. } => url.as_str(),
                            CopySource::Git { git, .. } => git.remote.as_str(),
                        })
                        .collect();
                    out.push_str(&format!("    {origin} {sources:?} to {}\n", copy.destination));
                }
                Action::Workdir(workdir) => out.push_str(&format!("    {}\n", workdir.path)),
            }
        }
        for line in &stage.history {
            let layer = if line.step.is_some() { "+" } else { "-" };
            out.push_str(&format!("  {layer} {}\n", line.created_by));
        }
    }
    out
}

#[test]
fn only_the_stages_that_the_target_needs_are_planned() {
    let text = "FROM busybox AS a\nRUN a\nFROM nowhere:1 AS unused\nRUN b\nFROM scratch AS c\n\
                COPY --from=a /x /x\nCOPY --from=0 /y .\nFROM c\nLABEL d=1\n";
    let plan = planned(text, &options(&[], None));
    insta::assert_snapshot!(print(&plan), @r#"
    stage 0 from busybox
      [a 2/2] RUN a
        run ["/bin/sh", "-c", "a"] in /home as "" env ["PATH=/bin", "BASE=1"]
      + RUN /bin/sh -c a # buildkit
    stage 2 from scratch
      [c 1/2] COPY --from=a /x /x
        stage 0 ["/x"] to /x
      [c 2/2] COPY --from=0 /y .
        stage 0 ["/y"] to /
      + COPY /x /x # buildkit
      + COPY /y . # buildkit
    stage 3 from stage 2
      - LABEL d=1
    "#);
    assert_eq!(plan.needs(3), [2]);
    assert_eq!(plan.needs(2), [0, 0]);
    let only = planned(text, &options(&[], Some("A")));
    assert_eq!(only.stages.keys().copied().collect::<Vec<_>>(), [0]);
}

#[test]
fn variables_follow_the_rules_of_arg_and_env() {
    let text = "ARG V=1\nARG BASE=busybox\nFROM $BASE AS a\nARG V\nARG W=w$V\nENV E=$V F=$E\nENV F=$E\n\
                ARG E=over\nRUN echo $E\nWORKDIR /x/${V}\nWORKDIR y\nCOPY $W ${UNSET:-d}/\nFROM a\nRUN again\n";
    let plan = planned(text, &options(&[("V", "2"), ("http_proxy", "p")], None));
    insta::assert_snapshot!(print(&plan), @r#"
    stage 0 from busybox
      [a 2/5] RUN echo over
        run ["/bin/sh", "-c", "echo $E"] in /home as "" env ["PATH=/bin", "BASE=1", "V=2", "W=w2", "E=over", "F=2"]
      [a 3/5] WORKDIR /x/2
        /x/2
      [a 4/5] WORKDIR y
        /x/2/y
      [a 5/5] COPY w2 ${UNSET:-d}/
        context ["w2"] to /x/2/y/d/
      - ARG V=2
      - ARG W=w2
      - ENV E=2 F=
      - ENV F=2
      - ARG E=over
      + RUN |3 V=2 W=w2 E=over /bin/sh -c echo $E # buildkit
      + WORKDIR /x/2
      + WORKDIR /x/2/y
      + COPY w2 d/ # buildkit
    stage 1 from stage 0
      [stage-1 1/1] RUN again
        run ["/bin/sh", "-c", "again"] in /x/2/y as "" env ["PATH=/bin", "BASE=1", "V=2", "W=w2", "E=2", "F=2"]
      + RUN |3 V=2 W=w2 E=2 /bin/sh -c again # buildkit
    "#);
    let Action::Run(run) = &plan.stages[&0].steps[0].action else { panic!() };
    assert_eq!(run.hidden_env, ["HTTP_PROXY=p", "http_proxy=p"]);
    let config = &plan.stages[&1].config.config;
    assert_eq!(config.env, ["PATH=/bin", "BASE=1", "E=2", "F=2"], "ARG stays out of the image");
}

#[test]
fn metadata_becomes_the_config() {
    let text = "FROM busybox\nENTRYPOINT [\"/e\"]\nUSER u\nEXPOSE 80 70-71/udp\nVOLUME /a /b\n\
                STOPSIGNAL SIGQUIT\nSHELL [\"/bin/ash\", \"-c\"]\nHEALTHCHECK --interval=5s CMD x\n\
                ONBUILD RUN later\nMAINTAINER me\nRUN made\n";
    let plan = planned(text, &options(&[], None));
    let stage = &plan.stages[&0];
    let config = &stage.config.config;
    assert_eq!(config.cmd, None, "ENTRYPOINT clears the CMD of the base");
    assert_eq!(config.entrypoint.as_deref(), Some(&["/e".to_owned()][..]));
    assert_eq!(config.user.as_deref(), Some("u"));
    assert_eq!(config.exposed_ports.iter().collect::<Vec<_>>(), ["70/udp", "71/udp", "80/tcp"]);
    assert_eq!(config.volumes.iter().collect::<Vec<_>>(), ["/a", "/b"]);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(config.on_build, ["RUN later"]);
    assert_eq!(
        config.healthcheck.as_ref().unwrap().as_str(),
        r#"{"Test":["CMD-SHELL","x"],"Interval":5000000000}"#
    );
    assert_eq!(stage.config.author.as_deref(), Some("me"));
    let Action::Run(run) = &stage.steps[0].action else { panic!() };
    assert_eq!(run.args, ["/bin/ash", "-c", "made"]);
    let lines: Vec<&str> = stage.history.iter().map(|line| line.created_by.as_str()).collect();
    assert_eq!(
        lines,
        [
            "ENTRYPOINT [\"/e\"]",
            "USER u",
            "EXPOSE [70/udp 71/udp 80/tcp]",
            "VOLUME [/a /b]",
            "STOPSIGNAL SIGQUIT",
            "SHELL [/bin/ash -c]",
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "MAINTAINER me",
            "RUN /bin/ash -c made # buildkit",
        ]
    );
}

#[test]
fn a_command_given_in_the_stage_survives_an_entrypoint() {
    for text in [
        "FROM busybox\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n",
        "FROM busybox\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n",
    ] {
        let plan = planned(text, &options(&[], None));
        let cmd = plan.stages[&0].config.config.cmd.clone();
        assert_eq!(cmd, Some(vec!["c".to_owned()]), "{text}");
    }
}

#[test]
fn triggers_of_a_stage_run_in_its_children_and_not_further() {
    let text = "FROM busybox AS a\nONBUILD RUN trigger\nFROM a AS b\nRUN own\nFROM b\nRUN last\n";
    let plan = planned(text, &options(&[], None));
    let texts = |stage: usize| -> Vec<&str> {
        plan.stages[&stage].steps.iter().map(|step| step.text.as_str()).collect()
    };
    assert_eq!(texts(0), [""; 0]);
    assert_eq!(texts(1), ["RUN trigger", "RUN own"]);
    assert_eq!(texts(2), ["RUN last"]);
    assert!(plan.stages[&1].config.config.on_build.is_empty());
}

#[test]
fn missing_images_are_all_named_at_once() {
    let (file, _) =
        dockerfile::parse("FROM one AS a\nCOPY --from=three /x /\nFROM two\nCOPY --from=a /x /\n");
    let Ok(Planned::NeedsImages(uses)) = plan(&file, &options(&[], None), &BTreeMap::new()) else {
        panic!("it cannot be ready");
    };
    let names: Vec<(&str, bool)> =
        uses.iter().map(|image| (image.name.as_str(), image.is_base)).collect();
    assert_eq!(names, [("one", true), ("three", false), ("two", true)]);
}

#[test]
fn problems_point_at_their_lines() {
    let none = options(&[], None);
    let table = [
        ("FROM $NOTHING\n", "1: base name ($NOTHING) should not be blank\n"),
        (
            "FROM busybox AS a\nCOPY --from=a /x /\n",
            "2: cannot copy from stage \"a\", it needs to be defined before current stage \"a\"\n",
        ),
        (
            "FROM busybox AS a\nCOPY --from=b /x /\nFROM a AS b\nCOPY --from=a /x /\nFROM b\n",
            "2: cannot copy from stage \"b\", it needs to be defined before current stage \"a\"\n",
        ),
        ("FROM busybox\nCOPY --from=7 /x /\n", "2: invalid stage index 7: the file has 1\n"),
        ("FROM busybox\nSTOPSIGNAL NOPE\n", "2: invalid signal: NOPE\n"),
        (
            "FROM busybox\nCOPY --chmod=999 a b\nRUN ${X?}\nENV a=${X:?needed}\n",
            "2: invalid chmod parameter: '999'. it should be octal string and between 0 and 07777\n4: failed to process \"${X:?needed}\": X: needed\n",
        ),
        (
            "FROM busybox\nADD --checksum=sha256:0 a /\n",
            "2: checksum requires HTTP(S) or Git sources\n",
        ),
        ("FROM busybox\nCOPY https://example.org/x /\n", "2: source can't be a URL for COPY\n"),
        (
            "FROM --platform=$NOTHING busybox\n",
            "1: empty platform value from expression $NOTHING\n",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(problem(text, &none), expected, "{text}");
    }
    assert_eq!(
        problem("FROM busybox AS builder\nFROM scratch\n", &options(&[], Some("buidler"))),
        "0: target stage \"buidler\" could not be found (did you mean builder?)\n"
    );
}

#[test]
fn a_stage_has_a_platform_of_its_own() {
    let arm = Platform::new("linux", "arm64", None);
    let options = Options { platform: arm.clone(), show_platforms: true, ..options(&[], None) };
    let text = "FROM --platform=$BUILDPLATFORM busybox AS tools\nARG TARGETARCH BUILDARCH\n\
                RUN make $BUILDARCH-$TARGETARCH\nFROM --platform=linux/s390x scratch AS other\n\
                COPY --from=busybox /x /y\nFROM other AS last\nCOPY --from=tools /x /\n";
    let (file, _) = dockerfile::parse(text);
    // Told apart by the platform, each has a config of its own.
    let images = BTreeMap::from([
        ("busybox linux/amd64".to_owned(), base_image()),
        ("busybox".to_owned(), ImageConfig::new(arm)),
    ]);
    let Ok(Planned::Ready(plan)) = plan(&file, &options, &images) else { panic!("no plan") };
    let platforms: Vec<String> =
        plan.stages.values().map(|stage| stage.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/s390x", "linux/s390x"]);
    assert_eq!(plan.stages[&2].config.platform.to_string(), "linux/s390x");
    assert_eq!(plan.stages[&0].base, Base::Image("busybox linux/amd64".to_owned()));
    let uses: Vec<String> = plan
        .images
        .values()
        .map(|image| format!("{} for {}", image.name, image.platform))
        .collect();
    assert_eq!(uses, ["busybox for linux/arm64", "busybox for linux/amd64"]);
    assert_eq!(plan.stages[&0].step_name(0), "[linux/amd64->arm64 tools 2/2] RUN make amd64-arm64");
    assert_eq!(
        plan.stages[&0].from_name("busybox linux/amd64"),
        "[linux/amd64->arm64 tools 1/2] FROM busybox"
    );
    assert_eq!(plan.lineage(2), [2, 1]);
    let Action::Run(run) = &plan.stages[&0].steps[0].action else { panic!("no RUN") };
    assert!(run.env.contains(&"TARGETARCH=arm64".to_owned()), "{:?}", run.env);
    assert!(run.env.contains(&"BUILDARCH=amd64".to_owned()), "{:?}", run.env);
}

#[test]
fn a_build_argument_nobody_takes_is_a_warning() {
    let args = [("VERSIN", "1"), ("OTHER", "1"), ("HTTP_PROXY", ""), ("TARGETARCH", "x")];
    let plan = planned("ARG VERSION\nFROM busybox\n", &options(&args, None));
    assert_eq!(
        plan.warnings,
        [
            "build argument OTHER was not consumed: no ARG declares it",
            "build argument VERSIN was not consumed: no ARG declares it (did you mean VERSION?)",
        ]
    );
}

#[test]
fn a_named_context_stands_for_an_image_or_a_whole_stage() {
    let text = "FROM busybox AS build\nRUN false\nFROM alpine:latest\nCOPY --from=build /x /x\n\
                COPY --from=files a /b\nFROM busybox\nCOPY --from=again /x /y\n";
    let mut options = options(&[], Some("1"));
    let mut add = |name: &str, context| assert!(options.contexts.insert(name, context).is_some());
    add("build", NamedContext::Files);
    add("docker.io/library/alpine", NamedContext::Image("busybox".into()));
    add("files", NamedContext::Files);
    add("again", NamedContext::Stage("BUILD".into()));
    insta::assert_snapshot!(print(&planned(text, &options)), @r#"
    stage 0 from scratch
      [build 1/1] FROM build
        context build ["."] to /
      + FROM build # build context
    stage 1 from busybox
      [stage-1 2/3] COPY --from=build /x /x
        stage 0 ["/x"] to /x
      [stage-1 3/3] COPY --from=files a /b
        context files ["a"] to /b
      + COPY /x /x # buildkit
      + COPY a /b # buildkit
    "#);
    options.target = None;
    assert_eq!(planned(text, &options).needs(2), [0]);
    options.contexts.insert("again", NamedContext::Stage("nothing".into()));
    let (file, _) = dockerfile::parse(text);
    let error = plan(&file, &options, &images()).unwrap_err();
    assert_eq!(
        error.0[0].message,
        "build context again is stage \"nothing\", which no earlier stage is"
    );
}

#[test]
fn values_that_multiply_are_refused_before_they_fill_the_memory() {
    let mut text = "FROM scratch\nENV a=0123456789abcdef\n".to_owned();
    text.push_str(&"ENV a=$a$a\n".repeat(15));
    let hostile = |line: &str| format!("{text}{}", format!("{line}\n").repeat(100_000));
    for line in ["ENV b=$a", "LABEL b=$a", "ARG b=$a", "RUN x"] {
        let (file, found) = dockerfile::parse(&hostile(line));
        assert!(!dockerfile::has_errors(&found));
        let problems = plan(&file, &Options::default(), &BTreeMap::new()).unwrap_err();
        assert_eq!(problems.0.len(), 1);
        assert_eq!(problems.0[0].code, dockerfile::Code::TooLarge, "{line}");
    }
    let many: String = (0..5000).map(|at| format!("ENV v{at}=1\n")).collect();
    let (file, _) = dockerfile::parse(&format!("FROM scratch\n{many}"));
    let problems = plan(&file, &Options::default(), &BTreeMap::new()).unwrap_err();
    assert_eq!(problems.0[0].code, dockerfile::Code::TooLarge);
}
