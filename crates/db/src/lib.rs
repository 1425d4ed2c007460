//! Our one database file: SQLite in WAL mode behind ten small methods.
//!
//! Each crate owns its tables and brings them up to date with [`Db::migrate`]. Whoever needs
//! several changes to happen together opens a write transaction with [`Db::write`] and hands
//! the [`Tx`] down. Several processes may open one file; one of them writes at a time.
//!
//! ```
//! let db = db::Db::memory()?;
//! db.migrate("pets", &["CREATE TABLE pets (name TEXT PRIMARY KEY)"])?;
//! db.write(|tx| tx.execute("INSERT INTO pets VALUES (?1)", ["rex"]))?;
//! let names = db.read(|tx| tx.rows("SELECT name FROM pets", [], |row| row.get::<_, String>(0)))?;
//! assert_eq!(names, ["rex"]);
//! # Ok::<(), db::Error>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod damage;
mod error;
mod store;
mod tx;

pub use error::Error;
pub use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
pub use rusqlite::{Error as SqlError, OptionalExtension, Params, Row, params, params_from_iter};
pub use store::{Db, Durability, Options};
pub use tx::Tx;

/// What this crate's functions give.
pub type Result<T, E = Error> = std::result::Result<T, E>;
