//! Everything that can be wrong with a Dockerfile, and with what was asked of it.

use stdx::Kind;

use crate::instruction::MountFault;
use crate::shell;
use crate::suggest::hint;

/// One thing that is wrong. Where it stands is told beside it, see [`crate::syntax::Fault`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    // What the text is.
    /// Nothing in the file.
    #[error("the Dockerfile cannot be empty")]
    Empty,
    /// No `FROM`.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// A directive stands twice.
    #[error("only one {name} parser directive can be used")]
    DirectiveTwice {
        /// Its name.
        name: String,
    },
    /// `# escape=` something else.
    #[error("invalid escape token '{value}' does not match ` or \\")]
    BadEscape {
        /// What it says.
        value: String,
    },
    /// `# check=` with something that is no option.
    #[error("invalid check option {option:?}: known are skip, error and experimental")]
    BadCheckOption {
        /// What it says.
        option: String,
    },
    /// A here-doc without its end.
    #[error("unterminated heredoc: no line is {name:?}")]
    UnterminatedHeredoc {
        /// The word that should end it.
        name: String,
    },
    /// A JSON array with something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonNotStrings,

    /// A mistake in the text, in the words that people and scripts look for.
    #[error("dockerfile parse error on line {line}: {error}")]
    Parse {
        /// Where its instruction begins.
        line: u32,
        /// The mistake.
        error: Box<Error>,
    },

    // What instructions are.
    /// No instruction has this name.
    #[error("unknown instruction: {name}{}", hint(.suggestion))]
    UnknownInstruction {
        /// As written.
        name: String,
        /// A name that is close.
        suggestion: Option<String>,
    },
    /// The instruction has no such flag.
    #[error("unknown flag: {flag}{}", hint(.suggestion))]
    UnknownFlag {
        /// As written, without value.
        flag: String,
        /// A flag that is close.
        suggestion: Option<String>,
    },
    /// A flag stands twice.
    #[error("duplicate flag specified: {flag}")]
    DuplicateFlag {
        /// The flag.
        flag: String,
    },
    /// A flag lacks its `=value`.
    #[error("missing a value on flag: {flag}")]
    FlagWithoutValue {
        /// The flag.
        flag: String,
    },
    /// A flag has a value it cannot have.
    #[error("invalid value {value:?} on flag {flag}: expecting {expected}")]
    BadFlagValue {
        /// The flag.
        flag: String,
        /// What it has.
        value: String,
        /// What it may have.
        expected: String,
    },
    /// Nothing behind the keyword.
    #[error("{instruction} requires at least one argument")]
    NeedsArgument {
        /// The keyword.
        instruction: String,
    },
    /// Not exactly one argument.
    #[error("{instruction} requires exactly one argument")]
    NeedsOneArgument {
        /// The keyword.
        instruction: String,
    },
    /// A key without value.
    #[error("{instruction} must have two arguments")]
    NeedsTwoArguments {
        /// The keyword.
        instruction: String,
    },
    /// `COPY x` and nothing more.
    #[error(
        "{instruction} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination {
        /// The keyword.
        instruction: String,
    },
    /// A word without `=` among others with it.
    #[error("can't find = in {word:?}: must be of the form name=value")]
    NoEqualsSign {
        /// The word.
        word: String,
    },
    /// `=value`.
    #[error("{instruction} names can not be blank")]
    BlankName {
        /// The keyword.
        instruction: String,
    },
    /// A here-doc as destination.
    #[error("{instruction} cannot accept a heredoc as a destination")]
    HeredocDestination {
        /// The keyword.
        instruction: String,
    },
    /// Not `FROM a` and not `FROM a AS b`.
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// A name no stage may have.
    #[error(
        "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
    )]
    BadStageName {
        /// As written.
        name: String,
    },
    /// Something before the first `FROM`.
    #[error("no build stage in current context: {instruction} stands before the first FROM")]
    BeforeFrom {
        /// The keyword.
        instruction: String,
    },
    /// `ONBUILD ONBUILD`.
    #[error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChained,
    /// `ONBUILD FROM`.
    #[error("{instruction} isn't allowed as an ONBUILD trigger")]
    NotATrigger {
        /// The keyword.
        instruction: String,
    },
    /// A trigger in an image's config that is not one instruction.
    #[error("ONBUILD trigger {trigger:?} should be a single instruction")]
    BadTrigger {
        /// The trigger.
        trigger: String,
    },
    /// `HEALTHCHECK NONE x`.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNoneArguments,
    /// `HEALTHCHECK CMD` and nothing more.
    #[error("missing command after HEALTHCHECK CMD")]
    HealthNoCommand,
    /// Neither `CMD` nor `NONE`.
    #[error("unknown type {kind:?} in HEALTHCHECK (try CMD)")]
    HealthUnknown {
        /// As written.
        kind: String,
    },
    /// `VOLUME ""`.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `SHELL` in shell form.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellNotJson,
    /// A mount that makes no sense.
    #[error("invalid --mount={mount}: {fault}")]
    Mount {
        /// As written.
        mount: String,
        /// Why.
        fault: MountFault,
    },
    /// A port that is none.
    #[error("invalid port {port:?} in EXPOSE: {reason}")]
    BadPort {
        /// As written.
        port: String,
        /// Why.
        reason: &'static str,
    },
    /// A signal nobody knows.
    #[error("invalid signal: {signal}")]
    BadSignal {
        /// As written.
        signal: String,
    },
    /// Neither octal nor symbolic.
    #[error("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777")]
    BadMode {
        /// As written.
        mode: String,
    },

    // What it means.
    /// A word with variables that cannot be expanded.
    #[error("failed to process {word:?}: {fault}")]
    Expansion {
        /// The word.
        word: String,
        /// Why.
        fault: shell::Fault,
    },
    /// A file that becomes far more than it says.
    #[error("what its variables and stages repeat comes to more than {most} MiB")]
    TooLarge {
        /// How much may be.
        most: usize,
    },
    /// A variable where none may be.
    #[error(
        "variable expansion is not supported for {place}, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    NoVariables {
        /// Where.
        place: &'static str,
    },
    /// `FROM` with nothing after expansion.
    #[error("base name ({name}) should not be blank{}", hint(.suggestion))]
    BlankBase {
        /// As written.
        name: String,
        /// A declared argument that is close to one that is not.
        suggestion: Option<String>,
    },
    /// `FROM --platform=$x` with nothing after expansion.
    #[error("empty platform value from expression {expression}{}", hint(.suggestion))]
    EmptyPlatform {
        /// As written.
        expression: String,
        /// A declared argument that is close to one that is not.
        suggestion: Option<String>,
    },
    /// `FROM --platform=$x` with nonsense after expansion.
    #[error("failed to parse platform {platform}: {reason}{}", hint(.suggestion))]
    BadPlatform {
        /// As written.
        platform: String,
        /// What is wrong with what it became.
        reason: oci::InvalidPlatform,
        /// A declared argument that is close to one that is not.
        suggestion: Option<String>,
    },
    /// No image could have this name.
    #[error("failed to parse stage name {name:?}: invalid reference format")]
    BadImageName {
        /// After expansion.
        name: String,
    },
    /// The target is not there.
    #[error("target stage {target:?} could not be found{}", hint(.suggestion))]
    NoTarget {
        /// As asked for.
        target: String,
        /// A stage that is close.
        suggestion: Option<String>,
    },
    /// `--from=7` with fewer stages.
    #[error("invalid stage index {index}: there are {stages} stages")]
    NoStageIndex {
        /// As written.
        index: usize,
        /// How many there are.
        stages: usize,
    },
    /// Copying from a stage further down.
    #[error(
        "cannot copy from stage {from:?}, it needs to be defined before current stage {stage:?}"
    )]
    LaterStage {
        /// The one to copy from.
        from: String,
        /// The one to copy to.
        stage: String,
    },
    /// The Dockerfile is not where it should be.
    #[error("failed to read dockerfile: open {0}: no such file or directory")]
    NoDockerfile(String),
    /// Stages that need each other.
    #[error("circular dependency detected on stage: {stage} (needs {})", .path.join(", which needs "))]
    Cycle {
        /// One of them.
        stage: String,
        /// The way round.
        path: Vec<String>,
    },
    /// The base image cannot be found or read.
    #[error("{image}{}", hint(.suggestion))]
    Base {
        /// The image.
        image: String,
        /// A stage that is close.
        suggestion: Option<String>,
        /// Why.
        #[source]
        cause: Box<frontend::Error>,
    },
    /// A config that is no config.
    #[error("failed to parse image config of {image}: {reason}")]
    BadImageConfig {
        /// The image.
        image: String,
        /// What the JSON reader says.
        reason: String,
    },
    /// `COPY` from where only `ADD` may.
    #[error("source can't be {what} for COPY: use ADD")]
    RemoteCopy {
        /// `a git ref`, `a URL`.
        what: &'static str,
    },
    /// A git address that contradicts itself.
    #[error("invalid git source {address:?}: {reason}")]
    BadGitAddress {
        /// As written.
        address: String,
        /// Why.
        reason: String,
    },
    /// `ADD --checksum` where it cannot be.
    #[error("checksum {reason}")]
    Checksum {
        /// `can't be specified for multiple sources` …
        reason: String,
    },
    /// A mount on `/`.
    #[error("invalid mount target {target:?}")]
    BadMountTarget {
        /// As written.
        target: String,
    },
    /// `SOURCE_DATE_EPOCH` that is no number.
    #[error("invalid SOURCE_DATE_EPOCH: {value}")]
    BadEpoch {
        /// As given.
        value: String,
    },
    /// A named context that makes no sense.
    #[error("invalid context {name}={value:?}: {reason}")]
    BadContext {
        /// Its name.
        name: String,
        /// As given.
        value: String,
        /// Why.
        reason: String,
    },
    /// A question nobody answers.
    #[error("unsupported request {name:?}")]
    UnknownRequest {
        /// As asked.
        name: String,
    },
    /// Warnings that were asked to be errors.
    #[error("lint violation found for rules: {}", .rules.join(", "))]
    Lint {
        /// The rules, sorted.
        rules: Vec<String>,
    },
    /// Understood, and for another day.
    #[error("not supported yet: {what}")]
    NotYet {
        /// What it is.
        what: String,
    },
    /// The statements that were asked for.
    #[error(transparent)]
    Attest(#[from] attest::Error),
    /// The bridge failed.
    #[error(transparent)]
    Bridge(#[from] frontend::Error),
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoTarget { .. } | Error::NoDockerfile(_) => Kind::NotFound,
            Error::NotYet { .. } | Error::UnknownRequest { .. } => Kind::Unsupported,
            Error::Bridge(error) => error.kind(),
            Error::Attest(error) => error.kind(),
            Error::Base { cause, .. } => cause.kind(),
            Error::Parse { error, .. } => error.kind(),
            _ => Kind::InvalidInput,
        }
    }
}
