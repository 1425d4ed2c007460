//! The rules: names, what they ask for, where to read more.

/// A rule for Dockerfiles, under the name that `# check=skip=` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// `FROM a AS Name`
    StageNameCasing,
    /// `FROM a as b`
    FromAsCasing,
    /// An empty line in a continuation.
    NoEmptyContinuation,
    /// `Copy` among `RUN`s.
    ConsistentInstructionCasing,
    /// Two stages of one name.
    DuplicateStageName,
    /// A stage called `scratch` or `context`.
    ReservedStageName,
    /// `CMD` in shell form.
    JsonArgsRecommended,
    /// `MAINTAINER`
    MaintainerDeprecated,
    /// `FROM $x` without `ARG x`.
    UndefinedArgInFrom,
    /// `WORKDIR a` first.
    WorkdirRelativePath,
    /// `$x` without `ARG x` or `ENV x`.
    UndefinedVar,
    /// Two `CMD`s in a stage.
    MultipleInstructionsDisallowed,
    /// `ENV a b`
    LegacyKeyValueFormat,
    /// The image found is for another machine.
    InvalidBaseImagePlatform,
    /// `FROM --platform=$TARGETPLATFORM`
    RedundantTargetPlatform,
    /// `ARG PASSWORD`
    SecretsUsedInArgOrEnv,
    /// `FROM $x` that is empty without a build argument.
    InvalidDefaultArgInFrom,
    /// `FROM --platform=linux/amd64`
    FromPlatformFlagConstDisallowed,
    /// `COPY` of what `.dockerignore` hides.
    CopyIgnoredFile,
    /// A comment above a stage that is no description of it.
    InvalidDefinitionDescription,
    /// `EXPOSE 80/TCP`
    ExposeProtoCasing,
    /// `EXPOSE 80:80`
    ExposeInvalidFormat,
}

impl Rule {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// What it asks for.
    pub fn description(self) -> &'static str {
        self.facts().2
    }

    /// Where to read more; empty where nobody wrote more.
    pub fn url(self) -> String {
        match self.facts().1 {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }

    /// Only for those who ask for it.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Rule::StageNameCasing => (
                "StageNameCasing",
                "stage-name-casing",
                "Stage names should be lowercase",
            ),
            Rule::FromAsCasing => (
                "FromAsCasing",
                "from-as-casing",
                "The 'as' keyword should match the case of the 'from' keyword",
            ),
            Rule::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Rule::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Rule::DuplicateStageName => (
                "DuplicateStageName",
                "duplicate-stage-name",
                "Stage names should be unique",
            ),
            Rule::ReservedStageName => (
                "ReservedStageName",
                "reserved-stage-name",
                "Reserved words should not be used as stage names",
            ),
            Rule::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Rule::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Rule::UndefinedArgInFrom => (
                "UndefinedArgInFrom",
                "undefined-arg-in-from",
                "FROM command must use declared ARGs",
            ),
            Rule::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
            ),
            Rule::UndefinedVar => (
                "UndefinedVar",
                "undefined-var",
                "Variables should be defined before their use",
            ),
            Rule::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Rule::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Rule::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "",
                "Base image platform does not match expected target platform",
            ),
            Rule::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Rule::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Rule::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Rule::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Rule::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "copy-ignored-file",
                "Attempting to Copy file that is excluded by .dockerignore",
            ),
            Rule::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
            ),
            Rule::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "expose-proto-casing",
                "Protocol in EXPOSE instruction should be lowercase",
            ),
            Rule::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
            ),
        }
    }
}
