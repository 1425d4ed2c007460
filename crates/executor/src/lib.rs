//! Runs one process in a container: spec, namespaces, network, cgroups, seccomp, runc.
