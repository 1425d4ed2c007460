//! Questions about a Dockerfile instead of a build: what it takes, which targets it
//! has, what is worth a word, what graph it becomes.

mod convert;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use frontend::{FrontendResult, metadata_key};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::build::{Source, without_place};
use crate::lint::LintWarning;
use crate::lower::{How, Outline};
use crate::syntax::Lines;
use crate::ui::Ui;

/// Which questions there are.
pub(crate) const DESCRIBE: &str = "frontend.subrequests.describe";
const OUTLINE: &str = "frontend.outline";
const TARGETS: &str = "frontend.targets";
const LINT: &str = "frontend.lint";
const CONVERT: &str = "frontend.convertllb";

/// All answers have this version.
const VERSION: &str = "1.0.0";

/// One question.
struct Question {
    name: &'static str,
    about: &'static str,
    options: &'static [(&'static str, &'static str)],
    answers: &'static [&'static str],
}

const QUESTIONS: [Question; 5] = [
    Question {
        name: OUTLINE,
        about: "List all parameters current build target supports",
        options: &[("target", "Target build stage")],
        answers: &["result.json", "result.txt"],
    },
    Question {
        name: TARGETS,
        about: "List all targets current build supports",
        options: &[],
        answers: &["result.json", "result.txt"],
    },
    Question {
        name: LINT,
        about: "Lint a Dockerfile",
        options: &[],
        answers: &["result.json", "result.txt", "result.statuscode"],
    },
    Question {
        name: CONVERT,
        about: "Convert Dockerfile to LLB",
        options: &[],
        answers: &["result.json"],
    },
    Question {
        name: DESCRIBE,
        about: "List available subrequest types",
        options: &[],
        answers: &["result.json", "result.txt"],
    },
];

