//! The language from outside: `rbuild debug`.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use crate::world::{Built, World};

/// Runs with `input` on stdin.
fn fed(world: &World, arguments: &[&str], input: &str) -> Built {
    let mut command = world.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Built::of(child.wait_with_output().unwrap())
}

#[test]
fn a_parsed_file_is_dumped_as_buildkit_dumps_it() {
    let world = World::new();
    let text = "# escape=`\nFrom a As b\nENV A=1 B=\"2 `\n 3\"\nenv c d e\nRUN --network=none `\n# no\n \
                x \"y\" é\t\nCMD [\"a\\n\", \"b\"]\nONBUILD RUN [\"x\"]\nHEALTHCHECK --interval=1s CMD x y\n\
                COPY --from=b <<E /x\nbody\nE\n";
    let expected = r#"(from "a" "As" "b")
(env "A" "1" "=" "B" "\"2  3\"" "=")
(env "c" "d e" "")
(run ["--network=none"] "x \"y\" é")
(cmd "a\n" "b")
(onbuild (run "x"))
(healthcheck ["--interval=1s"] "CMD" "x y")
(copy ["--from=b"] "<<E" "/x")
"#;
    let dumped = fed(&world, &["debug", "ast", "-"], text);
    assert_eq!((dumped.status, dumped.stdout.as_str()), (0, expected), "{}", dumped.stderr);
    let path = world.write("File", text);
    let dumped = world.run(&["debug", "ast", path.to_str().unwrap()]);
    assert_eq!((dumped.status, dumped.stdout.as_str()), (0, expected));
}

#[test]
fn a_file_that_does_not_parse_is_explained_and_not_dumped() {
    let world = World::new();
    let dumped = fed(&world, &["debug", "ast", "-"], "FROM x\nRUN [\"a\", 1]\nENV A\n");
    assert_eq!((dumped.status, dumped.stdout.as_str()), (1, ""));
    assert!(
        dumped.stderr.contains("-:2:5: error: when using JSON array syntax"),
        "{}",
        dumped.stderr
    );
    assert!(
        dumped.stderr.contains("-:3:5: error: ENV must have two arguments"),
        "{}",
        dumped.stderr
    );
    assert!(dumped.stderr.ends_with("error: - is not a Dockerfile\n"), "{}", dumped.stderr);
}

#[test]
fn words_are_expanded() {
    let world = World::new();
    let expand = |arguments: &[&str]| {
        let mut all = vec!["debug", "expand"];
        all.extend(arguments);
        let built = world.run(&all);
        (built.status, built.stdout, built.stderr)
    };
    let done = |text: &str| (0, text.to_owned(), String::new());
    assert_eq!(expand(&["--env", "A=1 2", "--env", "B=", "$A-${B:-x}'$A'"]), done("1 2-x$A\n"));
    assert_eq!(expand(&["--env", "A=1 2", "--words", "$A-'b c' \"$A\""]), done("1\n2-b c\n1 2\n"));
    assert_eq!(expand(&["--env", "A=1", "--env", "A=2", "--", "--$A"]), done("--2\n"));
    assert_eq!(expand(&["--escape", "`", "--env", "A=1", r"`$A\$A"]), done("$A\\1\n"));
    assert_eq!(expand(&[""]), done("\n"));
    assert_eq!(expand(&["--words", ""]), done(""));
    let refused = |text: &str| (1, String::new(), format!("error: {text}\n"));
    assert_eq!(
        expand(&["${A:?no $B}", "--env", "B=x"]),
        refused("failed to process \"${A:?no $B}\": A: no x")
    );
    assert_eq!(expand(&["${A"]), refused("failed to process \"${A\": syntax error: missing '}'"));
    assert_eq!(expand(&["--env", "A", "x"]), refused("A is not of the form NAME=VALUE"));
}

#[test]
fn ignored_paths_are_listed_in_the_order_asked_for() {
    let world = World::new();
    let path = world.write("patterns", "# all\n*.md\n!README.md\n/dir/**/x\n");
    let file = path.to_str().unwrap();
    let paths = ["dir/a/x/y", "README.md", "a.md", "b/a.md", "dir/x", "x"];
    let mut arguments = vec!["debug", "ignored", "--file", file];
    arguments.extend(paths);
    let listed = world.run(&arguments);
    assert_eq!((listed.status, listed.stdout.as_str()), (0, "dir/a/x/y\na.md\ndir/x\n"));
    fs::write(&path, "a\n[\n").unwrap();
    let refused = world.run(&arguments);
    assert_eq!((refused.status, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("line 2: syntax error in pattern \"[\""), "{}", refused.stderr);
}

#[test]
fn debug_is_hidden() {
    let help = World::new().run(&["--help"]);
    assert_eq!(help.status, 0);
    assert!(help.stdout.contains("inspect") && !help.stdout.contains("debug"), "{}", help.stdout);
}
