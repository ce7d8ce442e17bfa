//! Runs a command over an overlay as an ordinary user:
//! `rootless DIRECTORY none|host|join USER COMMAND…`, with `lower`, `upper` and
//! `work` in the directory. The tests start it as users that are not root.
#![expect(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::PathBuf;

use sandbox::rootless::{Privileges, enter_if_needed, privileges};
use sandbox::{Network, Root, Running, Spec, Stdio};

fn main() -> Result<(), Box<dyn Error>> {
    enter_if_needed()?;
    let mut words = std::env::args().skip(1);
    let (Some(directory), Some(network), Some(user)) = (words.next(), words.next(), words.next())
    else {
        return Err("usage: rootless DIRECTORY none|host|join USER COMMAND…".into());
    };
    println!(
        "{}",
        match privileges() {
            Privileges::Root => "root",
            Privileges::Contained => "contained",
            Privileges::Denied { .. } => "denied",
            Privileges::Mapped => "mapped",
            Privileges::SingleId(_) => "single",
        }
    );
    let directory = PathBuf::from(directory);
    let root = Root::Overlay {
        lowers: vec![directory.join("lower")],
        upper: Some(directory.join("upper")),
        work: Some(directory.join("work")),
        readonly: false,
        volatile: false,
    };
    let mut spec = Spec::new(root, words.collect());
    spec.process.user = user;
    spec.network = if network == "none" { Network::None } else { Network::Host };
    spec.hostname = Some("inside".into());
    if network == "join" {
        // The command joins a sandbox in which something else runs.
        let process = spec.process.clone();
        spec.process.args = vec!["/bin/sleep".into(), "1000".into()];
        let sandbox = sandbox::spawn(&spec, Stdio::null())?;
        let target = Running { pid: sandbox.pid(), start_time: sandbox.start_time() };
        let joined = sandbox::exec(&target, &process, Stdio::inherit())?;
        println!("{}", joined.wait()?);
        return Ok(());
    }
    let sandbox = sandbox::spawn(&spec, Stdio::inherit())?;
    println!("{}", sandbox.wait()?);
    Ok(())
}
