//! The control group of a container: it has the container's id in its name,
//! so that it is found again by whoever cleans up after a crash.

use sandbox::Limits;

use super::error::{Error, Result};
use super::id::ContainerId;

/// What the names of all our control groups begin with.
const PREFIX: &str = "rrun-";

/// Returns the name of a container's control group.
pub(crate) fn name(id: &ContainerId) -> String {
    format!("{PREFIX}{id}")
}

/// Removes the control groups of containers whose programs were killed.
pub(crate) fn sweep() -> Result<()> {
    let is_ours =
        |name: &str| name.strip_prefix(PREFIX).is_some_and(|id| id.parse::<ContainerId>().is_ok());
    sandbox::cgroup::sweep(is_ours).map(drop).map_err(Error::Sandbox)
}

/// Freezes the container whose first process is `pid`.
pub(crate) fn freeze(id: &ContainerId, pid: i32) -> Result<()> {
    sandbox::cgroup::freeze(pid.cast_unsigned(), &name(id)).map_err(Error::Sandbox)
}

/// Lets it go on.
pub(crate) fn thaw(id: &ContainerId, pid: i32) -> Result<()> {
    sandbox::cgroup::thaw(pid.cast_unsigned(), &name(id)).map_err(Error::Sandbox)
}

/// Changes its limits; those that are none stay as they are.
pub(crate) fn update(id: &ContainerId, pid: i32, limits: &Limits) -> Result<()> {
    sandbox::cgroup::update(pid.cast_unsigned(), &name(id), limits).map_err(Error::Sandbox)
}

/// Tells whether it is frozen.
pub(crate) fn is_frozen(id: &ContainerId, pid: i32) -> bool {
    sandbox::cgroup::is_frozen(pid.cast_unsigned(), &name(id))
}

/// Removes a container's control group and whatever still runs in it.
pub(crate) fn destroy(id: &ContainerId) -> Result<()> {
    sandbox::cgroup::destroy(&name(id)).map(drop).map_err(Error::Sandbox)
}
