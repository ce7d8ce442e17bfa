//! COPY and ADD.

use super::{Applied, Applying};
use crate::copy::Chmod;
use crate::dockerfile::expand::Expander;
use crate::dockerfile::{AddInstruction, Code, CopyInstruction, Files, Source};
use crate::plan::config;
use crate::plan::graph::{Action, Copy, CopySource, Origin};
use crate::plan::outline::origin;

impl Applying<'_, '_> {
    pub(super) fn copy(&mut self, copy: &CopyInstruction) -> Applied {
        let origin = match &copy.from {
            Some(from) => origin(self.stage.file, self.stage.index, from, self.instruction.span())?,
            None => Origin::Context,
        };
        self.files(&copy.files, origin, copy.parents, None)
    }

    pub(super) fn add(&mut self, add: &AddInstruction) -> Applied {
        let AddInstruction { files, checksum, unpack, keep_git_dir } = add;
        if checksum.is_some() {
            return Err(self.unsupported("ADD --checksum"));
        }
        if keep_git_dir.is_some() {
            return Err(self.unsupported("ADD --keep-git-dir"));
        }
        self.files(files, Origin::Context, false, Some(unpack.unwrap_or(true)))
    }

    /// What COPY and ADD share; `unpack` is given for ADD.
    fn files(
        &mut self,
        files: &Files,
        origin: Origin,
        parents: bool,
        unpack: Option<bool>,
    ) -> Applied {
        let text = self.display();
        let keyword = if unpack.is_some() { "ADD" } else { "COPY" };
        let mut line = keyword.to_owned();
        let chown = files.chown.as_deref().map(|text| self.expand(text)).transpose()?;
        let chmod = files.chmod.as_deref().map(|text| self.expand(text)).transpose()?;
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                line.push_str(&format!(" --{flag}={value}"));
            }
        }
        let chmod = chmod.filter(|text| !text.is_empty());
        let chmod = chmod
            .map(|text| Chmod::parse(&text))
            .transpose()
            .map_err(|reason| self.problem(Code::BadFlag, reason.to_string()))?;
        if files.link {
            line.push_str(" --link");
        }
        let mut sources = Vec::new();
        for source in &files.sources {
            let source = self.source(source, keyword)?;
            match &source {
                CopySource::Path(path) => line.push_str(&format!(" {path}")),
                CopySource::Inline { name, .. } => line.push_str(&format!(" <<{name}")),
            }
            sources.push(source);
        }
        let destination = self.expand(&files.destination)?;
        line.push_str(&format!(" {destination} # buildkit"));
        let mut target = config::join(self.stage.cwd(), &destination);
        let is_directory = matches!(destination.as_str(), "" | ".")
            || destination.ends_with('/')
            || destination.ends_with("/.");
        if is_directory && target != "/" {
            target.push('/');
        }
        let copy = Copy {
            is_add: unpack.is_some(),
            origin,
            sources,
            destination: target,
            chown: chown.filter(|text| !text.is_empty()),
            chmod,
            link: files.link,
            parents,
            exclude: files.exclude.clone(),
            unpack: unpack.unwrap_or(false),
        };
        self.step(Action::Copy(copy), text, line);
        Ok(())
    }

    fn source(&self, source: &Source, keyword: &str) -> Applied<CopySource> {
        match source {
            Source::Path(path) => {
                let path = self.expand(path)?;
                if is_remote(&path) {
                    return Err(if keyword == "COPY" {
                        self.problem(Code::BadArguments, "source can't be a URL for COPY")
                    } else {
                        self.unsupported("ADD from a URL or git repository")
                    });
                }
                Ok(CopySource::Path(path))
            }
            Source::Inline { name, content, expand } => {
                let content = if *expand {
                    let expanded = self.stage.scope.expand(Expander::heredoc(), content);
                    expanded.map_err(|reason| self.unexpanded(&reason))?
                } else {
                    content.clone()
                };
                Ok(CopySource::Inline { name: name.clone(), content })
            }
        }
    }
}

/// Returns whether a source is fetched rather than copied.
fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"]
        .iter()
        .any(|prefix| source.starts_with(prefix))
}
