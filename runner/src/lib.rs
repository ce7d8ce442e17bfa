//! Image to running containers, and everything that keeps them running.
