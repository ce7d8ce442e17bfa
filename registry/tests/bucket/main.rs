//! The registry on buckets of real S3 servers.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

/// Makes a test of each function for each store, in a module named after it; those behind `with
/// conditions` only where the store heeds them. `make check` leaves these modules out: they need
/// servers that `make test` installs.
macro_rules! on_each_store {
    ($($test:ident),* $(,)? $(; with conditions: $($conditional:ident),* $(,)?)?) => {
        on_each_store!(@ moto: $($test),* $(, $($conditional),*)?);
        on_each_store!(@ s3s_fs: $($test),* $(, $($conditional),*)?);
        on_each_store!(@ heedless: $($test),*);
        on_each_store!(@ garage: $($test),*);
    };
    (@ $store:ident: $($test:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::servers::Store::$store().await).await;
            })*
        }
    };
}

mod laws;
mod replicas;
