//! Token pools of all logins (P26). A pool belongs to a login, so builds that
//! log in the same way share tokens and others never see them; pools nobody
//! used for ten minutes are dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use oci::Digest;

use crate::credentials::Login;
use crate::token::Pool;

const IDLE: Duration = Duration::from_secs(600);

/// A host, and a login at it.
type Owner = (String, Digest);

/// All pools, by host and login.
#[derive(Default)]
pub(crate) struct Tokens {
    pools: Mutex<HashMap<Owner, (Arc<Pool>, Instant)>>,
}

impl Tokens {
    /// The pool of this login at this host.
    pub(crate) fn pool(&self, host: &str, login: &Login) -> Arc<Pool> {
        let mut pools = self.pools.lock().expect("not poisoned");
        let now = Instant::now();
        pools.retain(|_, (pool, used)| {
            Arc::strong_count(pool) > 1 || now.duration_since(*used) < IDLE
        });
        let entry = pools
            .entry((host.to_owned(), name(login)))
            .or_insert_with(|| (Arc::default(), now));
        entry.1 = now;
        entry.0.clone()
    }
}

/// A name for the login that does not hold its secret.
fn name(login: &Login) -> Digest {
    let parts: [&str; 3] = match login {
        Login::Anonymous => ["anonymous", "", ""],
        Login::Password { username, secret } => ["password", username, secret],
        Login::Identity(token) => ["identity", token, ""],
        Login::Bearer(token) => ["bearer", token, ""],
        Login::Authority { id } => ["authority", id, ""],
    };
    Digest::of(parts.join("\0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: P26, S11
    #[test]
    fn the_same_login_shares_tokens_and_another_does_not() {
        let tokens = Tokens::default();
        let login = |secret: &str| Login::Password {
            username: "u".into(),
            secret: secret.into(),
        };
        let first = tokens.pool("r", &login("a"));
        assert!(Arc::ptr_eq(&first, &tokens.pool("r", &login("a"))));
        assert!(!Arc::ptr_eq(&first, &tokens.pool("r", &login("b"))));
        assert!(!Arc::ptr_eq(&first, &tokens.pool("s", &login("a"))));
    }
}
