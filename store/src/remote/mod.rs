//! How images travel: pull and push over the OCI distribution API.
//!
//! ```text
//! Client            what programs use; sync, with a small runtime inside
//!  ├─ pull          reference → manifest → blobs in parallel → layers
//!  │   └─ download  one blob: resumed, verified, written through Ingest
//!  ├─ lazy          an image without its layers; layers by themselves
//!  ├─ push          layers compressed → blobs in parallel → manifest last
//!  │   ├─ session   the same, while the image is still being made
//!  │   └─ upload    one blob: asked for, mounted, or sent; resumed
//!  │       └─ source   its bytes: from the store, or relayed from another registry
//!  ├─ documents     manifests and indexes, fetched and put
//!  ├─ get           any file by its address
//!  └─ login         checks credentials; auth writes them down
//!      transport    one request: redirects, tokens, retries
//!       ├─ hosts    which scheme, proxy and certificates a host wants
//!       ├─ auth     credentials from docker's and podman's files; tokens
//!       └─ retry    how long to wait, and when to give up
//! ```
//!
//! # Invariants
//!
//! - Nothing of a registry is believed before it was hashed: bytes become a blob through
//!   [`Ingest`](crate::Ingest) with the digest that was asked for, or not at all.
//! - Credentials and tokens go to the host they are for, and to the token server that this host
//!   names; never along a redirect to another host, and never over plain HTTP to a host that is
//!   neither this machine nor explicitly allowed.
//! - Nothing here reads the environment: paths, proxies and flags come in [`ClientOptions`].
//! - No HTTPS client is built before one is needed (that costs milliseconds).

mod auth;
mod client;
mod copy;
mod date;
mod documents;
mod download;
mod error;
mod event;
mod get;
mod hosts;
mod lazy;
mod login;
mod options;
mod pull;
mod push;
mod referrers;
mod remote_image;
mod retry;
mod session;
mod source;
mod transport;
mod upload;

pub use auth::{AuthFile, Credential, Secret};
pub use client::Client;
pub use copy::CopyOptions;
pub use error::{Error, Result};
pub use event::{Event, Sink, Task};
pub use get::{Get, Got};
pub use lazy::Resolved;
pub use options::{ClientOptions, Proxies};
pub use pull::{PullOptions, Pulled};
pub use push::PushOptions;
pub use referrers::is_referrers_tag;
pub(crate) use referrers::referrers_tag;
pub use remote_image::RemoteImage;
pub use retry::Retry;
pub use session::{PushSession, SharedSink};
