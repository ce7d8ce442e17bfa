//! Where images live on a machine, and how they travel.
