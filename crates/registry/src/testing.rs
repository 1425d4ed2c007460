//! What every [`Credentials`] promises, as tests. A new one proves itself with
//! `registry::credentials_suite!(mine_with)`, where
//! `async fn mine_with(known: Option<(&str, &str, &str)>) -> Box<dyn Credentials>` makes one that
//! knows this host, user and password, or nothing, as far as it can know anything.

use stdx::Kind;

use crate::{Credentials, Login, TokenRequest};

/// A host, a user, a password.
pub type Known = (&'static str, &'static str, &'static str);

const KNOWN: Known = ("known.example:5000", "user", "pa:ss wörd");

/// Hosts that look like the known one and are others.
const OTHERS: [&str; 5] = [
    "known.example",
    "known.example:5001",
    "known.example:500",
    "xknown.example:5000",
    "example:5000",
];

/// The password goes to its host and to no other, however alike their names.
pub async fn a_password_is_for_its_host_only(
    with: impl AsyncFn(Option<Known>) -> Box<dyn Credentials>,
) {
    let mine = with(Some(KNOWN)).await;
    let login = Login::Password {
        username: KNOWN.1.to_owned(),
        secret: KNOWN.2.to_owned(),
    };
    assert!(mine.login(KNOWN.0).await.unwrap() == login);
    for host in OTHERS {
        assert_eq!(mine.login(host).await.unwrap(), Login::Anonymous, "{host}");
    }
}

/// Not to know a host is no error: it is asked as nobody.
pub async fn an_unknown_host_is_asked_as_nobody(
    with: impl AsyncFn(Option<Known>) -> Box<dyn Credentials>,
) {
    let mine = with(None).await;
    for host in ["registry-1.docker.io", "ghcr.io", "localhost:5000", ""] {
        assert_eq!(mine.login(host).await.unwrap(), Login::Anonymous, "{host}");
    }
}

/// Many may ask at once, and all hear the same.
pub async fn many_ask_at_once(with: impl AsyncFn(Option<Known>) -> Box<dyn Credentials>) {
    let mine = with(Some(KNOWN)).await;
    let alone = mine.login(KNOWN.0).await.unwrap();
    let asked = futures::future::join_all((0..50).map(|_| mine.login(KNOWN.0))).await;
    for login in asked {
        assert_eq!(login.unwrap(), alone);
    }
}

/// Nothing that is shown of a login holds its secret.
pub async fn a_secret_is_never_shown(with: impl AsyncFn(Option<Known>) -> Box<dyn Credentials>) {
    let login = with(Some(KNOWN)).await.login(KNOWN.0).await.unwrap();
    assert!(!format!("{login:?} {login:#?}").contains(KNOWN.2));
}

/// Who is no authority for tokens says so, instead of giving an empty one.
pub async fn no_authority_gives_no_token(
    with: impl AsyncFn(Option<Known>) -> Box<dyn Credentials>,
) {
    let wanted = TokenRequest {
        client_id: "kiln",
        host: KNOWN.0.to_owned(),
        realm: "https://known.example/token".to_owned(),
        service: "known.example".to_owned(),
        scopes: vec!["repository:a:pull".to_owned()],
    };
    let refused = with(Some(KNOWN)).await.fetch_token(&wanted).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().kind, Kind::Unsupported);
}

/// Runs the suite on what the function makes; `nobody` is for one that never knows a password.
#[macro_export]
macro_rules! credentials_suite {
    ($with:path) => {
        $crate::credentials_suite!(@each $with; a_password_is_for_its_host_only,);
        $crate::credentials_suite!(nobody $with);
    };
    (nobody $with:path) => {
        $crate::credentials_suite!(@each $with;
            an_unknown_host_is_asked_as_nobody,
            many_ask_at_once,
            a_secret_is_never_shown,
            no_authority_gives_no_token,
        );
    };
    (@each $with:path; $($name:ident,)*) => {
        $(
            /// Rows: S11
            #[tokio::test]
            async fn $name() {
                $crate::testing::$name($with).await;
            }
        )*
    };
}
