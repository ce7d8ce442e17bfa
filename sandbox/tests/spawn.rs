//! Sandboxes as their users see them: what is inside, how they end.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use sandbox::Exit;
use support::{Busybox, run};

#[test]
fn privileged_a_command_runs_and_its_status_is_returned() {
    let busybox = Busybox::new();
    assert_eq!(run(&busybox.spec(&["true"])).unwrap(), (Exit::Code(0), String::new()));
    for code in [1, 2, 42, 125, 126, 127, 128, 255] {
        let (exit, output) = run(&busybox.shell(&format!("exit {code}"))).unwrap();
        assert_eq!((exit, output.as_str()), (Exit::Code(code), ""));
    }
}
