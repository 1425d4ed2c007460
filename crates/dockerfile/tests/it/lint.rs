//! Each rule is broken once, and once it is kept.

use testkit::bridge::FakeBridge;

async fn warned(dockerfile: &str) -> Vec<String> {
    let bridge = FakeBridge::new(dockerfile);
    dockerfile::build(&bridge).await.unwrap();
    bridge.warned()
}

/// Rows: F33
#[tokio::test]
async fn every_rule_speaks() {
    for (dockerfile, warning) in [
        (
            "FROM base:1 AS Build",
            "StageNameCasing: Stage name 'Build' should be lowercase (line 1)",
        ),
        (
            "FROM base:1 as b",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)",
        ),
        (
            "FROM base:1\nRUN a \\\n\n b",
            "NoEmptyContinuation: Empty continuation line (line 4)",
        ),
        (
            "FROM base:1\nRun a\nRUN b",
            "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)",
        ),
        (
            "FROM base:1 AS b\nFROM base:1 AS b",
            "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
        ),
        (
            "FROM base:1 AS context",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
        ),
        (
            "FROM base:1\nCMD a",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
        ),
        (
            "FROM base:1\nMAINTAINER me",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ),
        (
            "ARG V=1\nFROM base:1${ABSENT}",
            "UndefinedArgInFrom: FROM argument 'ABSENT' is not declared (line 2)",
        ),
        (
            "FROM base:1\nWORKDIR a",
            "WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 2)",
        ),
        (
            "FROM base:1\nCOPY $PAHT /",
            "UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 2)",
        ),
        (
            "FROM base:1\nCMD [\"a\"]\nCMD [\"b\"]",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ),
        (
            "FROM base:1\nENV a b",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
        ),
        (
            "FROM --platform=linux/arm64 base:1",
            "InvalidBaseImagePlatform: Base image base:1 was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build (line 1)",
        ),
        (
            "FROM --platform=$TARGETPLATFORM base:1",
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ),
        (
            "FROM base:1\nARG API_KEY",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\") (line 2)",
        ),
        (
            "FROM --platform=linux/amd64 base:1",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ),
        (
            "# check=experimental=InvalidDefinitionDescription\n# something\nFROM base:1 AS b",
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)",
        ),
        (
            "# check=experimental=all\nFROM base:1\n# something\nARG a b",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>` (line 4)",
        ),
        (
            "FROM base:1\nEXPOSE 80/TCP",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ),
        (
            "FROM base:1\nEXPOSE 80:80",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '80:80' (line 2)",
        ),
    ] {
        let warned = warned(dockerfile).await;
        assert!(
            warned.contains(&warning.to_owned()),
            "{dockerfile:?}: {warned:#?}"
        );
    }
}

/// Rows: F33
#[tokio::test]
async fn one_word_in_odd_case_is_one_warning() {
    for (dockerfile, warnings) in [
        (
            "From base:1 as b\nFROM base:1 AS c",
            vec![
                "ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase) (line 1)",
            ],
        ),
        (
            "FROM base:1 As b",
            vec!["FromAsCasing: 'As' and 'FROM' keywords' casing do not match (line 1)"],
        ),
        (
            "from base:1 AS b",
            vec!["FromAsCasing: 'AS' and 'from' keywords' casing do not match (line 1)"],
        ),
    ] {
        assert_eq!(warned(dockerfile).await, warnings, "{dockerfile:?}");
    }
}

/// Rows: F15, F33
#[tokio::test]
async fn a_file_with_mistakes_is_warned_about_too() {
    let bridge = FakeBridge::new("FROM base:1 AS Build\nMAINTAINER me\nCPY a b\n");
    let error = dockerfile::build(&bridge).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "dockerfile parse error on line 3: unknown instruction: CPY (did you mean COPY?)"
    );
    assert_eq!(
        bridge.warned(),
        [
            "StageNameCasing: Stage name 'Build' should be lowercase (line 1)",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"
        ]
    );
}

/// Rows: F33
#[tokio::test]
async fn the_rules_about_context_and_arguments_speak() {
    let mut bridge = FakeBridge::new("FROM base:1\nCOPY a.log b\nADD . /\n");
    bridge.file("context", ".dockerignore", "*.log\n");
    dockerfile::build(&bridge).await.unwrap();
    assert_eq!(
        bridge.warned(),
        [
            "CopyIgnoredFile: Attempting to Copy file \"a.log\" that is excluded by .dockerignore (line 2)"
        ]
    );

    let bridge = FakeBridge::new("ARG V\nFROM base:$V\n").options(&[("build-arg:V", "1")]);
    dockerfile::build(&bridge).await.unwrap();
    assert_eq!(
        bridge.warned(),
        [
            "InvalidDefaultArgInFrom: Default value for ARG base:$V results in empty or invalid base image name (line 2)"
        ]
    );
}

/// Rows: F33
#[tokio::test]
async fn a_clean_file_has_no_warning() {
    let clean = "# syntax-free\nARG V=1\nFROM base:$V AS build\nARG V\nARG PUBLIC_KEY\nENV A=$V\nWORKDIR /a\nWORKDIR b\nCOPY a ${A:-b} $A/\nEXPOSE 80 81/udp\nCMD [\"a\"]\nFROM build AS last\nSHELL [\"/bin/sh\", \"-c\"]\nCMD a\n";
    assert_eq!(warned(clean).await, Vec::<String>::new());
}

/// Rows: F12, F33
#[tokio::test]
async fn rules_are_skipped_or_become_errors() {
    assert_eq!(
        warned("# check=skip=JSONArgsRecommended\nFROM base:1\nCMD a").await,
        Vec::<String>::new()
    );
    let bridge = FakeBridge::new("# check=error=true\nFROM base:1\nCMD a");
    let error = dockerfile::build(&bridge).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "lint violation found for rules: JSONArgsRecommended"
    );
    assert_eq!(bridge.warned().len(), 1, "the warning itself is shown too");
    let bridge = FakeBridge::new("FROM base:1\nCMD a")
        .options(&[("build-arg:BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    dockerfile::build(&bridge).await.unwrap();
    assert_eq!(bridge.warned(), Vec::<String>::new());
}

/// Warnings are those of the first platform, and so are warnings that are errors.
///
/// Rows: F12, F31, F33
#[tokio::test]
async fn what_nobody_is_warned_of_is_no_error() {
    let strict = "# check=error=true\nFROM base:1\n";
    for (platforms, fails) in [
        ("linux/arm64,linux/amd64", true),
        ("linux/amd64,linux/arm64", false),
    ] {
        let bridge = FakeBridge::new(strict).options(&[("platform", platforms)]);
        let failed = dockerfile::build(&bridge).await.is_err();
        assert_eq!((failed, bridge.warned().len()), (fails, fails.into()));
    }
}

/// Rows: F33
#[tokio::test]
async fn a_warning_has_a_url_and_its_lines() {
    let bridge = FakeBridge::new("FROM base:1\nCMD a");
    dockerfile::build(&bridge).await.unwrap();
    let warnings = bridge.warnings.lock().unwrap();
    assert_eq!(
        warnings[0].url,
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
    );
    assert_eq!(warnings[0].at.as_ref().unwrap().to_string(), "Dockerfile:2");
}

/// Rows: F33
#[tokio::test]
async fn a_rule_nobody_wrote_about_has_no_url() {
    let bridge = FakeBridge::new("FROM --platform=linux/arm64 base:1");
    dockerfile::build(&bridge).await.unwrap();
    let warnings = bridge.warnings.lock().unwrap();
    let urls = warnings.iter().map(|w| (w.short.as_str(), w.url.as_str()));
    let urls: Vec<&str> = urls
        .filter(|(short, _)| short.starts_with("InvalidBaseImagePlatform"))
        .map(|(_, url)| url)
        .collect();
    assert_eq!(urls, [""]);
}
