//! The flag about how RUN steps are kept apart from the machine.

use crate::solve::Isolation;

/// How RUN steps are kept apart from the machine.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct IsolationArgs {
    /// How RUN steps are isolated; chroot works where namespaces are denied, as in a
    /// container of docker
    #[arg(
        long,
        value_enum,
        default_value = "default",
        env = "RBUILD_ISOLATION",
        value_name = "KIND"
    )]
    isolation: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Namespaces
    #[value(aliases = ["oci", "rootless"])]
    Default,
    /// A root directory and nothing else
    Chroot,
}

impl IsolationArgs {
    /// Returns what the flag asks for.
    pub(in crate::cli) fn isolation(&self) -> Isolation {
        match self.isolation {
            Kind::Default => Isolation::Namespaces,
            Kind::Chroot => Isolation::Chroot,
        }
    }
}
