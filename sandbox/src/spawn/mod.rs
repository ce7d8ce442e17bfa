//! The caller's half: starting processes through the helper and waiting for them.

mod answers;
mod channel;
mod child;
mod helper;
mod plan;
mod running;
mod start;

pub(crate) use channel::{Channel, EXEC_FAILED, Message, Pause};
pub use child::{Exit, Killer, Sandboxed, send_signal};
pub(crate) use helper::{find as find_helper, open as open_helper};
pub(crate) use plan::{CgroupMount, Enter, Own, Plan};
pub use running::Running;
pub(crate) use running::find_start_time_of;
pub(crate) use start::{Request, linger, start};
pub use start::{Stdio, Stream, exec, exec_detached, hold, spawn};
