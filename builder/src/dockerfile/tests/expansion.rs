//! Variables, quotes and patterns in words.

use super::super::{ExpandReason, Expander};

fn env(name: &str) -> Option<String> {
    let value = match name {
        "FOO" => "xxx",
        "BAR" => "",
        "PWD" => "/home",
        "SPACE" => "a  b",
        "STR" => "foobarbaz",
        "PATHS" => "/usr/local/bin/x.tar.gz",
        "LINES" => "ab\ncd",
        "DOLLAR" => "[$0]$1$$",
        "STAR" => "*",
        "한" => "국",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> Result<String, String> {
    let expanded = Expander::new('\\').word(text, &env);
    expanded.map(|expanded| expanded.text).map_err(|error| error.reason.to_string())
}

#[track_caller]
fn check(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        assert_eq!(word(text).as_deref(), Ok(*expected), "{text}");
    }
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("", ""),
        ("a b", "a b"),
        ("he'll'o", "hello"),
        ("'a\"b$FOO\\c'", "a\"b$FOO\\c"),
        ("\"a'b'$FOO\"", "a'b'xxx"),
        (r#""a\"b\$c\\d\e""#, r#"a"b$c\d\e"#),
        (r"a\bc\'d\ e", "abc'd e"),
        (r"a\", "a"),
        (r"a\\", r"a\"),
        (r"\$FOO", "$FOO"),
        (r"\\$FOO", r"\xxx"),
        ("a<b<<c<<< d", "a<b<<c<<< d"),
        ("안'녕'", "안녕"),
    ]);
    for (text, quote) in
        [("he'llo", "single"), ("'a\\'b'", "single"), ("\"a", "double"), ("\"a\\\"", "double")]
    {
        let error = Expander::new('\\').word(text, &env).unwrap_err();
        assert_eq!(error.reason, ExpandReason::MissingQuote(quote), "{text}");
    }
}

#[test]
fn variables() {
    check(&[
        ("$FOO", "xxx"),
        ("${FOO}y", "xxxy"),
        ("$FOO.y", "xxx.y"),
        ("$FOOy", ""),
        ("a$BAZ.b", "a.b"),
        ("$한", "국"),
        ("$", "$"),
        ("a$.b", "a$.b"),
        ("$'a'", "$a"),
        // Positional and special parameters are never set.
        ("$1a $999a ${1}a $@@ $*a $#a $?a $-a $$a $!a $0a", "a a a @ a a a a a a a"),
        ("${@:-b} ${1:-b} ${$:+b}", "b b "),
    ]);
}

#[test]
fn set_and_unset() {
    check(&[
        ("${FOO-w}|${BAR-w}|${BAZ-w}", "xxx||w"),
        ("${FOO:-w}|${BAR:-w}|${BAZ:-w}", "xxx|w|w"),
        ("${FOO+w}|${BAR+w}|${BAZ+w}", "w|w|"),
        ("${FOO:+w}|${BAR:+w}|${BAZ:+w}", "w||"),
        ("${FOO?m}|${BAR?m}|${FOO:?m}", "xxx||xxx"),
        ("${A:-${B:-c}}", "c"),
        ("${A:-$FOO}", "xxx"),
        ("${A:-'a }'\"b $FOO\"}", "a }b xxx"),
        ("${A:-a\\}b}", "a}b"),
        ("${A:-b}}", "b}"),
        ("${A:-x {y}", "x {y"),
        ("${A:-}", ""),
    ]);
    for (text, message) in [
        ("${BAZ?m}", "BAZ: m"),
        ("${BAZ:?m $FOO}", "BAZ: m xxx"),
        ("${BAZ?}", "BAZ: is not allowed to be unset"),
        ("${BAZ:?}", "BAZ: is not allowed to be unset"),
        ("${BAR:?}", "BAR: is not allowed to be empty"),
        ("${FOO:-${BAZ?m}}", "BAZ: m"),
    ] {
        assert_eq!(word(text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn what_is_no_substitution_is_refused() {
    for (text, message) in [
        ("${}", "syntax error: bad substitution"),
        ("${:}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${{a}", "syntax error: bad substitution"),
        ("${", "syntax error: missing '}'"),
        ("${a", "syntax error: missing '}'"),
        ("${a:-b", "syntax error: missing '}'"),
        ("${a:-b ${c}", "syntax error: missing '}'"),
        ("${a:-'b}", "syntax error: missing '}'"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${a=b}", "unsupported modifier (=) in substitution"),
        ("${a:=b}", "unsupported modifier (:=) in substitution"),
        ("${a:0:1}", "unsupported modifier (:0) in substitution"),
        ("${a:#b}", "unsupported modifier (:#) in substitution"),
        ("${a b}", "unsupported modifier ( ) in substitution"),
        ("${FOO/a}", "syntax error: missing '/' in ${}"),
        ("${FOO//a}", "syntax error: missing '/' in ${}"),
        ("${FOO/a/b", "syntax error: missing '}'"),
        ("${FOO#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
    ] {
        assert_eq!(word(text).unwrap_err(), message, "{text}");
    }
    let error = Expander::new('\\').word("a${b", &env).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"a${b\": syntax error: missing '}'");
}

#[test]
fn patterns_cut_and_replace() {
    check(&[
        ("${STR#f*b}|${STR##f*b}", "arbaz|az"),
        ("${STR%b*}|${STR%%b*}", "foobar|foo"),
        ("${PATHS##*/}|${PATHS%/*}", "x.tar.gz|/usr/local/bin"),
        ("${PATHS%.*}|${PATHS%%.*}", "/usr/local/bin/x.tar|/usr/local/bin/x"),
        (
            "${STR#x}|${STR%x}|${STR#}|${STR##}|${STR#*}|${STR##*}",
            "foobarbaz|foobarbaz|foobarbaz|foobarbaz|foobarbaz|",
        ),
        ("${STR#???}|${STR%??}|${STR#??????????}", "barbaz|foobarb|foobarbaz"),
        ("${STR/ba/fo}|${STR//ba/fo}", "fooforbaz|fooforfoz"),
        ("${STR/b*/X}|${STR//o/}|${STR/o*r/}", "fooX|fbarbaz|fbaz"),
        ("${STR/?/X}|${STR//?/X}", "Xoobarbaz|XXXXXXXXX"),
        ("${STR//[o]/X}", "foobarbaz"),
        ("${PATHS//\\//:}", ":usr:local:bin:x.tar.gz"),
        ("${STAR#\\*}|${STR#\\*}|${STAR/\\*/x}", "|foobarbaz|x"),
        ("${STR/$BAR/X}|${STR//$BAR/-}", "Xfoobarbaz|-f-o-o-b-a-r-b-a-z-"),
        ("${STR//*/X}", "X"),
        ("${BAZ#a}|${BAZ%a}|${BAZ/a/b}|${BAZ//a/b}", "|||"),
        ("${STR#$FOO}|${STR#f$BAR}", "foobarbaz|oobarbaz"),
        // Neither `*` nor `?` crosses a line end.
        ("${LINES#*c}|${LINES##*b}|${LINES//b?c/x}", "ab\ncd|\ncd|ab\ncd"),
        // In `//` a replacement from a variable is a template, as in BuildKit; in `/` it is not.
        ("${STR//b?r/$DOLLAR}|${STR/b?r/$DOLLAR}", "foo[bar]$baz|foo[$0]$1$$baz"),
    ]);
}

#[test]
fn words_split_at_blanks_of_values_but_not_of_quotes() {
    for (text, expected) in [
        ("", &[][..]),
        ("  a  b ", &["a", "b"]),
        ("a$SPACE", &["aa", "b"]),
        ("a\"$SPACE\"b c", &["aa  bb", "c"]),
        (r"a\ b 'c d'", &["a b", "c d"]),
        ("\"\" a ''", &["a"]),
        ("a${BAZ:-b c}d", &["ab", "cd"]),
        ("<< EOF x", &["<< EOF", "x"]),
    ] {
        let words = Expander::new('\\').words(text, &env).unwrap();
        assert_eq!(words, expected, "{text}");
    }
}

#[test]
fn heredoc_bodies_keep_quotes() {
    let expand = |text: &str| Expander::heredoc().word(text, &env).unwrap().text;
    assert_eq!(
        expand("\"$FOO\" '${BAR:-x}' it's\n\\$FOO \\\\ `\n"),
        "\"xxx\" 'x' it's\n$FOO \\ `\n"
    );
}

#[test]
fn progress_lines_keep_quotes_and_what_is_not_set() {
    let expand = |text: &str| Expander::for_display('\\').word(text, &env).unwrap().text;
    assert_eq!(
        expand("RUN '$FOO' \"$FOO\" $BAZ ${BAZ} ${BAZ:-a} ${BAZ#a} ${BAZ/a/b} $BAR."),
        "RUN '$FOO' \"xxx\" $BAZ ${BAZ} ${BAZ:-a} ${BAZ#a} ${BAZ/a/b} ."
    );
}

#[test]
fn a_backtick_may_escape() {
    let expand = |text: &str| Expander::new('`').word(text, &env).unwrap().text;
    assert_eq!(expand("c:\\a`$FOO`` \"`\"\" x`"), "c:\\a$FOO` \" x");
}

#[test]
fn what_was_asked_for_is_told() {
    let expanded = Expander::new('\\').word("$FOO ${BAZ:-$QUX} ${BAR} '$NO'", &env).unwrap();
    assert_eq!(expanded.used.into_iter().collect::<Vec<_>>(), ["BAR", "FOO"]);
    assert_eq!(expanded.unset.into_iter().collect::<Vec<_>>(), ["BAZ", "QUX"]);
}

#[test]
fn sizes_and_depth_have_limits() {
    let huge = "x".repeat(700_000);
    let env = |name: &str| (name == "A").then(|| huge.clone());
    let expand = |text: &str| Expander::new('\\').word(text, &env).map_err(|error| error.reason);
    assert!(expand("$A").is_ok());
    assert_eq!(expand("$A$A"), Err(ExpandReason::TooLong));
    assert_eq!(expand("\"$A$A\""), Err(ExpandReason::TooLong));
    assert_eq!(expand("${A//x/yy}"), Err(ExpandReason::TooLong));
    assert_eq!(expand(&format!("${{A#{}}}", "*".repeat(1000))), Err(ExpandReason::TooLong));
    assert_eq!(expand(&"${B:-".repeat(100_000)), Err(ExpandReason::TooDeep));
    let nested = format!("{}x{}", "${B:-".repeat(60), "}".repeat(60));
    assert_eq!(expand(&nested).unwrap().text, "x");
}
