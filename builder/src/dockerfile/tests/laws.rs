//! What holds for every text.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::{Expander, MountText, dump, has_errors, parse, parse_trigger, print};

/// Lines made of what Dockerfiles are made of, so that chance reaches deep.
fn line() -> impl Strategy<Value = String> {
    let keyword = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "CMD",
        "ENTRYPOINT",
        "EXPOSE",
        "USER",
        "HEALTHCHECK",
        "ONBUILD",
        "ONBUILD RUN",
        "SHELL",
        "VOLUME",
        "WORKDIR",
        "MAINTAINER",
        "STOPSIGNAL",
        "#",
        "# escape=",
        "run",
        "",
    ]);
    let piece = prop::sample::select(vec![
        "a",
        "b=c",
        "=",
        "$x",
        "${x:-y}",
        "\"",
        "'",
        "\\",
        "`",
        " ",
        "  ",
        "\t",
        "\u{b}",
        "\u{a0}",
        "<<E",
        "<<-'E'",
        "<< E",
        "[",
        "]",
        "\"a\"",
        ",",
        "--",
        "--x",
        "--from=a",
        "--mount=type=cache",
        "--mount=",
        "CMD",
        "NONE",
        "as",
        "é",
        "\r",
        "\u{c}",
        "#",
        "\\\n",
        "`\n",
        "\n",
        "\nE\n",
        "[\"a\",",
        "\"b\"]",
        "1",
    ]);
    (keyword, prop::collection::vec(piece, 0..8))
        .prop_map(|(keyword, pieces)| format!("{keyword} {}\n", pieces.concat()))
}

fn file() -> impl Strategy<Value = String> {
    (prop::bool::ANY, prop::collection::vec(line(), 0..8)).prop_map(|(has_escape, lines)| {
        let head = if has_escape { "# escape=`\n" } else { "" };
        format!("{head}FROM a\n{}", lines.concat())
    })
}

/// Printing a tree and parsing it again gives the same tree and no new error.
fn check_print(text: &str) {
    let (tree, _) = parse(text);
    let printed = print(&tree);
    let (again, found) = parse(&printed);
    assert_eq!(again, tree, "{text:?} printed as {printed:?}");
    if !tree.stages.is_empty() {
        assert!(!has_errors(&found), "{text:?} printed as {printed:?}: {found:?}");
    }
}

fn check_total(text: &str) {
    for found in parse(text).1 {
        let rendered = found.render("Dockerfile", text, true);
        assert!(rendered.ends_with('\n'));
    }
    // Whatever these say, they say it without a panic.
    drop(dump(text));
    drop(parse_trigger(text));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn printing_and_parsing_is_identity(text in file()) {
        check_print(&text);
        check_total(&text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        check_total(&text);
        check_print(&text);
    }

    #[test]
    fn no_text_makes_expansion_panic(
        text in "[a-z${}:+?#%/*'\"\\\\<` é\n-]{0,40}",
        value in proptest::option::of("[a-z*?$/\n]{0,8}"),
    ) {
        let env = |_: &str| value.clone();
        for expander in [Expander::new('\\'), Expander::new('`'), Expander::heredoc(), Expander::for_display('\\')] {
            drop(expander.word(&text, &env));
            drop(expander.words(&text, &env));
        }
        drop(MountText(text).resolve('\\', &env));
    }

    #[test]
    fn plain_words_expand_to_themselves(text in "[^$'\"\\\\]*") {
        let expanded = Expander::new('\\').word(&text, &|_| None).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    #[test]
    fn a_single_quoted_word_is_itself(text in "[^']*") {
        let expanded = Expander::new('\\').word(&format!("'{text}'"), &|_| None).unwrap();
        prop_assert_eq!(expanded.text, text);
    }

    /// Cutting the shortest and longest match agrees with trying every length.
    #[test]
    fn cutting_agrees_with_trying_every_length(value in "[ab]{0,8}", pattern in "[ab*?]{0,5}") {
        let env = |name: &str| (name == "v").then(|| value.clone());
        let expand = |operator: &str| {
            Expander::new('\\').word(&format!("${{v{operator}{pattern}}}"), &env).unwrap().text
        };
        let fits = |part: &str| matches_simply(&pattern, part);
        let starts = || (0..=value.len()).filter(|at| fits(&value[..*at]));
        let ends = || (0..=value.len()).filter(|at| fits(&value[*at..]));
        prop_assert_eq!(expand("#"), &value[starts().min().unwrap_or(0)..]);
        prop_assert_eq!(expand("##"), &value[starts().max().unwrap_or(0)..]);
        prop_assert_eq!(expand("%"), &value[..ends().max().unwrap_or(value.len())]);
        prop_assert_eq!(expand("%%"), &value[..ends().min().unwrap_or(value.len())]);
    }
}

/// The plainest matcher there is, for short texts.
fn matches_simply(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| matches_simply(&pattern[1..], &text[at..])),
        Some('?') => !text.is_empty() && matches_simply(&pattern[1..], &text[1..]),
        Some(c) => text.starts_with(c) && matches_simply(&pattern[1..], &text[1..]),
    }
}

