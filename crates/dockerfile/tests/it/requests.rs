//! Questions instead of builds.

use frontend::metadata_key;
use serde_json::{Value, json};

use testkit::bridge::FakeBridge;

async fn ask(
    dockerfile: &str,
    request: &str,
    options: &[(&str, &str)],
) -> (Value, String, Option<String>) {
    let bridge = FakeBridge::new(dockerfile)
        .options(&[("requestid", request)])
        .options(options);
    let result = dockerfile::build(&bridge).await.unwrap();
    let text = |key: &str| {
        result
            .metadata
            .get(key)
            .map(|b| String::from_utf8(b.to_vec()).unwrap())
    };
    assert_eq!(text(metadata_key::RESULT_VERSION).unwrap(), "1.0.0");
    let json = serde_json::from_str(&text(metadata_key::RESULT_JSON).unwrap()).unwrap();
    (
        json,
        text(metadata_key::RESULT_TEXT).unwrap_or_default(),
        text(metadata_key::RESULT_STATUS),
    )
}

/// Rows: F07
#[tokio::test]
async fn what_can_be_asked_is_told() {
    let (json, text, _) = ask("FROM base:1", "frontend.subrequests.describe", &[]).await;
    let names: Vec<&str> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "frontend.outline",
            "frontend.targets",
            "frontend.lint",
            "frontend.convertllb",
            "frontend.subrequests.describe"
        ]
    );
    assert!(text.starts_with("NAME"), "{text}");
}

/// Rows: F07
#[tokio::test]
async fn targets_are_listed() {
    let (json, text, _) = ask(
        "# build makes it\nFROM base:1 AS build\nFROM scratch\n",
        "frontend.targets",
        &[],
    )
    .await;
    assert_eq!(json["targets"][0]["name"], "build");
    assert_eq!(json["targets"][0]["description"], "makes it");
    assert_eq!(json["targets"][0]["base"], "base:1");
    assert_eq!(json["targets"][1]["default"], true);
    assert_eq!(
        json["targets"][1]["location"]["ranges"][0]["start"]["line"],
        3
    );
    assert_eq!(
        text,
        "TARGET    DESCRIPTION\nbuild     makes it\n(default) \n"
    );
}

/// Rows: F07, F21, F23
#[tokio::test]
async fn an_outline_has_what_the_target_takes() {
    let dockerfile = "ARG V=1\nARG UNUSED=2\nFROM base:${V} AS build\n# MODE how to build\nARG MODE=fast\nRUN --mount=type=secret,id=tok,required=true --mount=type=ssh --mount=type=cache,target=/c x\nFROM base:1\nARG OTHER\n";
    let (json, text, _) = ask(dockerfile, "frontend.outline", &[("target", "build")]).await;
    assert_eq!(json["name"], "build");
    assert_eq!(
        json["args"][0],
        json!({"name":"V","value":"1","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}})
    );
    assert_eq!(json["args"][1]["description"], "how to build");
    assert_eq!(json["args"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&json["secrets"][0]["name"], &json["secrets"][0]["required"]),
        (&json!("tok"), &json!(true))
    );
    assert_eq!(json["ssh"][0]["name"], "default");
    assert_eq!(json["cache"][0]["ID"], "/c");
    assert!(
        text.contains("BUILD ARG   VALUE   DESCRIPTION\nV           1"),
        "{text}"
    );
}

/// An argument that is declared anew with its own earlier value keeps what that one was made of.
///
/// Rows: F07, F21
#[tokio::test]
async fn an_outline_has_what_an_argument_was_made_of() {
    let dockerfile = "ARG A=1\nARG UNUSED=u\nARG B=b\nARG A=${A}${B}\nARG C=${A}2\nARG A=${A}3${C}\nFROM scratch\nARG A\n";
    let (json, _, _) = ask(dockerfile, "frontend.outline", &[]).await;
    let args = json["args"].as_array().unwrap();
    let shown: Vec<_> = args
        .iter()
        .map(|arg| {
            (
                arg["name"].as_str().unwrap(),
                arg["value"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(shown, [("B", "b"), ("C", "1b2"), ("A", "1b31b2")]);
}

/// Rows: F07, F34
#[tokio::test]
async fn a_check_lists_warnings_and_mistakes() {
    let (json, text, status) = ask(
        "FROM base:1 AS a\nCMD x\nFROM base:1\nENV a b\n",
        "frontend.lint",
        &[],
    )
    .await;
    let rules: Vec<&str> = json["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| w["ruleName"].as_str().unwrap())
        .collect();
    assert_eq!(
        rules,
        ["JSONArgsRecommended", "LegacyKeyValueFormat"],
        "stages nobody needs are looked at too"
    );
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    assert_eq!(status.unwrap(), "1");
    assert!(
        text.contains(
            "Dockerfile:2\n--------------------\n   1 |     FROM base:1 AS a\n   2 | >>> CMD x\n"
        ),
        "{text}"
    );

    let (json, _, status) = ask("FROM base:1\nCPY a b\n", "frontend.lint", &[]).await;
    assert_eq!(
        json["buildError"]["message"],
        "dockerfile parse error on line 2: unknown instruction: CPY (did you mean COPY?)"
    );
    assert_eq!(
        json["buildError"]["location"]["ranges"][0]["start"]["line"],
        2
    );
    assert_eq!(status.unwrap(), "1");

    let strict = "# check=error=true\nFROM base:1\nCMD x\n";
    let (json, _, status) = ask(strict, "frontend.lint", &[]).await;
    assert_eq!(
        json["buildError"]["message"],
        "lint violation found for rules: JSONArgsRecommended"
    );
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(status.unwrap(), "1");

    let (json, _, status) = ask("FROM base:1\n", "frontend.lint", &[]).await;
    assert_eq!(
        (json["warnings"].is_null(), status.unwrap().as_str()),
        (true, "0")
    );
}
