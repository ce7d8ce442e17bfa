//! Heredocs of RUN, COPY, ADD and ONBUILD.

use super::super::{Kind, Script, Source, parse, parse_trigger};
use super::{error, good, instruction, kind, strings};

#[track_caller]
fn script(text: &str) -> Script {
    let Kind::Run(run) = kind(text) else { panic!("{text:?} is no RUN") };
    run.script
}

#[test]
fn a_heredoc_alone_is_the_script() {
    for (text, expected) in [
        ("RUN <<E\na\nb\nE", "a\nb\n"),
        ("RUN <<E\nE", ""),
        ("RUN <<E\n# not a comment \\\n  x\n\nE", "# not a comment \\\n  x\n\n"),
        ("RUN <<'E'\n$x\nE", "$x\n"),
        ("RUN <<-E\n\ta\n\t\tb\n  \tc\n\tE", "a\nb\n  \tc\n"),
        ("RUN <<E\n\ta\nE", "\ta\n"),
        ("RUN 3<<E\na\nE", "a\n"),
        ("RUN --network=none <<E\na\nE", "a\n"),
        ("RUN << E\na\nE", "a\n"),
        // The end is the whole line, and nothing else.
        ("RUN <<E\n E\nE \nEE\nE", " E\nE \nEE\n"),
        ("RUN <<E\r\na\r\nE\r\n", "a\r\n"),
        ("RUN <<'one two'\na\none two", "a\n"),
        ("RUN \\\n <<E\na\nE", "a\n"),
    ] {
        assert_eq!(script(text), Script::Shell(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn a_heredoc_that_starts_with_a_shebang_is_a_file() {
    let content = "#!/usr/bin/env python3\nprint(1)\n".to_owned();
    let expected = Script::File { name: "E".to_owned(), content };
    assert_eq!(script("RUN <<E\n#!/usr/bin/env python3\nprint(1)\nE"), expected);
    let shell = strings(&["/bin/sh", "-c"]);
    assert_eq!(expected.to_args(&shell), strings(&["/bin/sh", "-c", "/dev/pipes/E"]));
}

#[test]
fn with_other_words_the_shell_gets_line_and_bodies() {
    for (text, expected) in [
        ("RUN <<E cat\na\nE", "<<E cat\na\nE"),
        ("RUN cat <<A - <<-B\na\nA\n\tb\n\tB", "cat <<A - <<-B\na\nA\n\tb\nB"),
        ("RUN cat 4<<E\na\nE", "cat 4<<E\na\nE"),
        ("RUN cat <<<E\nRUN true", "cat <<<E"),
        ("RUN \"<<E\"", "\"<<E\""),
        ("RUN echo $((1<<2))", "echo $((1<<2))"),
    ] {
        let text = format!("FROM a\n{text}");
        // `$((1<<2))` has a word `$((1<<2))` that is no heredoc.
        let file = good(&text);
        let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("no RUN") };
        assert_eq!(run.script, Script::Shell(expected.to_owned()), "{text:?}");
    }
}

#[test]
fn json_forms_have_no_heredocs() {
    assert_eq!(script("RUN [\"<<E\"]"), Script::Exec(strings(&["<<E"])));
}

#[test]
fn copy_makes_files_of_heredocs() {
    let Kind::Copy(copy) = kind("COPY --chmod=700 <<a.txt b <<-'C' /d/\n$x\na.txt\n\tc\nC\n")
    else {
        panic!("no COPY")
    };
    let inline = |name: &str, content: &str, expand| Source::Inline {
        name: name.to_owned(),
        content: content.to_owned(),
        expand,
    };
    assert_eq!(
        copy.files.sources,
        [inline("a.txt", "$x\n", true), Source::Path("b".to_owned()), inline("C", "c\n", false)]
    );
    assert_eq!(copy.files.destination, "/d/");
    let Kind::Add(add) = kind("ADD <<X <<Y /d\nY\nX\nX\nY") else { panic!("no ADD") };
    assert_eq!(add.files.sources, [inline("X", "Y\n", true), inline("Y", "X\n", true)]);
}

#[test]
fn other_instructions_have_no_heredocs() {
    let file = good("FROM a\nUSER <<E\nENV E=<<E");
    assert_eq!(file.stages[0].instructions.len(), 2);
}

#[test]
fn onbuild_stores_its_heredocs() {
    let Kind::Onbuild(onbuild) = kind("onbuild  RUN <<E\na\nE") else { panic!("no ONBUILD") };
    assert_eq!(onbuild.expression, "RUN <<E\na\nE");
    let trigger = parse_trigger(&onbuild.expression).unwrap();
    assert_eq!(onbuild.trigger.as_deref(), Some(&trigger));
    let Kind::Run(run) = trigger.kind else { panic!("no RUN") };
    assert_eq!(run.script, Script::Shell("a\n".to_owned()));
}

#[test]
fn heredocs_without_end_are_errors() {
    assert_eq!(error("RUN <<E\na"), "unterminated heredoc: no line below is exactly E");
    assert_eq!(error("RUN <<E\n E\n"), "unterminated heredoc: no line below is exactly E");
    assert_eq!(error("COPY a <<E\nE"), "COPY cannot accept a heredoc as a destination");
}

#[test]
fn bodies_of_a_misspelt_run_are_no_instructions() {
    let (_, found) = parse("FROM a\nRUNN <<E\nwhat\never\nE\nUSER b");
    let messages: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(messages, ["unknown instruction: RUNN (did you mean RUN?)"]);
    // Without an end the lines below are read as what they are.
    let (file, found) = parse("FROM a\nRUNN <<E\nUSER b");
    assert_eq!((found.len(), file.stages[0].instructions.len()), (1, 1));
}

#[test]
fn heredocs_keep_their_own_account() {
    let node = instruction("RUN 3<<-E cat\n\ta\n\tE").node;
    let [heredoc] = &node.heredocs[..] else { panic!("one heredoc") };
    assert_eq!((heredoc.fd, heredoc.chomp, heredoc.expand), (3, true, true));
    assert_eq!((heredoc.body.as_str(), heredoc.content().as_str()), ("\ta\n", "a\n"));
}
