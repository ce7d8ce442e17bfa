//! Images over HTTP: the OCI distribution API.
