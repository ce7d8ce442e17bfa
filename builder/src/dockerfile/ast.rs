//! The tree of a Dockerfile: what was written (`Node`) and what it means (`Kind`).
//!
//! ```text
//! Dockerfile ── escape, directives
//!  ├─ globals   ARG before the first FROM
//!  └─ stages    FROM + its instructions, in the order of the file
//!      └─ Instruction = Node (keyword, flags, words, heredocs, text) + Kind (typed)
//! ```
//!
//! Words are kept as they were written, with quotes and variables: expansion
//! happens while a stage is built, when the environment is known
//! ([`super::expand`]). Two trees are equal when they say the same thing,
//! wherever it stands in the file: positions and original text do not count.

use super::diagnostic::Span;
use super::healthcheck::Healthcheck;
use super::mount::MountText;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape and continuation character: `\` or, by directive, a backtick.
    pub escape: char,
    /// The parser directives at the top, in the order of the file.
    pub directives: Vec<Directive>,
    /// The ARG instructions before the first FROM.
    pub globals: Vec<Instruction>,
    /// The stages, in the order of the file.
    pub stages: Vec<Stage>,
}

/// One `# key=value` line at the top of the file.
#[derive(Debug, Clone)]
pub struct Directive {
    /// What the directive sets.
    pub key: DirectiveKey,
    /// The value, without blanks around it.
    pub value: String,
    /// Where the line stands.
    pub span: Span,
}

/// The directives the language has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DirectiveKey {
    /// `# syntax=`: the frontend the file was written for.
    Syntax,
    /// `# escape=`: the escape character.
    Escape,
    /// `# check=`: options of the linter.
    Check,
}

/// A FROM and the instructions below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM instruction as it was written.
    pub node: Node,
    /// What the FROM says.
    pub from: FromInstruction,
    /// The instructions of the stage, without the FROM.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// Returns the name given with `AS`, in lower case.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.from.name.as_deref()
    }
}

/// One instruction: what was written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// The instruction as it was written.
    pub node: Node,
    /// The instruction as a typed value.
    pub kind: Kind,
}

impl Instruction {
    /// Returns where the instruction stands in the file.
    #[must_use]
    pub fn span(&self) -> Span {
        self.node.span
    }

    /// Returns the instruction's text on one line: continuations joined,
    /// comments dropped, without heredoc bodies. This is the text of progress
    /// lines and of the history.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.node.text
    }
}

/// The syntactic form of an instruction, before its meaning is known.
#[derive(Debug, Clone)]
pub struct Node {
    /// The first word, as written (`RUN`, `run`, `Run`).
    pub keyword: String,
    /// The `--flag` words, quotes and escapes removed.
    pub flags: Vec<String>,
    /// The arguments after the flags.
    pub args: Vec<String>,
    /// How the arguments were written.
    pub form: Form,
    /// The heredocs that follow the line.
    pub heredocs: Vec<Heredoc>,
    /// The instruction inside an ONBUILD.
    pub child: Option<Box<Node>>,
    /// The comment lines directly above, without `#` and blanks.
    pub comments: Vec<String>,
    /// The joined line, blanks around it removed.
    pub text: String,
    /// Where the instruction stands in the file.
    pub span: Span,
}

impl Node {
    /// Returns a node without words.
    pub(super) fn new(form: Form) -> Self {
        Self {
            keyword: String::new(),
            flags: Vec::new(),
            args: Vec::new(),
            form,
            heredocs: Vec::new(),
            child: None,
            comments: Vec::new(),
            text: String::new(),
            span: Span::default(),
        }
    }
}

/// How the arguments of an instruction were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Words between blanks (EXPOSE, FROM, ARG, and COPY, ADD, VOLUME without JSON).
    Words,
    /// The rest of the line as one argument (RUN, CMD, USER, …); none if it is empty.
    Line,
    /// A JSON array of strings.
    Json,
    /// `key=value` pairs of ENV and LABEL: the arguments are key, value, key, value, ….
    Pairs,
    /// The old `ENV key value` form: one key, one value.
    LegacyPair,
    /// HEALTHCHECK: a type, then the rest of the line.
    TypedLine,
    /// HEALTHCHECK: a type, then a JSON array.
    TypedJson,
    /// ONBUILD: the argument is the text of an instruction, read into `child`.
    Instruction,
}

/// A `<<WORD` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends the block, quotes removed. It also names the file.
    pub name: String,
    /// The file descriptor written before `<<`; 0 if there is none.
    pub fd: u32,
    /// Whether variables in the body are expanded: no part of the word was quoted.
    pub expand: bool,
    /// Whether `<<-` was written: leading tabs of the body are dropped.
    pub chomp: bool,
    /// The lines of the body as written, without the terminator.
    pub body: String,
}

