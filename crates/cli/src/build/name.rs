//! Image names of `--tag`, in full: `app` becomes `docker.io/library/app:latest`.

/// The full name, or what is wrong with it.
pub(crate) fn full(text: &str) -> Result<String, String> {
    let wrong = || {
        Err(format!(
            "{text:?} is no image name: use lower case, like registry.example/app:1.0"
        ))
    };
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            (host, path.to_owned())
        }
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let part = |part: &str| {
        let ends = part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric());
        ends && part
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    let tag_is_fine = (1..=128).contains(&tag.len())
        && tag
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !tag.starts_with(['.', '-']);
    if !tag_is_fine || !path.split('/').all(part) || host.is_empty() || text.contains('@') {
        return wrong();
    }
    let host = if host == "index.docker.io" {
        "docker.io"
    } else {
        host
    };
    Ok(format!("{host}/{path}:{tag}"))
}
