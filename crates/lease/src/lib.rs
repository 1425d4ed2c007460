//! What is kept and what is swept, over blobs and snapshots.
