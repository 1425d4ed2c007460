//! What a build gave: digests on standard output and in files, answers to questions.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::Error;
use crate::build::flags::BuildFlags;
use crate::build::plan::Plan;

/// Writes what was asked for.
pub(crate) fn report(
    flags: &BuildFlags,
    plan: &Plan,
    id: &str,
    response: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if let Some(path) = &flags.metadata_file {
        write(path, &metadata(id, response))?;
    }
    if let Some(call) = plan.call {
        return answer(call.json, response);
    }
    let image = image_id(response);
    if let Some(path) = &flags.iidfile {
        write(path, image.unwrap_or_default().as_bytes())?;
    }
    if let (true, Some(image)) = (flags.quiet, image) {
        say(image)?;
    }
    Ok(())
}

/// One line on standard output.
fn say(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end_matches('\n'))
        .and_then(|()| stdout.flush())
        .map_err(Error::Output)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::File {
        doing: "writing",
        path: path.to_owned(),
        source,
    })
}

/// The config's digest for one platform, else the index's: what Docker calls the image's id.
fn image_id(response: &BTreeMap<String, String>) -> Option<&str> {
    let keys = ["containerimage.config.digest", "containerimage.digest"];
    keys.iter()
        .find_map(|key| response.get(*key))
        .map(String::as_str)
}

/// The answer, as buildx writes it: values that are JSON become JSON.
fn metadata(id: &str, response: &BTreeMap<String, String>) -> Vec<u8> {
    let mut all = Map::new();
    for (key, value) in response {
        let parsed = base64::engine::general_purpose::STANDARD
            .decode(value)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .filter(Value::is_object);
        all.insert(
            key.clone(),
            parsed.unwrap_or_else(|| Value::String(value.clone())),
        );
    }
    all.insert("buildx.build.ref".to_owned(), Value::String(id.to_owned()));
    serde_json::to_vec_pretty(&Value::Object(all)).unwrap_or_default()
}

/// The frontend's answer to a question.
fn answer(json: bool, response: &BTreeMap<String, String>) -> Result<(), Error> {
    let get = |key: &str| {
        response
            .get(&format!("frontend.{key}"))
            .or_else(|| response.get(key))
    };
    let text = if json {
        get("result.json")
    } else {
        get("result.txt").or_else(|| get("result.json"))
    };
    if let Some(text) = text {
        say(text)?;
    }
    match get("result.statuscode").and_then(|code| code.parse::<u32>().ok()) {
        Some(code @ 1..) => Err(Error::ChecksFailed(code)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// Rows: E09
    #[test]
    fn metadata_reads_as_buildx_writes_it() {
        let descriptor = base64::engine::general_purpose::STANDARD.encode(r#"{"size":7}"#);
        let response = BTreeMap::from([
            ("containerimage.descriptor".to_owned(), descriptor),
            ("containerimage.digest".to_owned(), "sha256:1".to_owned()),
        ]);
        expect![[r#"
            {
              "containerimage.descriptor": {
                "size": 7
              },
              "containerimage.digest": "sha256:1",
              "buildx.build.ref": "id"
            }"#]]
        .assert_eq(&String::from_utf8(metadata("id", &response)).unwrap());
        assert_eq!(image_id(&response), Some("sha256:1"));
    }
}
