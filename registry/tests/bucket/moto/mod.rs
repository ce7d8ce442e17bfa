//! What holds on moto's server. `make check` leaves these out: they need the server, which
//! `make test` installs.

mod laws;
mod replicas;
