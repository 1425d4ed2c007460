//! gRPC services, configuration, start and stop.
