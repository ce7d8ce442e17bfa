//! COPY and ADD.

use super::{Applied, Applying};
use crate::copy::Chmod;
use crate::dockerfile::expand::Expander;
use crate::dockerfile::{AddInstruction, Code, CopyInstruction, Files, Source};
use crate::fetch::{Remote, without_password};
use crate::plan::config;
use crate::plan::graph::{Action, Copy, CopySource, Origin};
use crate::plan::outline::origin;
use crate::plan::stage::Progress;

impl Applying<'_, '_> {
    pub(super) fn copy(&mut self, copy: &CopyInstruction) -> Applied {
        let origin = match &copy.from {
            Some(from) => {
                let Progress { file, options, index, .. } = &*self.stage;
                origin(file, &options.contexts, *index, from, self.instruction.span())?
            }
            None => Origin::Context,
        };
        self.files(&copy.files, origin, copy.parents, None)
    }

    pub(super) fn add(&mut self, add: &AddInstruction) -> Applied {
        let AddInstruction { files, checksum, unpack, keep_git_dir } = add;
        let checksum = checksum.as_deref().map(|text| self.expand(text)).transpose()?;
        let checksum = checksum.filter(|text| !text.is_empty());
        if checksum.is_some() && files.sources.len() != 1 {
            let message = "checksum can't be specified for multiple sources";
            return Err(self.problem(Code::BadFlag, message));
        }
        let add = Adding { checksum, keep_git_dir: *keep_git_dir, unpack: *unpack };
        self.files(files, Origin::Context, false, Some(&add))
    }

    /// What COPY and ADD share; `add` is given for ADD.
    fn files(
        &mut self,
        files: &Files,
        origin: Origin,
        parents: bool,
        add: Option<&Adding>,
    ) -> Applied {
        let text = self.display();
        let mut line = if add.is_some() { "ADD" } else { "COPY" }.to_owned();
        if parents {
            line.push_str(" --parents");
        }
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
            let (source, shown) = self.source(source, add)?;
            line.push(' ');
            line.push_str(&shown);
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
            is_add: add.is_some(),
            origin,
            sources,
            destination: target,
            chown: chown.filter(|text| !text.is_empty()),
            chmod,
            link: files.link,
            parents,
            exclude: files.exclude.clone(),
            unpack: add.is_some_and(|add| add.unpack.unwrap_or(true)),
        };
        self.step(Action::Copy(copy), text, line);
        Ok(())
    }

    /// Returns a source, and how the history shows it.
    fn source(&self, source: &Source, add: Option<&Adding>) -> Applied<(CopySource, String)> {
        match source {
            Source::Path(path) => {
                let path = self.expand(path)?;
                let shown = without_password(&path);
                let remote = Remote::parse(&path)
                    .map_err(|reason| self.problem(Code::BadArguments, reason))?;
                let source = match remote {
                    Some(remote) => self.remote(remote, add)?,
                    None if add.is_some_and(|add| add.checksum.is_some()) => {
                        let message = "checksum requires HTTP(S) or Git sources";
                        return Err(self.problem(Code::BadFlag, message));
                    }
                    None => CopySource::Path(path),
                };
                Ok((source, shown))
            }
            Source::Inline { name, content, expand } => {
                let content = if *expand {
                    let expanded = self.stage.scope.expand(Expander::heredoc(), content);
                    expanded.map_err(|reason| self.unexpanded(&reason))?
                } else {
                    content.clone()
                };
                let shown = format!("<<{name}");
                Ok((CopySource::Inline { name: name.clone(), content }, shown))
            }
        }
    }

    /// A source that is fetched.
    fn remote(&self, remote: Remote, add: Option<&Adding>) -> Applied<CopySource> {
        let bad = |message: String| self.problem(Code::BadArguments, message);
        let Some(add) = add else {
            let what = match remote {
                Remote::Http(_) => "URL",
                Remote::Git(_) => "git ref",
            };
            return Err(bad(format!("source can't be a {what} for COPY")));
        };
        Ok(match remote {
            Remote::Http(url) => {
                let checksum = add.checksum.as_deref().map(str::parse).transpose();
                let checksum =
                    checksum.map_err(|error| bad(format!("invalid checksum: {error}")))?;
                CopySource::Http { url, checksum, unpack: add.unpack.unwrap_or(false) }
            }
            Remote::Git(mut git) => {
                match (add.keep_git_dir, git.keep_git_dir) {
                    (Some(flag), Some(query)) if flag != query => {
                        return Err(bad("inconsistent keep-git-dir configuration".to_owned()));
                    }
                    _ => {}
                }
                match (&add.checksum, &git.checksum) {
                    (Some(flag), Some(query)) if flag != query => {
                        return Err(bad(format!("checksum mismatch {flag:?} != {query:?}")));
                    }
                    (Some(flag), None) => git.set_checksum(flag).map_err(bad)?,
                    _ => {}
                }
                CopySource::Git { git, keep_git_dir: add.keep_git_dir.unwrap_or(false) }
            }
        })
    }
}

/// The flags that only ADD has.
struct Adding {
    checksum: Option<String>,
    keep_git_dir: Option<bool>,
    unpack: Option<bool>,
}
