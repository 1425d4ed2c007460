//! What names meant in this build (C14): a tag asked for twice gives the same
//! answer, whatever the registry says by then, and is asked for once.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

type Slot = Arc<tokio::sync::Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

/// The answers one build has got so far.
#[derive(Default)]
pub struct Resolutions {
    slots: Mutex<HashMap<String, Slot>>,
}

impl Resolutions {
    /// The answer to `key`: an earlier one, or what `ask` gives. Who comes
    /// while it is being asked waits for that answer. Errors are not kept.
    pub(crate) async fn get_or<T: Any + Send + Sync + Clone, E>(
        &self,
        key: impl Into<String>,
        ask: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let slot = self
            .slots
            .lock()
            .expect("not poisoned")
            .entry(key.into())
            .or_default()
            .clone();
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().and_then(|known| known.downcast_ref::<T>()) {
            return Ok(known.clone());
        }
        let answer = ask.await?;
        *known = Some(Arc::new(answer.clone()));
        Ok(answer)
    }
}

impl Resolutions {
    /// Nobody needs this answer any more.
    pub(crate) fn forget(&self, key: &str) {
        self.slots.lock().expect("not poisoned").remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Rows: C14
    #[tokio::test]
    async fn one_answer_for_all_and_errors_are_asked_again() {
        let (answers, asked) = (Resolutions::default(), AtomicU32::new(0));
        let ask = |result: Result<u32, ()>| {
            let (answers, asked) = (&answers, &asked);
            async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    result
                };
                answers.get_or("name", ask).await
            }
        };
        assert_eq!(ask(Err(())).await, Err(()));
        assert_eq!(futures::join!(ask(Ok(1)), ask(Ok(2))), (Ok(1), Ok(1)));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
