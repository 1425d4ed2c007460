//! What steps were like when they were last done, in the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use db::{Db, params};
use oci::Digest;

use super::Shape;
use crate::Result;

const TABLES: &[&str] = &["
    CREATE TABLE last_times (
        slot BLOB PRIMARY KEY,
        number INTEGER NOT NULL,
        shape BLOB NOT NULL
    );
    CREATE INDEX last_times_by_number ON last_times (number);
"];

/// Names that steps are remembered under, two for most. What is under most of them takes less than
/// a kilobyte, where files are named some fifty.
const MOST: i64 = 4000;
/// What takes more than this many bytes is not remembered: others wait while it is written.
const MOST_BYTES: usize = 256 << 10;
/// How many are put before the oldest are swept away.
const PUT_BETWEEN: u32 = 200;

/// Where a step stands among others: its stage and its number there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    stage: String,
    number: String,
}

impl Place {
    /// From `[build 2/5] RUN make`, and what remains of that. Steps of other frontends have no
    /// place but their text.
    pub(super) fn of(name: &str) -> (Place, String) {
        let parts = name
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("] "));
        let Some((place, text)) = parts else {
            return (Place::default(), name.to_owned());
        };
        let (stage, count) = place.rsplit_once(' ').unwrap_or(("", place));
        let Some((number, _)) = count.split_once('/') else {
            return (Place::default(), name.to_owned());
        };
        let place = Place {
            stage: stage.to_owned(),
            number: number.to_owned(),
        };
        (place, text.to_owned())
    }

    pub(super) fn slots(&self, project: &str, text: &str) -> Slots {
        let name = |what: &str| Digest::of(format!("{project}\0{}\0{what}", self.stage)).hex();
        Slots {
            by_number: (!self.number.is_empty()).then(|| name(&format!("#{}", self.number))),
            by_text: name(text),
        }
    }
}

/// The names under which a step is remembered.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    by_number: Option<String>,
    by_text: String,
}

/// What steps were like when they were last done.
#[derive(Clone, Default)]
pub struct LastTimes(Option<Arc<Inner>>);

struct Inner {
    db: Arc<Db>,
    put: AtomicU32,
}

impl LastTimes {
    /// In this database. The default remembers nothing.
    pub fn open(db: Arc<Db>) -> Result<LastTimes, db::Error> {
        db.migrate("last_times", TABLES)?;
        let put = AtomicU32::new(0);
        Ok(LastTimes(Some(Arc::new(Inner { db, put }))))
    }

    /// The step that stood there if it is the same; else the one of the same text, which may
    /// have stood elsewhere; else whatever stood there.
    pub(super) fn get(&self, slots: &Slots, text: &str) -> Option<Shape> {
        let inner = self.0.as_ref()?;
        let read = |slot: &String| {
            let found = inner.db.read(|tx| {
                let sql = "SELECT shape FROM last_times WHERE slot = ?1";
                tx.row(sql, params![slot], |row| row.get::<_, Vec<u8>>(0))
            });
            let found: Option<Vec<u8>> = found.ok().flatten();
            serde_json::from_slice::<Shape>(&found?).ok()
        };
        let there = slots.by_number.as_ref().and_then(read);
        match there {
            Some(there) if there.text == text => Some(there),
            there => read(&slots.by_text).or(there),
        }
    }

    pub(super) fn put(&self, slots: &Slots, shape: &Shape) {
        let Some(inner) = &self.0 else { return };
        let bytes = serde_json::to_vec(shape).expect("text is always JSON");
        if bytes.len() > MOST_BYTES {
            tracing::debug!(
                bytes = bytes.len(),
                "what a step was like is too much to keep"
            );
            return;
        }
        let sweep = inner.put.fetch_add(1, Ordering::Relaxed) % PUT_BETWEEN == 0;
        let put = inner.db.write(|tx| -> Result<(), db::Error> {
            for slot in slots.by_number.iter().chain([&slots.by_text]) {
                tx.execute(
                    "INSERT INTO last_times (slot, number, shape)
                     VALUES (?1, (SELECT COALESCE(MAX(number), 0) + 1 FROM last_times), ?2)
                     ON CONFLICT (slot) DO UPDATE SET number = excluded.number, shape = excluded.shape",
                    params![slot, bytes],
                )?;
            }
            if sweep {
                tx.execute(
                    "DELETE FROM last_times WHERE number <=
                     (SELECT MAX(number) FROM last_times) - ?1",
                    params![MOST],
                )?;
            }
            Ok(())
        });
        if let Err(error) = put {
            tracing::debug!(%error, "what a step was like was not kept");
        }
    }
}
