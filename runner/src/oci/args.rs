//! The command line: that of runc, as engines write it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run containers from bundles, as engines ask for them (OCI runtime-spec)
#[derive(Debug, Parser)]
#[command(name = "rrun-oci", version, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// Directory of the containers' states [default: /run/rrun-oci, or rrun-oci
    /// in XDG_RUNTIME_DIR]
    #[arg(long)]
    pub(super) root: Option<PathBuf>,
    /// File that errors are appended to
    #[arg(long)]
    pub(super) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
    /// Log more
    #[arg(long)]
    pub(super) debug: bool,
    /// Not supported: control groups are made as files
    #[arg(long)]
    pub(super) systemd_cgroup: bool,
    /// Accepted for compatibility; ids are mapped where the configuration says
    #[arg(long, hide = true)]
    pub(super) rootless: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// key="value"
    Text,
    /// One object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a container, whose command waits for `start`
    Create(CreateArgs),
    /// Execute the command of a created container
    Start(IdArgs),
    /// Create and start a container, and wait for its end
    Run(RunArgs),
    /// Execute another command in a running container
    Exec(ExecArgs),
    /// Print the state of a container
    State(IdArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Remove a container that has ended
    Delete(DeleteArgs),
    /// List the containers
    List(ListArgs),
    /// List the processes of a container
    Ps(PsArgs),
    /// Hold all processes of a container still
    Pause(IdArgs),
    /// Let a paused container go on
    Resume(IdArgs),
    /// Change what a container may use
    Update(UpdateArgs),
    /// Write an example of a config.json
    Spec(SpecArgs),
    /// Print what this runtime can do
    Features,
    /// Print what a container uses, and what happens to it
    Events(EventsArgs),
}

/// A container.
#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Directory with config.json
    #[arg(short, long, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// Socket that gets the container's terminal
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Hand this many descriptors, from 3 on, to the command
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Refused: the root is always changed by pivot_root, where the host can
    #[arg(long, hide = true)]
    pub(super) no_pivot: bool,
    /// Accepted for compatibility; the session's keys are always new
    #[arg(long, hide = true)]
    pub(super) no_new_keyring: bool,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Return when the command is executed
    #[arg(short, long)]
    pub(super) detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub(super) keep: bool,
    #[command(flatten)]
    pub(super) create: CreateArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Socket that gets the command's terminal
    #[arg(long)]
    pub(super) console_socket: Option<PathBuf>,
    /// File that gets the process id
    #[arg(long)]
    pub(super) pid_file: Option<PathBuf>,
    /// Hand this many descriptors, from 3 on, to the command
    #[arg(long, default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Return when the command is executed
    #[arg(short, long)]
    pub(super) detach: bool,
    /// File with the process, instead of a command and the flags below
    #[arg(short, long)]
    pub(super) process: Option<PathBuf>,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Working directory
    #[arg(long)]
    pub(super) cwd: Option<PathBuf>,
    /// Set a variable (can be repeated)
    #[arg(short, long)]
    pub(super) env: Vec<String>,
    /// Who runs it: UID or UID:GID
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// Other groups (can be repeated)
    #[arg(short = 'g', long)]
    pub(super) additional_gids: Vec<u32>,
    /// Give a capability (can be repeated)
    #[arg(short, long)]
    pub(super) cap: Vec<String>,
    /// Let set-user-id bits have no effect
    #[arg(long)]
    pub(super) no_new_privs: bool,
    /// Name of the container
    pub(super) id: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// Send it to every process of the container
    #[arg(short, long)]
    pub(super) all: bool,
    /// Name of the container
    pub(super) id: String,
    /// Signal by name or number
    #[arg(default_value = "TERM")]
    pub(super) signal: String,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Kill what still runs; a container that does not exist is fine
    #[arg(short, long)]
    pub(super) force: bool,
    /// Name of the container
    pub(super) id: String,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    /// Print names only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PsArgs {
    /// Form of the list
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// File with the resources, `-` for standard input, instead of flags
    #[arg(short, long)]
    pub(super) resources: Option<PathBuf>,
    /// Memory in bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory: Option<i64>,
    /// Memory given back first, in bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_reservation: Option<i64>,
    /// Memory and swap together, in bytes
    #[arg(long, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<i64>,
    /// Weight of processor time
    #[arg(long, visible_alias = "cpu-shares")]
    pub(super) cpu_share: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Period in microseconds
    #[arg(long)]
    pub(super) cpu_period: Option<u64>,
    /// Processors
    #[arg(long)]
    pub(super) cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long)]
    pub(super) cpuset_mems: Option<String>,
    /// Processes and threads
    #[arg(long, allow_hyphen_values = true)]
    pub(super) pids_limit: Option<i64>,
    /// Weight of disk access
    #[arg(long)]
    pub(super) blkio_weight: Option<u16>,
    /// Name of the container
    pub(super) id: String,
}

#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// Directory to write it to
    #[arg(short, long, default_value = ".")]
    pub(super) bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    pub(super) rootless: bool,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Print what it uses once, and return
    #[arg(long)]
    pub(super) stats: bool,
    /// Time between two lines, as seconds with an `s`
    #[arg(long, default_value = "5s")]
    pub(super) interval: String,
    /// Name of the container
    pub(super) id: String,
}
