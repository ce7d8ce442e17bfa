//! What people read when a file is wrong.

use insta::assert_snapshot;

use super::super::{Code, Diagnostic, Severity, Span, has_errors, parse};

fn render(text: &str) -> String {
    parse(text).1.iter().map(|found| found.render("Dockerfile", text, false)).collect()
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let text = "FROM scratch AS 1st\nCOPPY a b\nRUN --mout=type=cache --mount=type=cahce,target=/x \\\n  --network=hots true\nENV a=1 \\\n    b\n\nCMD [\"a\", 1]\n";
    assert_snapshot!(render(text), @r#"
    Dockerfile:1:17: error: invalid name for build stage: "1st", name can't start with a number or contain symbols [bad-stage-name]
    1 | FROM scratch AS 1st
      |                 ^^^
    Dockerfile:2:1: error: unknown instruction: COPPY (did you mean COPY?) [unknown-instruction]
    2 | COPPY a b
      | ^^^^^
    Dockerfile:3:5: error: unknown flag: --mout (did you mean mount?) [unknown-flag]
    3 | RUN --mout=type=cache --mount=type=cahce,target=/x \
      |     ^^^^^^^^^^^^^^^^^
    Dockerfile:4:3: error: invalid network mode "hots" (did you mean host?) [bad-flag]
    4 |   --network=hots true
      |   ^^^^^^^^^^^^^^
    Dockerfile:3:23: error: unsupported mount type "cahce" (did you mean cache?) [bad-mount]
    3 | RUN --mout=type=cache --mount=type=cahce,target=/x \
      |                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    Dockerfile:6:5: error: Syntax error - can't find = in "b". Must be of the form: name=value [bad-arguments]
    6 |     b
      |     ^
    Dockerfile:8:5: error: when using JSON array syntax, arrays must be comprised of strings only [bad-json]
    8 | CMD ["a", 1]
      |     ^^^^^^^^
    "#);
}

#[test]
fn files_with_nothing_to_build() {
    assert_snapshot!(render(""), @"Dockerfile: error: the Dockerfile cannot be empty [nothing-to-build]");
    assert_snapshot!(render("# only\n\n# comments"), @"Dockerfile: error: file with no instructions [nothing-to-build]");
    assert_snapshot!(render("ARG a=b\n"), @"Dockerfile: error: dockerfile contains no stages to build [nothing-to-build]");
    assert_snapshot!(render("RUN a\nRUN b\n"), @r"
    Dockerfile:1:1: error: no build stage in current context: RUN must come after FROM [misplaced-instruction]
    1 | RUN a
      | ^^^
    ");
}

#[test]
fn directives_that_are_wrong() {
    assert_snapshot!(render("# escape=x\n# syntax=a\n# syntax=b\nFROM a\n"), @r"
    Dockerfile:1:1: error: invalid escape token 'x' does not match ` or \ [bad-directive]
    1 | # escape=x
      | ^^^^^^^^^^
    Dockerfile:3:1: error: only one syntax parser directive can be used [bad-directive]
    3 | # syntax=b
      | ^^^^^^^^^^
    ");
}

#[test]
fn warnings_do_not_stop_a_build() {
    let text = "FROM a\nARG --x b\nRUN a \\\n\n  b\n";
    let (file, found) = parse(text);
    assert!(!has_errors(&found));
    assert_eq!(file.stages[0].instructions.len(), 2);
    assert_snapshot!(render(text), @r"
    Dockerfile:2:5: warning: ARG has no flags: --x is ignored [ignored-flag]
    2 | ARG --x b
      |     ^^^
    Dockerfile:5:1: warning: Empty continuation line [NoEmptyContinuation]
    5 |   b
      | ^
    ");
}

#[test]
fn carets_stand_below_what_they_mean() {
    // Tabs, wide characters, a byte order mark and Windows' line ends before it.
    assert_snapshot!(render("\u{feff}FROM\ta\tas\t1é\r\nUSSER é\r\n"), @r#"
    Dockerfile:1:11: error: invalid name for build stage: "1é", name can't start with a number or contain symbols [bad-stage-name]
    1 | FROM a as 1é
      |           ^^
    Dockerfile:2:1: error: unknown instruction: USSER (did you mean USER?) [unknown-instruction]
    2 | USSER é
      | ^^^^^
    "#);
}

#[test]
fn long_lines_are_cut_around_the_problem() {
    let text = format!("FROM a\nENV {} x {}\n", "a=b ".repeat(100), "c=d ".repeat(100));
    let rendered = render(&text);
    let [_, line, caret] = &rendered.lines().collect::<Vec<_>>()[..] else {
        panic!("three lines, not {rendered}")
    };
    assert!(line.chars().count() < 180, "{line}");
    let at = caret.chars().position(|c| c == '^').unwrap();
    assert_eq!(line.chars().nth(at), Some('x'), "{rendered}");
}

#[test]
fn colour_is_the_callers_choice() {
    let text = "FROMM a";
    let found = &parse(text).1[0];
    assert!(!found.render("D", text, false).contains('\u{1b}'));
    let coloured = found.render("D", text, true);
    assert!(coloured.contains("\u{1b}[1;31merror\u{1b}[0m"));
    assert!(coloured.contains("\u{1b}[1;31m^^^^^\u{1b}[0m"));
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let text = "FROM a\nUSER --\u{1b}[31m x\n";
    assert!(!render(text).contains('\u{1b}'), "{:?}", render(text));
}

#[test]
fn a_span_beyond_the_text_renders_without_an_excerpt() {
    let span = Span { line: 9, column: 7, length: 3, end_line: 9 };
    let (code, severity) = (Code::BadArguments, Severity::Error);
    let found = Diagnostic { code, severity, span, message: "m".to_owned(), suggestion: None };
    assert_eq!(found.render("D", "one line", false), "D:9:7: error: m [bad-arguments]\n");
}

#[test]
fn hostile_files_have_few_diagnostics_but_always_an_error() {
    let warnings = "RUN a \\\n\nb\n".repeat(1000);
    let (_, found) = parse(&format!("FROM a\n{warnings}NOPE\n"));
    assert!(found.len() <= 201, "{}", found.len());
    assert!(has_errors(&found));
}

#[test]
fn stages_have_an_end() {
    // A chain of 20,000 stages ended the stack of whoever planned it.
    let chain = |count: usize| {
        let stage = |at: usize| format!("FROM s{} AS s{at}\n", at - 1);
        "FROM scratch AS s0\n".to_owned() + &(1..count).map(stage).collect::<String>()
    };
    assert!(!has_errors(&parse(&chain(1000)).1));
    let (file, found) = parse(&chain(1002));
    assert_eq!(file.stages.len(), 1000);
    assert_eq!(found[0].to_string(), "a Dockerfile has at most 1000 stages");
    assert_eq!((found[0].span.line, found[0].span.column, found.len()), (1001, 1, 2));
}
