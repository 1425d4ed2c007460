//! Builds that became one.

use std::sync::Arc;

use session::local::{SecretSource, SecretValues};
use session::*;
use stdx::Kind;

fn with_secret(id: &str, name: &str) -> Session {
    let secrets = SecretValues::new().with(name, SecretSource::Value(id.to_owned().into()));
    Session::direct(
        id,
        "",
        Attachables {
            secrets: Some(Arc::new(secrets)),
            ..Attachables::new()
        },
    )
}

/// Rows: N09
#[tokio::test]
async fn any_session_of_a_merged_build_answers() {
    let sessions = Sessions::new();
    let _a = sessions.register(with_secret("a", "x"));
    let _b = sessions.register(with_secret("b", "y"));
    let group = Group::of("a");
    group.join(&Group::of("b"));
    group.join(&Group::of("b"));
    assert_eq!(group.ids(), ["a", "b"]);
    let ask = |name: &'static str| {
        group.any(&sessions, async move |session: Arc<Session>| {
            session.secrets()?.get(name).await
        })
    };
    assert_eq!(ask("x").await.unwrap(), "a");
    assert_eq!(ask("y").await.unwrap(), "b");
    assert_eq!(ask("z").await.unwrap_err().kind(), Kind::NotFound);
    let nobody = Group::default();
    let asked = nobody
        .any(&sessions, async |session: Arc<Session>| session.secrets())
        .await;
    assert_eq!(asked.err().unwrap().kind(), Kind::Unavailable);
}
