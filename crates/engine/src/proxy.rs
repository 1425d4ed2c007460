//! Which requests the steps of a proxied build may make (row X08): the source policy decides, as if
//! each were a source of the build.

use std::collections::BTreeMap;

use async_trait::async_trait;
use llb::facts::Facts;
use netproxy::Gate;

use crate::policy::{Look, Policies};

/// The policies of a build, as a proxy asks them.
pub(crate) struct PolicyGate(pub(crate) Policies);

#[async_trait]
impl Gate for PolicyGate {
    async fn decide(&self, _method: &str, url: &str) -> Result<Option<String>, String> {
        let source = llb::Source {
            identifier: url.to_owned(),
            attrs: BTreeMap::new(),
        };
        // To look at an answer before it is asked for would be a request of its own.
        let look: Look<'_> = Box::new(|_, _| Box::pin(async { Ok(Facts::Nothing) }));
        match self.0.decide(&source, None, &look).await {
            Ok(None) => Ok(None),
            Ok(Some(other)) if other.attrs.is_empty() => Ok(Some(other.identifier)),
            Ok(Some(_)) => {
                let why = "the source policy converts it with attributes, and only another \
                           address can be asked for in its place";
                Err(why.to_owned())
            }
            Err(error) => Err(told(&error)),
        }
    }
}

/// An error with its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
