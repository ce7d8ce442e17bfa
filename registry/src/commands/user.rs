//! `rregistry user`: the file of users.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use rustix::fs::FlockOperation;
use rustix::termios::{LocalModes, OptionalActions};

use super::{random, say};
use crate::access::{MAX_PASSWORD_BYTES, UserName, Users, hash_password};
use crate::config::directory_of;

/// Who alone may read a new file of users.
const MODE: u32 = 0o600;

/// Add and remove users, and list them
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user, or give one another password
    ///
    /// Asks for the password twice. The file has the form of Apache's htpasswd; passwords are
    /// hashed by argon2id. A registry that runs sees the change within seconds.
    Add {
        /// The user's name
        name: UserName,
        #[command(flatten)]
        file: UsersFile,
        /// Read the password from standard input, up to its first line's end
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user
    #[command(visible_alias = "rm")]
    Remove {
        /// The user's name
        name: UserName,
        #[command(flatten)]
        file: UsersFile,
    },
    /// List the users
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        file: UsersFile,
    },
}

#[derive(Debug, Args)]
struct UsersFile {
    /// The file that `users-file` names in the configuration
    #[arg(short, long, value_name = "FILE", env = "RREGISTRY_USERS_FILE")]
    file: PathBuf,
}

impl UserArgs {
    /// Runs the command.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            UserCommand::Add { name, file, password_stdin } => {
                let password =
                    if *password_stdin { piped_password()? } else { typed_password(name)? };
                let hash = hash_password(&password, &random()?)?;
                let is_new = change(&file.file, name, Some(&hash))?;
                say(format_args!(
                    "{name} was {}",
                    if is_new { "added" } else { "given a new password" }
                ));
                Ok(())
            }
            UserCommand::Remove { name, file } => {
                if change(&file.file, name, None)? {
                    bail!("there is no user {name} in {}", file.file.display());
                }
                say(format_args!("{name} was removed"));
                Ok(())
            }
            UserCommand::List { file } => {
                let text = std::fs::read_to_string(&file.file)
                    .with_context(|| format!("cannot read {}", file.file.display()))?;
                check(&text, &file.file)?;
                let names = text.lines().filter_map(name_of);
                print(&names.map(|name| format!("{name}\n")).collect::<String>());
                Ok(())
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "the command line talks here")]
fn print(text: &str) {
    print!("{text}");
}

/// Returns the name that a line is about.
fn name_of(line: &str) -> Option<&str> {
    let is_user = !line.trim_end().is_empty() && !line.starts_with('#');
    is_user.then(|| line.split_once(':').map(|(name, _)| name)).flatten()
}

fn check(text: &str, path: &Path) -> anyhow::Result<()> {
    Users::parse(text, &[0; 32]).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(())
}

/// Sets or removes a user's line, and returns whether the user was not there.
///
/// The file is replaced whole: whoever reads it sees the old one or the new one.
/// Two who change it wait for each other.
fn change(path: &Path, name: &UserName, hash: Option<&str>) -> anyhow::Result<bool> {
    let directory = Path::new(".").join(directory_of(path));
    let lock =
        File::open(&directory).with_context(|| format!("cannot open {}", directory.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .with_context(|| format!("cannot lock {}", directory.display()))?;
    let (text, mode) = match std::fs::read_to_string(path) {
        Ok(text) => (text, std::fs::metadata(path)?.permissions().mode() & 0o777),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (String::new(), MODE),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    check(&text, path)?;
    let line = hash.map(|hash| format!("{name}:{hash}"));
    let mut is_new = true;
    let mut lines = Vec::new();
    for old in text.lines() {
        if name_of(old) == Some(name.as_str()) {
            is_new = false;
            lines.extend(line.clone());
        } else {
            lines.push(old.to_owned());
        }
    }
    if is_new {
        lines.extend(line);
    }
    let file_name = path.file_name().context("the file of users has no name")?;
    let next = directory.join(format!(".{}.new", file_name.to_string_lossy()));
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&next)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        for line in &lines {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        lock.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(is_new)
}

fn piped_password() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD_BYTES as u64 + 2)
        .read_to_string(&mut text)
        .context("cannot read the password")?;
    checked(text.lines().next().unwrap_or_default())
}

fn checked(password: &str) -> anyhow::Result<String> {
    match password.len() {
        0 => bail!("the password is empty"),
        1..=MAX_PASSWORD_BYTES => Ok(password.to_owned()),
        _ => bail!("the password has more than {MAX_PASSWORD_BYTES} bytes"),
    }
}

/// Asks twice at the terminal, without showing what is typed.
fn typed_password(name: &UserName) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("there is no terminal to ask at: use --password-stdin");
    }
    let first = typed(&format!("Password for {name}: "))?;
    let again = typed("Again: ")?;
    match first == again {
        true => checked(&first),
        false => bail!("the two passwords differ"),
    }
}

fn typed(prompt: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    let mut stderr = std::io::stderr();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let shown = rustix::termios::tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    writeln!(stderr)?;
    read.context("cannot read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_added_replaced_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let (alice, bob): (UserName, UserName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let hash = hash_password("wonder", &[1; 16]).unwrap();
        let other = hash_password("hunter2", &[2; 16]).unwrap();
        assert!(change(&path, &alice, Some(&hash)).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(change(&path, &bob, Some(&hash)).unwrap());
        assert!(!change(&path, &alice, Some(&other)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("alice:{other}\nbob:{hash}\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!change(&path, &alice, None).unwrap());
        assert!(change(&path, &alice, None).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("bob:{hash}\n"));
    }

    /// A file that the registry would refuse is not made worse.
    #[test]
    fn a_broken_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        std::fs::write(&path, "alice:plain\n").unwrap();
        let hash = hash_password("wonder", &[1; 16]).unwrap();
        let error = change(&path, &"bob".parse().unwrap(), Some(&hash)).unwrap_err();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "alice:plain\n");
    }
}
