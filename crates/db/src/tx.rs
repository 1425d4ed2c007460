//! An open transaction: what a store sees of the database.

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::{Error, Result};

/// An open transaction. Reads in it see one moment; writes in it happen together or not at all.
pub struct Tx<'c> {
    connection: &'c Connection,
    /// Set when SQLite calls the file broken, whatever the caller makes of the error.
    damaged: Cell<bool>,
}

impl<'c> Tx<'c> {
    pub(crate) fn on(connection: &'c Connection) -> Tx<'c> {
        Tx {
            connection,
            damaged: Cell::new(false),
        }
    }

    pub(crate) fn met_damage(&self) -> bool {
        self.damaged.get()
    }

    fn noticing<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|error| {
            let error = Error::from(error);
            if error.is_damage() {
                self.damaged.set(true);
            }
            error
        })
    }

    /// Runs one statement; gives the number of rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.noticing(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.execute(params)),
        )
    }

    /// Runs one statement that adds a row; gives the new row's number.
    pub fn insert(&self, sql: &str, params: impl Params) -> Result<i64> {
        self.noticing(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.insert(params)),
        )
    }

    /// Every row of a query, read by `read`.
    pub fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(params, read)?.collect()
        };
        self.noticing(rows())
    }

    /// The first row of a query, if it has one.
    pub fn row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let row = || {
            self.connection
                .prepare_cached(sql)?
                .query_row(params, read)
                .optional()
        };
        self.noticing(row())
    }

    /// Whether a query has any row.
    pub fn exists(&self, sql: &str, params: impl Params) -> Result<bool> {
        self.noticing(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut s| s.exists(params)),
        )
    }

    /// Runs several statements separated by `;`, for making tables.
    pub fn batch(&self, sql: &str) -> Result<()> {
        self.noticing(self.connection.execute_batch(sql))
    }
}
