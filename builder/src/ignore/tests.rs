//! What ignore patterns match: examples, and laws.

use std::path::Path;

use proptest::prelude::*;

use super::{Ignore, IgnoreError, Matched};

fn ignore(lines: &[&str]) -> Ignore {
    Ignore::parse(&lines.join("\n")).unwrap()
}

#[test]
fn one_pattern() {
    for (pattern, path, expected) in [
        ("*", "a.go", true),
        ("*.go", "a.go", true),
        ("*.go", "a/b.go", false),
        ("**", "a/b", true),
        ("**/", "a", true),
        ("**/**", "a/b", true),
        ("dir", "dir/a/b", true),
        ("dir/", "dir/a", true),
        ("/dir", "dir", true),
        ("a/../dir", "dir", true),
        ("dir", "dirt", false),
        ("dir/**", "dir/a/b", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/b/dir/c", true),
        ("**/dir2/*", "dir/dir2/a", true),
        ("**/dir2/**", "dir/dir2/a/b", true),
        // Without a slash the end of a name is enough.
        ("**file", "a/myfile", true),
        ("**/file", "a/myfile", false),
        ("**/file", "file", true),
        ("**/.a", ".a", true),
        ("**/.a", "b.a", false),
        ("**/file*", "a/b/file.txt", true),
        ("**/file*txt", "a/b/file.txt", true),
        ("**/**/*.txt", "a.txt", true),
        ("**/**/*.txt", "a/b/c.txt", true),
        ("**/**/*.txt2", "a/b/c.txt", false),
        ("a**/*.txt", "a/b/c/x.txt", true),
        ("a**/*.txt", "ab/x.txt", true),
        ("a**b", "ab", true),
        ("a**b", "ax/b", true),
        ("a**b", "axb", false),
        ("a**", "abc/d", true),
        ("a/*.txt", "a/b/x.txt", false),
        ("a/*.txt", "a/x.txt", true),
        ("a/*.txt**", "a/x.txt", true),
        ("a/*/b", "a/x/b", true),
        ("a/*/b", "a/b", false),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("a?c", "ac", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        ("a[^b-d]e", "ace", false),
        ("a[b-]", "x", false),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcZdef", false),
        ("abc.*", "abcZdef", false),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("a.|)$(}+{b*", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("[a-ζ]*", "α", true),
        ("a?b", "a☺b", true),
        ("안*", "안녕", true),
        ("Dir", "dir", false),
        (".", "a", false),
        ("..", "a", false),
        ("/", "a", false),
    ] {
        if let Ok(ignore) = Ignore::parse(pattern) {
            assert_eq!(ignore.matches(path), expected, "{pattern} {path}");
            assert_eq!(ignore.is_ignored(Path::new(path)), expected, "{pattern} {path}");
        } else {
            assert_eq!(pattern, "a[b-]");
        }
    }
}

/// What Go's regexp makes of patterns at their edges, and so moby does.
#[test]
fn patterns_are_regular_expressions_below() {
    for (pattern, path, expected) in [
        // A class may be a slash.
        ("a[^x]b", "a/b", true),
        ("a[.-0]b", "a/b", true),
        // An escaped letter is what it is there.
        ("bin\\d*", "bin7", true),
        ("bin\\d*", "bind", false),
        ("bin\\Debug*", "binxebug", true),
        ("bin\\Debug*", "bin1ebug", false),
        ("a\\tb*", "a\tb", true),
        ("a\\.b*", "a.b", true),
        ("a\\w\\s*", "ab c", true),
        ("foo\\bar*", "fooar", false),
        ("foo\\Bar*", "fooar", true),
        ("[\\d]x", "7x", true),
        ("[\\D]x", "7x", false),
        ("[\\D]x", "ax", true),
        // Brackets do not stop the translation of stars.
        ("[*]", "^//]", true),
        ("[*]", "*", false),
        // A caret in the middle is never true, one at the start always.
        ("a^b*", "a^b", false),
        ("^b*", "bc", true),
        ("a^b", "a^b", true),
    ] {
        assert_eq!(ignore(&[pattern]).matches(path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_pattern_decides() {
    for (patterns, path, expected) in [
        (&["!a", "a"][..], "a", true),
        (&["a", "!a"], "a", false),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs/*", "!docs/README.md"], "docs/README.md", false),
        (&["docs", "!docs/README.md"], "docs/a", true),
        (&["**", "!util/web"], "util/web/a", false),
        (&["**", "!util/web", "util/web/a"], "util/web/a", true),
        (&["*", "!a", "a/b"], "a/c", false),
        (&["*", "!a", "a/b"], "a/b/c", true),
        (&["*", "!*.md"], "a.md", false),
        (&["*", "!*.md"], "a/b.md", true),
        (&["**", "!**/*.md"], "a/b.md", false),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["a", "!a/b", "a/b/c"], "a/b/d", false),
        (&["*", "! a "], "a", false),
        (&["*", "!/a"], "a", false),
        // BuildKit's walk does not ask `d*` about `dir`, which is excluded already,
        // and so does not remember that it matches.
        (&["dir", "!dir/keep", "d*"], "dir/keep", false),
        (&["dir", "!dir/keep", "d*/keep"], "dir/keep", true),
    ] {
        assert_eq!(ignore(patterns).matches(path), expected, "{patterns:?} {path}");
    }
}

#[test]
fn files_have_comments_blanks_and_a_byte_order_mark() {
    let text = "\u{feff}a\n# b\n\n  c  \r\n  # d\n!a/e\n\t\n";
    let ignore = Ignore::parse(text).unwrap();
    for (path, expected) in [
        ("a", true),
        ("b", false),
        ("# b", false),
        ("c", true),
        ("# d", true),
        ("a/e", false),
        ("a/f", true),
    ] {
        assert_eq!(ignore.matches(path), expected, "{path}");
    }
    assert!(Ignore::parse("# a\n\n").unwrap().is_empty());
    assert!(!Ignore::default().matches("a"));
}

#[test]
fn files_may_have_many_patterns() {
    let many: Vec<String> = (0..200).map(|number| format!("dir{number}")).collect();
    let ignore = Ignore::parse(&format!("{}\n!dir150/keep", many.join("\n"))).unwrap();
    for (path, expected) in [
        ("dir0/a", true),
        ("dir63/a/b", true),
        ("dir64/a/b", true),
        ("dir199/a/b/c", true),
        ("dir150/a", true),
        ("dir150/keep/a", false),
        ("dir200/a", false),
    ] {
        assert_eq!(ignore.matches(path), expected, "{path}");
    }
}

#[test]
fn the_root_is_never_excluded() {
    for path in ["", "."] {
        assert!(!ignore(&["**"]).matches(path), "{path:?}");
    }
    assert!(ignore(&["**/"]).matches("/") && !ignore(&["*"]).matches("/"), "a slash is a path");
    assert!(ignore(&["**"]).matches("/a/"), "slashes around a path do not count");
}

#[test]
fn patterns_that_are_none_are_refused_with_their_line() {
    for line in ["!", "! ", "!/"] {
        let error = Ignore::parse(&format!("a\n{line}")).unwrap_err();
        assert_eq!(error, IgnoreError::EmptyException { line: 2 }, "{line:?}");
        assert_eq!(error.to_string(), "line 2: illegal exclusion pattern: \"!\"");
    }
    for line in [
        "[",
        "a[",
        "[]a]",
        "[-]",
        "[a-",
        "a\\",
        "[^",
        "![",
        "a\\x*",
        "a\\Release*",
        "[b-a]x",
        "a\\9*",
    ] {
        let error = Ignore::parse(&format!("\n{line}")).unwrap_err();
        assert!(matches!(error, IgnoreError::BadPattern { line: 2, .. }), "{line:?}: {error}");
    }
    assert_eq!(
        Ignore::parse("a[").unwrap_err().to_string(),
        "line 1: syntax error in pattern \"a[\""
    );
}

#[test]
fn walks_need_not_enter_what_no_exception_can_reach() {
    for (patterns, dir, expected) in [
        (&["dir"][..], "dir", false),
        (&["dir", "!dir/a"], "dir", true),
        (&["dir", "!dir/a/b"], "dir/a", true),
        (&["dir", "!dir/a/b"], "dir/c", false),
        (&["dir", "!dir/a"], "dir/a", false),
        (&["*", "!*.md"], "dir", false),
        (&["*", "!*/x"], "dir", true),
        (&["*", "!*/x"], "dir/a", false),
        (&["*", "!a*/x"], "dir", false),
        (&["*", "!**/x"], "dir/a", true),
        (&["*", "!dir/**/x"], "dir/a/b", true),
        (&["*", "!dir/**/x"], "other", false),
        (&["*", "!**x"], "dir", true),
        (&["*", "!a[b]"], "dir", true),
        (&["*", "!a"], "", true),
    ] {
        assert_eq!(
            ignore(patterns).may_reinclude_below(Path::new(dir)),
            expected,
            "{patterns:?} {dir}"
        );
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-c.é]{1,3}".prop_filter("a name", |name| name != "." && name != "..")
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn pattern() -> impl Strategy<Value = String> {
    ("!?", "[a-c.*?/é]{1,6}|\\*\\*/[a-c]{1,2}|[a-c]/\\*\\*|[a-c]{1,2}/[a-c*]{1,2}|[a-b\\[\\]^\\\\-]{1,5}")
        .prop_map(|(not, rest)| format!("{not}{rest}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), path in any::<String>()) {
        if let Ok(ignore) = Ignore::parse(&text) {
            let path = Path::new(&path);
            prop_assert!(ignore.is_ignored(path) || !ignore.is_ignored(path));
            prop_assert!(ignore.may_reinclude_below(path) || !ignore.may_reinclude_below(path));
        }
    }

    #[test]
    fn a_pattern_that_is_a_path_matches_it_and_all_below(path in path(), below in path()) {
        let ignore = Ignore::parse(&path).unwrap();
        prop_assert!(ignore.matches(&path));
        let child = format!("{path}/{below}");
        prop_assert!(ignore.matches(&child));
    }

    #[test]
    fn an_exception_of_the_same_path_takes_it_back(path in path(), below in path()) {
        let ignore = Ignore::parse(&format!("{path}\n!{path}")).unwrap();
        prop_assert!(!ignore.matches(&path));
        let child = format!("{path}/{below}");
        prop_assert!(!ignore.matches(&child));
    }

    /// Skipping a directory because nothing below can be taken back is right.
    #[test]
    fn what_is_not_entered_holds_nothing(
        patterns in prop::collection::vec(pattern(), 1..5),
        dir in path(),
        below in path(),
    ) {
        if let Ok(ignore) = Ignore::parse(&patterns.join("\n"))
            && ignore.matches(&dir)
            && !ignore.may_reinclude_below(Path::new(&dir))
        {
            let child = format!("{dir}/{below}");
            prop_assert!(ignore.matches(&child), "{patterns:?} {child}");
        }
    }

    /// Walking down gives the same answers as asking for each path.
    #[test]
    fn a_walk_agrees_with_single_questions(
        patterns in prop::collection::vec(pattern(), 0..5),
        path in path(),
    ) {
        let Ok(ignore) = Ignore::parse(&patterns.join("\n")) else { return Ok(()) };
        let mut parent = Matched::default();
        let mut walked = String::new();
        for name in path.split('/') {
            walked = if walked.is_empty() { name.to_owned() } else { format!("{walked}/{name}") };
            let (is_excluded, matched) = ignore.check(&walked, &parent);
            prop_assert_eq!(is_excluded, ignore.matches(&walked), "{:?} {}", patterns, walked);
            parent = matched;
        }
    }
}

/// Stars that overlap must not be tried in every combination.
#[test]
fn hostile_patterns_take_no_exponential_time() {
    let start = std::time::Instant::now();
    for pattern in ["*a".repeat(30), "**/".repeat(30) + "x?", "[^x]*".repeat(30) + "x"] {
        let ignore = Ignore::parse(&pattern).unwrap();
        assert!(!ignore.matches(&format!("{}b", "a".repeat(4000))), "{pattern}");
    }
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(3), "took {took:?}");
}
