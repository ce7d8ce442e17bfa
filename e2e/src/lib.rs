//! The programs as black boxes, and against other people's clients.
