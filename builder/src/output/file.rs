//! A file that is there as a whole or not at all, or stdout.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::spec::Destination;
use crate::error::{IoContext as _, Result};

/// What a tar is written to.
#[derive(Debug)]
pub enum Target {
    /// Nobody finds half a file under its name.
    File {
        /// What is written so far, in the same directory.
        written: NamedTempFile,
        /// The name it gets.
        path: PathBuf,
    },
    /// Stdout.
    Stdout,
}

impl Target {
    /// Begins to write.
    ///
    /// # Errors
    /// Fails when there can be no file in the directory.
    pub fn create(destination: &Destination) -> Result<Self> {
        let path = match destination {
            Destination::Stdout => return Ok(Self::Stdout),
            Destination::Path(path) => path.clone(),
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let written = tempfile::Builder::new()
            .prefix(".rbuild-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory)
            .doing("write", &path)?;
        Ok(Self::File { written, path })
    }

    /// Makes what was written appear.
    ///
    /// # Errors
    /// Fails when it cannot be written to the end.
    pub fn finish(self) -> Result<()> {
        match self {
            Self::File { written, path } => {
                written.as_file().sync_data().doing("write", &path)?;
                written.persist(&path).map_err(|error| error.error).doing("write", &path).map(drop)
            }
            Self::Stdout => io::stdout().flush().doing("write", Path::new("stdout")),
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File { written, .. } => written.write(bytes),
            Self::Stdout => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File { written, .. } => written.flush(),
            Self::Stdout => io::stdout().flush(),
        }
    }
}
