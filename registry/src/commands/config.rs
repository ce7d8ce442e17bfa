//! `rregistry config`: checks a configuration file, and describes it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{count, say};
use crate::config::{self, Config};

/// Check or describe the configuration file
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read a configuration file, and all that it names, as `serve` would
    Check {
        /// The file
        #[arg(value_name = "FILE", env = "RREGISTRY_CONFIG")]
        file: PathBuf,
    },
    /// Print the JSON schema of the file, for editors and other checks
    Schema,
}

impl ConfigArgs {
    /// Runs the command.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            ConfigCommand::Check { file } => {
                let config = Config::load(file)?;
                let loaded = config.resolve(config::directory_of(file), &[0; 32])?;
                match loaded.access {
                    None => say("there is no access control: everybody may do everything"),
                    Some(access) => say(count(access.user_count() as u64, "user")),
                }
                say(format_args!("{} is fine", file.display()));
                Ok(())
            }
            ConfigCommand::Schema => {
                print(&format!("{:#}", config::schema()));
                Ok(())
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command line talks here")]
fn print(text: &str) {
    println!("{text}");
}
