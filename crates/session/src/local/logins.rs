//! Logins from wherever the client keeps them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{Auth, Credentials, Error, Result, Token, TokenRequest};

/// Finds the login of a registry host; an empty one when there is none.
pub type FindLogin = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Credentials>> + Send + Sync>;

/// Gives logins out, and fetches no tokens itself: the daemon, told so, does it.
#[derive(Clone)]
pub struct Logins {
    find: FindLogin,
}

impl Logins {
    /// Asks `find` each time.
    pub fn new(find: FindLogin) -> Logins {
        Logins { find }
    }

    /// No logins: everything is fetched as nobody.
    pub fn none() -> Logins {
        Logins::new(Arc::new(|_| {
            Box::pin(futures::future::ready(Ok(Credentials::default())))
        }))
    }
}

#[async_trait]
impl Auth for Logins {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        (self.find)(host.to_owned()).await
    }

    async fn fetch_token(&self, _: &TokenRequest) -> Result<Token> {
        Err(Error::NotOffered("fetching tokens"))
    }

    async fn token_authority(&self, _: &str, _: &[u8]) -> Result<Bytes> {
        Err(Error::NotOffered("a token authority"))
    }

    async fn verify_token_authority(&self, _: &str, _: &[u8], _: &[u8]) -> Result<Bytes> {
        Err(Error::NotOffered("a token authority"))
    }
}