/// Trees that once printed as something else.
#[test]
fn printing_survives_edges() {
    for text in [
        "FROM a\nRUN a\\\u{c}\nRUN b",
        "FROM a\nRUN -- --x",
        "FROM a\nCOPY [\"a\",\u{b}\"b\"]",
        "# escape=`\nFROM a\nRUN a`\u{c}\nUSER b",
        "FROM a\nRUN --mount=target=\"a b\" --mount=target=a\\ b c",
        "FROM a\nONBUILD -- RUN x",
        "FROM a\nONBUILD RUN <<E\na\nE",
        "FROM a\nRUN <<E\n\nE\nRUN <<-'A B' cat\n\tx\n\tA B",
        "FROM a\nENV a b\\\u{c}",
        "FROM a\nENV \\  b\" c=\"",
        "FROM a\nHEALTHCHECK CMD [\"a\"]",
        "FROM a\nHEALTHCHECK NONE",
        "FROM a\nLABEL \"a b\"='c d' e=\"f",
    ] {
        check_print(text);
    }
}

/// Time grows with the length of the text and no faster. The bounds are
/// generous for slow machines and debug builds; a square would miss them by far.
#[test]
fn hostile_files_take_no_square() {
    let many = |piece: &str, count: usize| piece.repeat(count);
    for (name, text) in [
        ("lines", format!("FROM a\n{}", many("RUN echo \"hello\" && ls -la | grep $x\n", 10_000))),
        ("continuations", format!("FROM a\nRUN {}", many("x \\\n", 50_000))),
        ("comments", format!("FROM a\nRUN x \\\n{}", many("# c\n", 50_000))),
        ("unknown", many("FOO bar\n", 30_000)),
        ("heredocs", format!("FROM a\nRUN {}\n{}", many("<<E ", 10_000), many("E\n", 10_000))),
        ("lost heredocs", format!("FROM a\n{}", many("RUNN <<E\n", 20_000))),
        ("flags", format!("FROM a\nRUN {}", many("--x=y \\\n", 20_000))),
        ("mounts", format!("FROM a\nRUN {} x", many("--mount=type=tmpfs,target=/x \\\n", 10_000))),
        ("pairs", format!("FROM a\nENV {}", many("a=\"b c\" \\\n", 20_000))),
        ("triggers", many("ONBUILD ", 50_000)),
        ("brackets", format!("FROM a\nCMD {}", many("[", 60_000))),
        ("nested", format!("FROM a\nCOPY --from={} a b", many("${a:-", 10_000))),
        ("one line", format!("FROM a\nRUN {}", many("x", 10_000_000))),
        ("blank", many("\n", 1_000_000)),
    ] {
        let start = Instant::now();
        let (_, found) = parse(&text);
        for found in &found {
            drop(found.render("Dockerfile", &text, false));
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{name} took {took:?}");
    }
}
