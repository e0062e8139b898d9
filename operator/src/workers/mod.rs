//! What the pods say of their own load.
