//! Laws that hold the parts of this module together, and what a hostile tar must not do.

mod build;
mod corpus;
mod hostile;
mod images;
mod laws;
mod model;
mod mounted;
mod places;
mod plain;
mod stacks;
mod upper;
