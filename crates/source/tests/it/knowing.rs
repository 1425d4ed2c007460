//! A build's sessions as those who know passwords, by the suite all of them run.

use std::sync::Arc;

use async_trait::async_trait;
use registry::testing::Known;
use registry::{Credentials, CredentialsError, Login, Token, TokenRequest};
use session::local::Logins;
use session::{Attachables, Group, Registration, Session, Sessions};
use source::SessionCredentials;

/// The credentials, and the session they ask.
struct Held(
    SessionCredentials,
    #[expect(dead_code, reason = "held")] Registration,
);

#[async_trait]
impl Credentials for Held {
    async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        self.0.login(host).await
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        self.0.fetch_token(request).await
    }
}

async fn session(known: Option<Known>) -> Box<dyn Credentials> {
    let logins = Logins::new(Arc::new(move |host| {
        let found = known.filter(|known| known.0 == host);
        let login = found.map(|(_, user, password)| session::Credentials {
            username: user.to_owned(),
            secret: password.to_owned(),
        });
        Box::pin(std::future::ready(Ok(login.unwrap_or_default())))
    }));
    let offers = Attachables {
        auth: Some(Arc::new(logins)),
        ..Attachables::new()
    };
    let sessions = Sessions::new();
    let held = sessions.register(Session::direct("s1", "test", offers));
    let asking = SessionCredentials::new(sessions, Group::of("s1"), b"salt".to_vec());
    Box::new(Held(asking, held))
}

registry::credentials_suite!(session);
