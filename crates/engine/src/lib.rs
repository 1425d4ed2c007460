//! One build from request to result: frontend, solve, export, remote cache, attestations, history.
