//! Logins that `docker login` and `podman login` left on this machine:
//! `config.json` and `auth.json`, with their credential helpers.
//!
//! The order is Docker's: a helper named for the host, then the helper for
//! everything, then what is in the file itself. Podman's file is asked after
//! Docker's. For whoever starts a build; the daemon asks the session instead.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use serde::Deserialize;
use stdx::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::credentials::{Credentials, CredentialsError, Login};

/// How Docker Hub is called in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// A helper may ask a person to unlock a keyring, but not for ever.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// A helper's answer is one small JSON object.
const MAX_ANSWER: u64 = 1 << 20;

/// The logins of one person.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig {
    files: Vec<File>,
    /// Where helpers are looked for instead of `PATH`.
    helpers: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: String,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

/// Shows nothing of what it holds.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl DockerConfig {
    /// The files where people have them. `variable` reads the environment.
    pub fn usual_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let folder = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let home = folder("HOME");
        let docker =
            folder("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let podman = [
            folder("REGISTRY_AUTH_FILE"),
            folder("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json")),
            folder("XDG_CONFIG_HOME")
                .or_else(|| home.map(|home| home.join(".config")))
                .map(|config| config.join("containers/auth.json")),
        ];
        docker
            .map(|docker| docker.join("config.json"))
            .into_iter()
            .chain(podman.into_iter().flatten())
            .collect()
    }

    /// Reads the files that exist. Blocking; the files are small.
    pub fn read(paths: &[PathBuf]) -> Result<DockerConfig, CredentialsError> {
        let mut files = Vec::new();
        for path in paths {
            let wrong = |reason: String| {
                CredentialsError::new(Kind::InvalidInput, format!("{}: {reason}", path.display()))
            };
            match std::fs::read(path) {
                Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
                Ok(bytes) => files.push(
                    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?,
                ),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(wrong(error.to_string())),
            }
        }
        Ok(DockerConfig {
            files,
            helpers: None,
        })
    }

    /// Looks for helpers in `folder` instead of `PATH`.
    pub fn with_helpers_in(mut self, folder: impl Into<PathBuf>) -> DockerConfig {
        self.helpers = Some(folder.into());
        self
    }

    async fn ask_file(&self, file: &File, keys: &[&str]) -> Result<Login, CredentialsError> {
        let own = keys
            .iter()
            .find_map(|key| file.cred_helpers.get(*key).map(|helper| (*key, helper)));
        let helper =
            own.or_else(|| (!file.creds_store.is_empty()).then_some((keys[0], &file.creds_store)));
        if let Some((key, helper)) = helper {
            let login = self.ask_helper(helper, key).await?;
            if login != Login::Anonymous {
                return Ok(login);
            }
        }
        let exact = keys.iter().find_map(|key| file.auths.get(*key));
        let entry = exact.or_else(|| {
            file.auths
                .iter()
                .find(|(key, _)| keys.contains(&host_of(key)))
                .map(|(_, entry)| entry)
        });
        entry.map_or(Ok(Login::Anonymous), Entry::login)
    }

    /// Runs `docker-credential-<helper> get` (docker-credential-helpers).
    async fn ask_helper(&self, helper: &str, key: &str) -> Result<Login, CredentialsError> {
        let failed = |reason: String| {
            CredentialsError::new(
                Kind::Unavailable,
                format!("docker-credential-{helper}: {reason}"),
            )
        };
        if helper.is_empty() || helper.contains(['/', '\0']) {
            return Err(CredentialsError::new(
                Kind::InvalidInput,
                format!("`{helper}` is no credential helper"),
            ));
        }
        let name = format!("docker-credential-{helper}");
        let program = self
            .helpers
            .as_deref()
            .map_or_else(|| PathBuf::from(&name), |dir: &Path| dir.join(&name));
        let mut child = tokio::process::Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let mut stdin = child.stdin.take().expect("piped above");
        let stdout = child.stdout.take().expect("piped above");
        let talk = async {
            // A helper that does not read its input still answers.
            drop(stdin.write_all(key.as_bytes()).await);
            drop(stdin);
            let mut answer = Vec::new();
            stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>((child.wait().await?, answer))
        };
        let (status, answer) = tokio::time::timeout(HELPER_TIMEOUT, talk)
            .await
            .map_err(|_| failed(format!("no answer for {HELPER_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if !status.success() {
            let said = String::from_utf8_lossy(&answer).trim().to_owned();
            return match said.contains("credentials not found")
                || said.contains("no credentials server URL")
            {
                true => Ok(Login::Anonymous),
                false => Err(failed(said)),
            };
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            #[serde(default)]
            username: String,
            #[serde(default)]
            secret: String,
        }
        let Answer { username, secret } = serde_json::from_slice(&answer)
            .map_err(|error| failed(format!("its answer cannot be read: {error}")))?;
        Ok(match (username.as_str(), secret.is_empty()) {
            (_, true) => Login::Anonymous,
            ("<token>", false) => Login::Identity(secret),
            _ => Login::Password { username, secret },
        })
    }
}

impl Entry {
    fn login(&self) -> Result<Login, CredentialsError> {
        let broken = |reason: &str| {
            CredentialsError::new(Kind::InvalidInput, format!("an entry of auths {reason}"))
        };
        if !self.registrytoken.is_empty() {
            return Ok(Login::Bearer(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Login::Identity(self.identitytoken.clone()));
        }
        if self.auth.is_empty() {
            let (username, secret) = (self.username.clone(), self.password.clone());
            return Ok(if secret.is_empty() {
                Login::Anonymous
            } else {
                Login::Password { username, secret }
            });
        }
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(self.auth.trim())
            .map_err(|_| broken("is not base64"))?;
        let text = String::from_utf8(decoded).map_err(|_| broken("is not text"))?;
        let (username, secret) = text.split_once(':').ok_or_else(|| broken("has no colon"))?;
        Ok(Login::Password {
            username: username.to_owned(),
            secret: secret.trim_end_matches('\0').to_owned(),
        })
    }
}

/// `https://host/v1/` as `host`.
fn host_of(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        let keys: &[&str] = match host {
            "registry-1.docker.io" | "docker.io" | "index.docker.io" => &[
                DOCKER_HUB,
                "docker.io",
                "index.docker.io",
                "registry-1.docker.io",
            ],
            other => &[other],
        };
        for file in &self.files {
            let login = self.ask_file(file, keys).await?;
            if login != Login::Anonymous {
                return Ok(login);
            }
        }
        Ok(Login::Anonymous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> DockerConfig {
        DockerConfig {
            files: vec![serde_json::from_str(json).unwrap()],
            helpers: None,
        }
    }

    fn password(username: &str, secret: &str) -> Login {
        Login::Password {
            username: username.into(),
            secret: secret.into(),
        }
    }

    #[tokio::test]
    async fn logins_in_the_file_are_found_by_host() {
        let config = config(
            r#"{"auths":{
                "https://index.docker.io/v1/":{"auth":"dTpwOnE="},
                "https://old.example/v1/":{"username":"a","password":"b"},
                "token.example":{"identitytoken":"T","auth":"PHRva2VuPjo="},
                "ready.example:5000":{"registrytoken":"R"},
                "empty.example":{}},
              "HttpHeaders":{"X":"y"}}"#,
        );
        assert_eq!(
            config.login("registry-1.docker.io").await.unwrap(),
            password("u", "p:q")
        );
        assert_eq!(
            config.login("old.example").await.unwrap(),
            password("a", "b")
        );
        assert_eq!(
            config.login("token.example").await.unwrap(),
            Login::Identity("T".into())
        );
        assert_eq!(
            config.login("ready.example:5000").await.unwrap(),
            Login::Bearer("R".into())
        );
        assert_eq!(
            config.login("empty.example").await.unwrap(),
            Login::Anonymous
        );
        assert_eq!(
            config.login("other.example").await.unwrap(),
            Login::Anonymous
        );
    }

    #[tokio::test]
    async fn broken_entries_are_errors_and_not_anonymous() {
        for auth in ["%%%", "bm9jb2xvbg==", "//79"] {
            let config = config(&format!(r#"{{"auths":{{"h":{{"auth":"{auth}"}}}}}}"#));
            assert_eq!(
                config.login("h").await.unwrap_err().kind,
                Kind::InvalidInput,
                "{auth}"
            );
        }
    }

    #[tokio::test]
    async fn the_helper_of_the_host_comes_before_the_general_one_and_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        helper(
            "own",
            r#"read h; [ "$1" = get ] && echo "{\"ServerURL\":\"$h\",\"Username\":\"own\",\"Secret\":\"$h\"}""#,
        );
        helper("all", r#"echo '{"Username":"<token>","Secret":"T"}'"#);
        helper(
            "none",
            "echo credentials not found in native keychain; exit 1",
        );
        helper("bad", "echo keyring is locked; exit 1");
        let with = |json: &str| config(json).with_helpers_in(dir.path());
        let both =
            with(r#"{"auths":{"h":{"auth":"dTpw"}},"credsStore":"all","credHelpers":{"h":"own"}}"#);
        assert_eq!(both.login("h").await.unwrap(), password("own", "h"));
        assert_eq!(both.login("g").await.unwrap(), Login::Identity("T".into()));
        let none = with(r#"{"auths":{"h":{"auth":"dTpw"}},"credsStore":"none"}"#);
        assert_eq!(none.login("h").await.unwrap(), password("u", "p"));
        assert_eq!(none.login("g").await.unwrap(), Login::Anonymous);
        let error = with(r#"{"credsStore":"bad"}"#)
            .login("h")
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "docker-credential-bad: keyring is locked"
        );
        assert!(
            with(r#"{"credsStore":"../../bin/sh"}"#)
                .login("h")
                .await
                .is_err()
        );
        assert!(
            with(r#"{"credsStore":"missing"}"#)
                .login("h")
                .await
                .is_err()
        );
    }

    #[test]
    fn files_are_looked_for_where_docker_and_podman_have_them() {
        let env = |name: &str| match name {
            "HOME" => Some("/h".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
            _ => None,
        };
        let expected = [
            "/h/.docker/config.json",
            "/run/user/1/containers/auth.json",
            "/h/.config/containers/auth.json",
        ];
        assert_eq!(DockerConfig::usual_files(env), expected.map(PathBuf::from));
    }
}
