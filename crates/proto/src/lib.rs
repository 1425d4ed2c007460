//! Wire messages generated from .proto, and nothing else.
