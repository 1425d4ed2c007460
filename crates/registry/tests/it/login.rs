//! Logging in, and not giving the login to others.

use std::sync::Arc;

use content::Provider;
use registry::{Anonymous, Credentials, Login, Registry, Repository};
use stdx::Kind;
use testkit::image::Image;
use testkit::registry::{Fault, Login as Asks, Server};

use crate::{Always, quick, user};

async fn private(asks: Asks) -> (Server, Image) {
    let server = Server::start().await;
    let image = Image::seeded(1, 2, 1, 10);
    server.add_image("app", "1", &image);
    server.require(asks);
    (server, image)
}

fn with(server: &Server, credentials: Arc<dyn Credentials>) -> Repository {
    Registry::new(quick()).at(&server.host(), "app", credentials, false)
}

/// Rows: P29
#[tokio::test]
async fn one_token_serves_many_requests() {
    let (server, image) = private(Asks::private_token()).await;
    let app = with(&server, user());
    let found = app.resolve_reference("1").await.unwrap();
    app.manifest(&found).await.unwrap();
    for layer in &image.layers {
        app.size(&layer.descriptor).await.unwrap();
    }
    assert_eq!(server.count("GET", "/token"), 1);
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|asked| asked.status == 401)
            .count(),
        1
    );
}

/// Rows: P29
#[tokio::test]
async fn token_servers_that_know_only_the_oauth_form() {
    for refused in [404, 401, 405] {
        let asks = match Asks::private_token() {
            Asks::Token {
                username,
                password,
                anonymous_pull,
                expires_in,
                ..
            } => Asks::Token {
                username,
                password,
                anonymous_pull,
                expires_in,
                get_refused: Some(refused),
            },
            other => other,
        };
        let (server, _) = private(asks).await;
        with(&server, user()).resolve_reference("1").await.unwrap();
        assert_eq!(
            (
                server.count("GET", "/token"),
                server.count("POST", "/token")
            ),
            (1, 1),
            "{refused}"
        );
    }
}

/// Rows: P29
#[tokio::test]
async fn identity_tokens_and_basic_logins_and_anonymous_pulls() {
    let (server, _) = private(Asks::private_token()).await;
    let identity = Arc::new(Always(Login::Identity("p".into())));
    with(&server, identity)
        .resolve_reference("1")
        .await
        .unwrap();
    assert_eq!(
        (
            server.count("GET", "/token"),
            server.count("POST", "/token")
        ),
        (0, 1)
    );

    let (server, _) = private(Asks::token()).await;
    with(&server, Anonymous::shared())
        .resolve_reference("1")
        .await
        .unwrap();

    let (server, _) = private(Asks::Basic {
        username: "u".into(),
        password: "p".into(),
    })
    .await;
    with(&server, user()).resolve_reference("1").await.unwrap();
    let error = with(&server, Anonymous::shared())
        .resolve_reference("1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.hint().unwrap().starts_with("Log in first"), "{error}");
}

/// Rows: P29
#[tokio::test]
async fn a_wrong_password_is_denied_and_not_repeated() {
    let (server, _) = private(Asks::private_token()).await;
    let wrong = Arc::new(Always(Login::Password {
        username: "u".into(),
        secret: "wrong".into(),
    }));
    let error = with(&server, wrong)
        .resolve_reference("1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error.to_string().contains("incorrect username or password"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("wrong"));
    assert!(server.asked().len() <= 3);
    let error = with(&server, Anonymous::shared())
        .resolve_reference("1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error
            .to_string()
            .contains("failed to fetch anonymous token"),
        "{error}"
    );
}

/// Rows: P30, Z9
#[tokio::test]
async fn a_token_server_may_stumble() {
    let (server, _) = private(Asks::private_token()).await;
    server.fault(Fault::status(503).on("/token").times(2));
    with(&server, user()).resolve_reference("1").await.unwrap();
    assert_eq!(server.count("GET", "/token"), 3);
}

/// Rows: P26, S11
#[tokio::test]
async fn builds_share_tokens_only_with_the_same_login() {
    let (server, _) = private(Asks::private_token()).await;
    let registry = Registry::new(quick());
    for _ in 0..3 {
        registry
            .at(&server.host(), "app", user(), false)
            .resolve_reference("1")
            .await
            .unwrap();
    }
    assert_eq!(server.count("GET", "/token"), 1);
    let other = registry.at(&server.host(), "app", Anonymous::shared(), false);
    assert_eq!(
        other.resolve_reference("1").await.unwrap_err().kind(),
        Kind::Denied
    );
}

/// Rows: S10
#[tokio::test]
async fn storage_behind_a_redirect_never_sees_the_login() {
    let (server, image) = private(Asks::private_token()).await;
    let storage = Server::start().await;
    storage.add_image("app", "1", &image);
    server.fault(Fault::redirect(&format!("http://{}", storage.host())).on("/blobs/"));
    let app = with(&server, user());
    app.resolve_reference("1").await.unwrap();
    let layer = &image.layers[0];
    let bytes = content::collect(
        app.read(&layer.descriptor, 0).await.unwrap(),
        &layer.descriptor,
        1 << 20,
    )
    .await;
    assert_eq!(bytes.unwrap(), layer.bytes);
    assert!(server.asked().last().unwrap().authorization.is_some());
    assert!(
        storage
            .asked()
            .iter()
            .all(|asked| asked.authorization.is_none())
    );
    server.behave();
    server.fault(Fault::redirect(&format!("http://{}", server.host())).on("/blobs/"));
    assert!(
        app.read(&layer.descriptor, 0).await.is_err(),
        "a circle ends"
    );
}

/// A build whose client fetches tokens itself.
struct Abroad;

#[async_trait::async_trait]
impl Credentials for Abroad {
    async fn login(&self, _host: &str) -> Result<Login, registry::CredentialsError> {
        Ok(Login::Authority { id: "key".into() })
    }
    async fn fetch_token(
        &self,
        request: &registry::TokenRequest,
    ) -> Result<registry::Token, registry::CredentialsError> {
        assert_eq!(request.client_id, "buildkit-client");
        assert_eq!(request.scopes, ["repository:app:pull"]);
        Ok(registry::Token {
            token: "from-afar".into(),
            expires_in: None,
            issued_at: None,
        })
    }
}

/// Rows: P29, S11
#[tokio::test]
async fn the_client_may_fetch_tokens_itself() {
    let (server, _) = private(Asks::private_token()).await;
    let error = with(&server, Arc::new(Abroad))
        .resolve_reference("1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "the token is made up");
    assert_eq!(server.count("GET", "/token"), 0);
    assert!(
        server
            .asked()
            .iter()
            .any(|asked| asked.authorization.as_deref() == Some("Bearer from-afar"))
    );
}
