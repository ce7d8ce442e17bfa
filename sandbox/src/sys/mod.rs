//! The system calls that no safe wrapper offers.
//!
//! One function per operation; each `unsafe` block is a single call whose
//! SAFETY comment names the facts it relies on.
#![expect(unsafe_code, reason = "system calls without a safe wrapper")]

mod bpf;
mod clone;
mod mount;
mod net;
mod process;

pub(crate) use bpf::{DeviceInstruction, attach_devices, load_devices};
pub(crate) use clone::{Clone, clone_helper, fork, fork_into_user_namespace, fork_sibling};
pub(crate) use mount::{
    MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
    mount_change_attributes, mount_map_ids, mount_setattr,
};
pub(crate) use net::loopback_up;
pub(crate) use process::{
    SeccompInstruction, close_on_exec_from, copy_inherited, exec, exit_now, get_rlimit,
    ignore_hangup, inherited, install_seccomp, join_new_keyring, place_at, reset_scheduler,
    reset_signals, send_signal, set_domain_name, set_personality, set_rlimit, set_tty_size,
    take_terminal, wait_signal,
};