/// What can be asked.
pub(crate) fn describe() -> FrontendResult {
    let named = |name: &str, description: &str| json!({ "name": name, "description": description });
    let mut text = vec![
        ["NAME", "VERSION", "DESCRIPTION"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut list = Vec::new();
    for Question {
        name,
        about,
        options,
        answers,
    } in QUESTIONS
    {
        let options: Vec<Value> = options
            .iter()
            .map(|(name, about)| named(name, about))
            .collect();
        let metadata: Vec<Value> = answers.iter().map(|name| named(name, "")).collect();
        list.push(json!({
            "name": name,
            "version": VERSION,
            "type": "rpc",
            "description": about,
            "opts": options,
            "metadata": metadata,
        }));
        let short = name.trim_start_matches("frontend.");
        text.push([short, VERSION, about].map(str::to_owned).to_vec());
    }
    answer_with(&Value::Array(list), Some(columns(&text, 1)))
}

/// Answers the question called `name`.
pub(crate) async fn answer(
    ui: &mut Ui<'_>,
    source: &Source,
    name: &str,
) -> Result<FrontendResult, frontend::Error> {
    match name {
        DESCRIBE => return Ok(describe()),
        OUTLINE | TARGETS | LINT | CONVERT => {}
        _ => {
            return Err(without_place(Error::UnknownRequest {
                name: name.to_owned(),
            }));
        }
    }
    if name == LINT {
        return lint(ui, source).await;
    }
    source.check(&ui.file)?;
    if name == TARGETS {
        return Ok(targets(ui, source));
    }
    ui.load_ignore().await.map_err(without_place)?;
    let platform = ui.options.platforms.first().cloned();
    let (_, lowered) = source
        .lower(
            ui,
            &How {
                platform,
                ..How::default()
            },
        )
        .await;
    let lowered = lowered?;
    Ok(match name {
        OUTLINE => outline(ui, source, &lowered.outline),
        _ => {
            let json = convert::definition(&lowered.definition).map_err(|source| {
                frontend::Error::Engine {
                    doing: "reading our own definition".into(),
                    kind: stdx::Kind::Internal,
                    source: std::sync::Arc::new(source),
                }
            })?;
            answer_with(&json, None)
        }
    })
}

fn answer_with(json: &Value, text: Option<String>) -> FrontendResult {
    let mut metadata = BTreeMap::from([
        (
            metadata_key::RESULT_JSON.to_owned(),
            Bytes::from(oci::go_json::indented(json)),
        ),
        (
            metadata_key::RESULT_VERSION.to_owned(),
            Bytes::from_static(VERSION.as_bytes()),
        ),
    ]);
    if let Some(text) = text {
        metadata.insert(metadata_key::RESULT_TEXT.to_owned(), text.into());
    }
    FrontendResult {
        metadata,
        ..FrontendResult::default()
    }
}

/// A place as the wire's JSON has it.
fn place(lines: Lines) -> Value {
    let line = |line: u32| json!({ "start": { "line": line }, "end": { "line": line } });
    let ranges: Vec<Value> = (lines.first..=lines.last)
        .filter(|l| *l > 0)
        .map(line)
        .collect();
    json!({ "ranges": ranges })
}

/// Lines of cells, each column as wide as it must be, with `gap` spaces between.
fn columns(rows: &[Vec<String>], gap: usize) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < row.len() {
                let pad = widths[at] - cell.chars().count() + gap;
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

fn targets(ui: &Ui<'_>, source: &Source) -> FrontendResult {
    let stages = &source.parsed.stages;
    let mut list = Vec::new();
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (at, stage) in stages.iter().enumerate() {
        let default = at + 1 == stages.len();
        let description = stage.description();
        let mut target = Map::new();
        if !stage.name.is_empty() {
            target.insert("name".to_owned(), stage.name.as_str().into());
        }
        if default {
            target.insert("default".into(), true.into());
        }
        for (key, value) in [
            ("description", description.as_str()),
            ("base", stage.base.as_str()),
            ("platform", stage.platform.as_str()),
        ] {
            if !value.is_empty() {
                target.insert(key.to_owned(), value.into());
            }
        }
        target.insert("location".into(), place(stage.lines));
        list.push(Value::Object(target));
        let mut name = stage.name.clone();
        if default {
            name = match name.is_empty() {
                true => "(default)".into(),
                false => format!("{name} (default)"),
            };
        }
        if !name.is_empty() {
            rows.push(vec![name, description]);
        }
    }
    let json = json!({ "targets": list, "sources": [STANDARD.encode(&ui.file.data)] });
    answer_with(&json, Some(columns(&rows, 1)))
}

fn outline(ui: &Ui<'_>, source: &Source, outline: &Outline) -> FrontendResult {
    let stage = source
        .parsed
        .stages
        .iter()
        .find(|s| !s.name.is_empty() && s.name == outline.name);
    let description = stage.map(|s| s.description()).unwrap_or_default();
    let mut json = Map::new();
    let mut text = String::new();
    if !outline.name.is_empty() {
        json.insert("name".into(), outline.name.as_str().into());
        text.push_str(&format!("TARGET: {}\n", outline.name));
        if !description.is_empty() {
            text.push_str(&format!("DESCRIPTION: {description}\n"));
            json.insert("description".into(), description.into());
        }
        text.push('\n');
    }
    let args = |arg: &crate::lower::OutlineArg| {
        let mut object = Map::from_iter([("name".to_owned(), Value::from(arg.name.as_str()))]);
        for (key, value) in [("description", &arg.description), ("value", &arg.value)] {
            if !value.is_empty() {
                object.insert(key.into(), value.as_str().into());
            }
        }
        object.insert("location".into(), place(arg.lines));
        Value::Object(object)
    };
    let needed = |(name, required, lines): &(String, bool, Lines)| match required {
        true => json!({ "name": name, "required": true, "location": place(*lines) }),
        false => json!({ "name": name, "location": place(*lines) }),
    };
    let cache = |(id, lines): &(String, Lines)| json!({ "ID": id, "location": place(*lines) });
    for (key, list) in [
        ("args", outline.args.iter().map(args).collect::<Vec<_>>()),
        ("secrets", outline.secrets.iter().map(needed).collect()),
        ("ssh", outline.agents.iter().map(needed).collect()),
        ("cache", outline.caches.iter().map(cache).collect()),
    ] {
        if !list.is_empty() {
            json.insert(key.into(), list.into());
        }
    }
    json.insert("sources".into(), json!([STANDARD.encode(&ui.file.data)]));
    text.push_str(&outline_tables(outline));
    answer_with(&Value::Object(json), Some(text))
}

fn outline_tables(outline: &Outline) -> String {
    let mut text = String::new();
    let mut table = |head: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let head = head.iter().map(|cell| (*cell).to_owned()).collect();
            let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
            text.push_str(&columns(&all, 3));
            text.push('\n');
        }
    };
    let arg =
        |a: &crate::lower::OutlineArg| vec![a.name.clone(), a.value.clone(), a.description.clone()];
    table(
        &["BUILD ARG", "VALUE", "DESCRIPTION"],
        outline.args.iter().map(arg).collect(),
    );
    let needed = |(name, required, _): &(String, bool, Lines)| {
        vec![
            name.clone(),
            if *required {
                "true".into()
            } else {
                String::new()
            },
        ]
    };
    table(
        &["SECRET", "REQUIRED"],
        outline.secrets.iter().map(needed).collect(),
    );
    table(
        &["SSH", "REQUIRED"],
        outline.agents.iter().map(needed).collect(),
    );
    text
}

/// All warnings of all stages, or of those the target needs; a mistake is an answer too.
async fn lint(ui: &mut Ui<'_>, source: &Source) -> Result<FrontendResult, frontend::Error> {
    ui.load_ignore().await.map_err(without_place)?;
    let (mut warnings, failed) = match source.check(&ui.file) {
        Err(error) => (source.warnings_only(ui), Some(error)),
        Ok(()) => {
            let platform = ui.options.platforms.first().cloned();
            let how = How {
                platform,
                all_stages: ui.options.target.is_empty(),
                quiet: false,
            };
            let (warnings, lowered) = source.lower(ui, &how).await;
            (warnings, lowered.err())
        }
    };
    warnings.sort_by_key(|warning| (warning.lines, warning.rule));
    let one = |warning: &LintWarning| {
        json!({
            "ruleName": warning.rule.name(),
            "description": warning.rule.description(),
            "url": warning.rule.url(),
            "detail": warning.message,
            "location": place(warning.lines),
        })
    };
    let file = &ui.file;
    let list: Vec<Value> = warnings.iter().map(one).collect();
    let mut json = json!({
        // An empty list is none, as clients have always got it.
        "warnings": if list.is_empty() { Value::Null } else { Value::Array(list) },
        "sources": [{
            "filename": file.name,
            "data": STANDARD.encode(&file.data),
            "definition": file.definition.as_ref().map(convert::embedded),
            "language": file.language,
        }],
    });
    let mut text: String = warnings.iter().map(|w| lint_text(ui, w)).collect();
    if let Some(error) = &failed {
        let line = |l: &frontend::SourceLocation| l.ranges.first().map_or(0, |r| r.start.line);
        let lines = error.locations().first().map_or(0, line);
        json["buildError"] =
            json!({ "message": error.to_string(), "location": place(Lines::one(lines)) });
        text.push_str(&format!("ERROR: {error}\n"));
    }
    let mut result = answer_with(&json, Some(text));
    let status = if warnings.is_empty() && failed.is_none() {
        "0"
    } else {
        "1"
    };
    result.metadata.insert(
        metadata_key::RESULT_STATUS.to_owned(),
        Bytes::from_static(status.as_bytes()),
    );
    Ok(result)
}

fn lint_text(ui: &Ui<'_>, warning: &LintWarning) -> String {
    let head = format!(
        "\nWARNING: {} - {}\n{}\n",
        warning.rule.name(),
        warning.rule.url(),
        warning.message
    );
    let location = crate::build::location(&ui.file, warning.lines);
    let rule = "-".repeat(20);
    let line = |(number, text, meant): (u32, String, bool)| {
        let mark = if meant { ">>>" } else { "   " };
        format!("{number:4} | {mark} {text}\n")
    };
    let lines: String = location.excerpt(2).into_iter().map(line).collect();
    format!("{head}{location}\n{rule}\n{lines}{rule}\n")
}
