//! Lines: continuations, comments, directives, limits.

use super::super::{Code, DirectiveKey, dump, parse};
use super::{good, strings};

/// The single place that compares text with BuildKit's dump of it.
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(dump(text).as_deref(), Ok(expected), "{text:?}");
}

#[test]
fn continuations_join_lines() {
    for (text, expected) in [
        ("RUN a \\\n  b", r#"(run "a   b")"#),
        ("RUN a\\\nb", r#"(run "ab")"#),
        ("RUN a \\ \t\n b", r#"(run "a  b")"#),
        ("RUN a \\\n# comment\n  # another \\\n b", r#"(run "a  b")"#),
        ("RUN a \\\n\n \t\n b", r#"(run "a  b")"#),
        ("RUN a \\\n\\\n b", r#"(run "a  b")"#),
        ("\\\nRUN a", r#"(run "a")"#),
        ("R\\\nUN a", r#"(run "a")"#),
        // A doubled escape character ends the line.
        ("RUN a \\\\\nRUN b", "(run \"a \\\\\\\\\")\n(run \"b\")"),
        ("RUN a \\\\\\\nRUN b", "(run \"a \\\\\\\\\\\\\")\n(run \"b\")"),
        // The file may end in the middle.
        ("RUN a \\", r#"(run "a")"#),
        ("RUN a \\\n", r#"(run "a")"#),
        ("RUN a \\\n\n# c\n", r#"(run "a")"#),
        ("RUN a # b", r##"(run "a # b")"##),
        ("RUN a \\x\nRUN b", "(run \"a \\\\x\")\n(run \"b\")"),
        ("RUN a \\\r\n b\r\nRUN c\r\n", "(run \"a  b\")\n(run \"c\")"),
    ] {
        check(text, expected);
    }
}

#[test]
fn keywords_and_blanks() {
    for (text, expected) in [
        ("run a", r#"(run "a")"#),
        ("  \t Run\t a  ", r#"(run "a")"#),
        ("\u{feff}RUN a", r#"(run "a")"#),
        ("# c\n\n  # d\nRUN a", r#"(run "a")"#),
        ("RUN", "(run)"),
        ("FOO a b", r#"(foo "")"#),
        ("FROM a\u{b}as\u{c}b", r#"(from "a" "as" "b")"#),
        // Only five characters part words; others of Unicode's blanks do not.
        ("EXPOSE a\u{a0}b c", r#"(expose "a\u00a0b" "c")"#),
    ] {
        check(text, expected);
    }
}

#[test]
fn arguments_have_five_forms() {
    for (text, expected) in [
        (r#"CMD ["a", "b c"]"#, r#"(cmd "a" "b c")"#),
        ("CMD []", "(cmd)"),
        (r#"CMD ["a"] b"#, r#"(cmd "[\"a\"] b")"#),
        ("CMD ['a']", r#"(cmd "['a']")"#),
        (r#"COPY ["a b", "c"]"#, r#"(copy "a b" "c")"#),
        (r#"COPY ["a b", "c""#, r#"(copy "[\"a" "b\"," "\"c\"")"#),
        ("VOLUME /a /b", r#"(volume "/a" "/b")"#),
        ("ENV a=b c=\"d e\"", r#"(env "a" "b" "=" "c" "\"d e\"" "=")"#),
        ("ENV a b  c=d", r#"(env "a" "b  c=d" "")"#),
        ("ENV a=b\\ c", r#"(env "a" "b\\ c" "=")"#),
        ("LABEL a=", r#"(label "a" "" "=")"#),
        ("ARG a b=c d=\"e f\"", r#"(arg "a" "b=c" "d=\"e f\"")"#),
        ("USER a b", r#"(user "a b")"#),
        ("HEALTHCHECK --interval=5s CMD a b", r#"(healthcheck ["--interval=5s"] "CMD" "a b")"#),
        (r#"HEALTHCHECK CMD ["a","b"]"#, r#"(healthcheck "CMD" "a" "b")"#),
        ("HEALTHCHECK NONE", r#"(healthcheck "NONE")"#),
        ("ONBUILD RUN --x a", r#"(onbuild (run ["--x"] "a"))"#),
        ("ONBUILD FOO a", r#"(onbuild (foo ""))"#),
        ("ONBUILD", "(onbuild)"),
    ] {
        check(text, expected);
    }
}

#[test]
fn flags_stand_in_front() {
    for (text, expected) in [
        ("CMD --doit a b", r#"(cmd ["--doit"] "a b")"#),
        ("RUN --a=\"b c\" --d -- --e", r#"(run ["--a=b c" "--d"] "--e")"#),
        ("RUN -a --b", r#"(run "-a --b")"#),
        ("RUN a --b", r#"(run "a --b")"#),
        ("RUN --a\\\n --b c", r#"(run ["--a" "--b"] "c")"#),
        ("RUN \\\n  --a \\\n  # c\n  --b \\\n  c", r#"(run ["--a" "--b"] "c")"#),
    ] {
        check(text, expected);
    }
}

#[test]
fn directives_stand_at_the_very_top() {
    for (text, escape, count) in [
        ("# escape=`\nFROM a", '`', 1),
        ("#ESCAPE = ` \nFROM a", '`', 1),
        ("  # escape=`\nFROM a", '`', 1),
        ("\u{feff}# escape=`\nFROM a", '`', 1),
        ("# syntax=a/b\n# escape=`\n# check=skip=all\nFROM a", '`', 3),
        ("# escape=\\\nFROM a", '\\', 1),
        ("# hi\n# escape=`\nFROM a", '\\', 0),
        ("\n# escape=`\nFROM a", '\\', 0),
        ("# unknown=x\n# escape=`\nFROM a", '\\', 0),
        ("# escape=\n# escape=`\nFROM a", '\\', 0),
        ("#!/bin/x\n# escape=`\nFROM a", '\\', 0),
        ("FROM a\n# escape=`", '\\', 0),
    ] {
        let file = good(text);
        assert_eq!((file.escape, file.directives.len()), (escape, count), "{text:?}");
    }
    let file = good("# syntax = docker/dockerfile:1 x\nFROM a");
    assert_eq!(file.directives[0].key, DirectiveKey::Syntax);
    assert_eq!(file.directives[0].value, "docker/dockerfile:1 x");
}

#[test]
fn a_backtick_as_escape_leaves_backslashes_alone() {
    let text = "# escape=`\nFROM a\nRUN a`\n b\\\nENV x=a` b y=\"`\"\"";
    check(
        text,
        "(from \"a\")\n(run \"a b\\\\\")\n(env \"x\" \"a` b\" \"=\" \"y\" \"\\\"`\\\"\\\"\" \"=\")",
    );
}

#[test]
fn lines_have_a_limit() {
    let long = |length: usize| format!("FROM a\nRUN {}\n", "x".repeat(length - 4));
    assert_eq!(parse(&long(65_535)).1, []);
    let (file, found) = parse(&long(65_536));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].span.line), (Code::LineTooLong, 2));
    assert_eq!(found[0].message, "dockerfile line greater than max allowed size of 65535");
    assert!(file.stages[0].instructions.is_empty());
    // Joined lines may be longer.
    let joined = format!("FROM a\nRUN {}", format!("{}\\\n", "x".repeat(60_000)).repeat(10));
    assert_eq!(parse(&joined).1, []);
}

#[test]
fn comments_above_an_instruction_are_kept_with_it() {
    let file = good("# syntax=a\n# one\n#\n# two\nFROM a\n\n#three \n\n# four\nRUN b\nRUN c");
    assert_eq!(file.stages[0].node.comments, strings(&["two"]));
    assert_eq!(file.stages[0].instructions[0].node.comments, strings(&["three", "four"]));
    assert!(file.stages[0].instructions[1].node.comments.is_empty());
}

#[test]
fn instructions_know_their_text_and_place() {
    let file = good("FROM a\n\n  RUN x \\\n # c\n  y \nCOPY <<E /\nb\nE\n");
    let [run, copy] = &file.stages[0].instructions[..] else { panic!("two instructions") };
    assert_eq!(run.text(), "RUN x   y");
    let span = run.span();
    assert_eq!((span.line, span.column, span.length, span.end_line), (3, 3, 7, 5));
    assert_eq!(copy.text(), "COPY <<E /");
    assert_eq!((copy.span().line, copy.span().end_line), (6, 8));
}