impl Heredoc {
    /// Returns the body with leading tabs of each line removed where `<<-` asks for it.
    #[must_use]
    pub fn content(&self) -> String {
        if !self.chomp {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A typed instruction. FROM is not among them: it opens a [`Stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// ADD: files, archives, URLs and git repositories into the image.
    Add(AddInstruction),
    /// ARG: build arguments, in the order written.
    Arg(Vec<ArgDeclaration>),
    /// CMD: the default command.
    Cmd(CommandLine),
    /// COPY: files into the image.
    Copy(CopyInstruction),
    /// ENTRYPOINT: the command that CMD's words are arguments of.
    Entrypoint(CommandLine),
    /// ENV: environment variables, in the order written, unexpanded.
    Env(Vec<KeyValue>),
    /// EXPOSE: port words, in the order written, unexpanded (see [`super::expose`]).
    Expose(Vec<String>),
    /// HEALTHCHECK: how to ask a container whether it is well.
    Healthcheck(Healthcheck),
    /// LABEL: labels, in the order written, unexpanded.
    Label(Vec<KeyValue>),
    /// MAINTAINER: the author, the deprecated way.
    Maintainer(String),
    /// ONBUILD: an instruction for images built from this one.
    Onbuild(OnbuildInstruction),
    /// RUN: a command run while building.
    Run(RunInstruction),
    /// SHELL: what the shell form is passed to.
    Shell(Vec<String>),
    /// STOPSIGNAL: the signal that stops the container, unexpanded.
    StopSignal(String),
    /// USER: who runs commands from here on, unexpanded.
    User(String),
    /// VOLUME: mount points, unexpanded.
    Volume(Vec<String>),
    /// WORKDIR: the directory from here on, unexpanded.
    Workdir(String),
}

/// The meaning of a FROM line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromInstruction {
    /// The image, earlier stage or `scratch` to start from, unexpanded.
    pub base: String,
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// The value of `--platform`, unexpanded.
    pub platform: Option<String>,
}

/// A key and its value as written, quotes and variables in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key, unexpanded.
    pub key: String,
    /// The value, unexpanded.
    pub value: String,
}

/// One name of an ARG instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name.
    pub name: String,
    /// The default, unexpanded; `None` for `ARG name`, `Some("")` for `ARG name=`.
    pub default: Option<String>,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A line for the shell.
    Shell(String),
    /// The words of the command itself.
    Exec(Vec<String>),
}

impl CommandLine {
    /// Returns the words to execute: an exec form as it is, a shell form as
    /// the last argument of `shell`.
    #[must_use]
    pub fn to_args(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(args) => args.clone(),
            Self::Shell(line) => {
                shell.iter().cloned().chain(std::iter::once(line.clone())).collect()
            }
        }
    }
}

/// The meaning of a RUN line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstruction {
    /// What to run.
    pub script: Script,
    /// The `--mount` flags, in order; their values may hold variables.
    pub mounts: Vec<MountText>,
    /// The `--network` flag.
    pub network: RunNetwork,
    /// The `--security` flag.
    pub security: RunSecurity,
    /// The `--device` flags.
    pub devices: Vec<Device>,
}

/// What a RUN executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A line, or several with heredocs in them, for the shell.
    Shell(String),
    /// The words of the command itself.
    Exec(Vec<String>),
    /// A heredoc that starts with `#!`: an executable file `/dev/pipes/<name>`
    /// (mode 0755, read-only mount) whose path is passed to the shell.
    File {
        /// The file's name.
        name: String,
        /// The file's content.
        content: String,
    },
}

impl Script {
    /// Returns the words to execute, `shell` in front of the shell forms.
    #[must_use]
    pub fn to_args(&self, shell: &[String]) -> Vec<String> {
        let line = match self {
            Self::Exec(args) => return args.clone(),
            Self::Shell(line) => line.clone(),
            Self::File { name, .. } => format!("/dev/pipes/{name}"),
        };
        shell.iter().cloned().chain(std::iter::once(line)).collect()
    }
}

/// The network of one RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// What the build has.
    Default,
    /// No network.
    None,
    /// The host's network.
    Host,
}

/// The confinement of one RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSecurity {
    /// The usual sandbox.
    Sandbox,
    /// All capabilities, no seccomp filter; only where the build allows it.
    Insecure,
}

/// A `--device` flag of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The CDI name.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// What COPY and ADD have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// What to copy, in the order written; at least one.
    pub sources: Vec<Source>,
    /// Where to, unexpanded.
    pub destination: String,
    /// The value of `--chown`, unexpanded.
    pub chown: Option<String>,
    /// The value of `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// Whether `--link` is set.
    pub link: bool,
    /// The `--exclude` patterns, in order.
    pub exclude: Vec<String>,
}

/// One source of a COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, pattern or URL, unexpanded.
    Path(String),
    /// A heredoc.
    Inline {
        /// The file's name when the destination is a directory.
        name: String,
        /// The content, unexpanded.
        content: String,
        /// Whether variables in the content are expanded ([`super::expand`]).
        expand: bool,
    },
}

/// The meaning of a COPY line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Sources, destination and the flags shared with ADD.
    pub files: Files,
    /// The value of `--from`: a stage, its index, an image or a named context.
    pub from: Option<String>,
    /// Whether `--parents` is set.
    pub parents: bool,
}

/// The meaning of an ADD line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddInstruction {
    /// Sources, destination and the flags shared with COPY.
    pub files: Files,
    /// The value of `--checksum`, unexpanded.
    pub checksum: Option<String>,
    /// The value of `--unpack`; without it archives from the context are unpacked, downloads not.
    pub unpack: Option<bool>,
    /// The value of `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
}

/// The meaning of an ONBUILD line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnbuildInstruction {
    /// What the image config stores: the trigger's line and its heredocs.
    /// [`super::parse_trigger`] reads it again.
    pub expression: String,
    /// The trigger as an instruction; `None` if it is none that we know, which
    /// is an error only where it triggers.
    pub trigger: Option<Box<Instruction>>,
}

impl PartialEq for Directive {
    fn eq(&self, other: &Self) -> bool {
        (self.key, &self.value) == (other.key, &other.value)
    }
}

impl Eq for Directive {}

impl PartialEq for Node {
    /// Positions, comments, the original line and the keyword's case do not count.
    fn eq(&self, other: &Self) -> bool {
        let Self { keyword, flags, args, form, heredocs, child, comments: _, text: _, span: _ } =
            self;
        keyword.eq_ignore_ascii_case(&other.keyword)
            && (flags, args, form, heredocs, child)
                == (&other.flags, &other.args, &other.form, &other.heredocs, &other.child)
    }
}

impl Eq for Node {}
