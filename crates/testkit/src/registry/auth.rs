//! Logging in: basic, and the token dance with its GET and POST forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::State;

/// What a registry asks of those who come.
#[derive(Clone, Debug, Default)]
pub enum Login {
    /// Nothing.
    #[default]
    Open,
    /// Name and password with each request.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A bearer token from `/token` of this server.
    Token {
        /// The name.
        username: String,
        /// The password; also the refresh token.
        password: String,
        /// Whether anybody may get a token for pulling.
        anonymous_pull: bool,
        /// GET on `/token` answers this status (404, 401 and 405 were all seen).
        get_refused: Option<u16>,
        /// What the answer says about the token's life.
        expires_in: Option<u64>,
    },
}

impl Login {
    /// Tokens for user `u` with password `p`; pulling is free.
    pub fn token() -> Login {
        Login::Token {
            username: "u".into(),
            password: "p".into(),
            anonymous_pull: true,
            get_refused: None,
            expires_in: Some(300),
        }
    }

    /// Tokens for user `u` with password `p`, for everything.
    pub fn private_token() -> Login {
        match Login::token() {
            Login::Token {
                username,
                password,
                get_refused,
                expires_in,
                ..
            } => Login::Token {
                username,
                password,
                anonymous_pull: false,
                get_refused,
                expires_in,
            },
            other => other,
        }
    }
}

/// `Ok` to go on, or the challenge to answer 401 with.
pub(super) fn check(
    state: &State,
    host: &str,
    needed: &[String],
    authorization: Option<&str>,
) -> Result<(), String> {
    match &state.login {
        Login::Open => Ok(()),
        Login::Basic { username, password } => {
            let expected = format!(
                "Basic {}",
                STANDARD.encode(format!("{username}:{password}"))
            );
            if authorization == Some(&expected) {
                Ok(())
            } else {
                Err("Basic realm=\"testkit\"".into())
            }
        }
        Login::Token { .. } => {
            let granted = authorization
                .and_then(|value| value.strip_prefix("Bearer "))
                .and_then(|t| state.tokens.get(t));
            let allowed =
                granted.is_some_and(|granted| needed.iter().all(|one| granted.contains(one)));
            if allowed {
                return Ok(());
            }
            Err(format!(
                "Bearer realm=\"http://{host}/token\",service=\"testkit\",scope=\"{}\"",
                needed.join(" ")
            ))
        }
    }
}

/// Answers `/token`: status and body.
pub(super) fn token(
    state: &mut State,
    method: &str,
    parameters: &[(String, String)],
    authorization: Option<&str>,
) -> (u16, String) {
    let Login::Token {
        username,
        password,
        anonymous_pull,
        get_refused,
        expires_in,
    } = state.login.clone()
    else {
        return (404, String::new());
    };
    let get = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let known = if method == "POST" {
        match get("grant_type") {
            Some("password") => {
                get("username") == Some(&username) && get("password") == Some(&password)
            }
            Some("refresh_token") => get("refresh_token") == Some(&password),
            _ => return (400, r#"{"error":"unsupported_grant_type"}"#.into()),
        }
    } else {
        if let Some(status) = get_refused {
            return (status, String::new());
        }
        let expected = format!(
            "Basic {}",
            STANDARD.encode(format!("{username}:{password}"))
        );
        authorization == Some(&expected)
    };
    if !known && (method == "POST" || authorization.is_some() || !anonymous_pull) {
        return (
            401,
            r#"{"details":"incorrect username or password"}"#.into(),
        );
    }
    let mut granted = Vec::new();
    for (_, value) in parameters.iter().filter(|(key, _)| key == "scope") {
        for scope in value.split(' ') {
            let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            let actions = actions
                .split(',')
                .filter(|action| known || *action == "pull");
            granted.extend(actions.map(|action| format!("{resource}:{action}")));
        }
    }
    let token = format!("token-{}", state.tokens.len());
    state.tokens.insert(token.clone(), granted);
    let name = if method == "POST" {
        "access_token"
    } else {
        "token"
    };
    let life = expires_in
        .map(|life| format!(",\"expires_in\":{life}"))
        .unwrap_or_default();
    (200, format!("{{\"{name}\":\"{token}\"{life}}}"))
}
