//! The open line to a client: its files, secrets, SSH agent, passwords.
