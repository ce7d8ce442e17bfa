//! What images are: the OCI specifications as types.
