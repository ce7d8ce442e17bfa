//! A process in namespaces, cgroup and limits.
