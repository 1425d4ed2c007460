//! Our one database file: typed tables, one write transaction that several stores can join, an in-memory open for tests.
