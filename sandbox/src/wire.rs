//! The compact form in which the caller and the helper talk.
//!
//! Both ends are always of the same build, so there are no field names and no
//! versions: integers are little-endian, a sequence is its length and its
//! elements, an enum is its number and its fields. Reading is nevertheless
//! checked, so that a mismatch of builds is an error and not nonsense.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// The bytes are not what this build of the program writes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<Malformed> for std::io::Error {
    fn from(_: Malformed) -> Self {
        Self::new(
            std::io::ErrorKind::InvalidData,
            "malformed message (mixed versions of rrun-init?)",
        )
    }
}

/// A value with a compact form.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut &[u8]) -> Result<Self, Malformed>;
}

/// Returns the compact form of `value`.
pub(crate) fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    value.put(&mut out);
    out
}

/// Reads a value that fills `input` exactly.
pub(crate) fn decode<T: Wire>(mut input: &[u8]) -> Result<T, Malformed> {
    let value = T::get(&mut input)?;
    if input.is_empty() { Ok(value) } else { Err(Malformed) }
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = input.split_at_checked(length).ok_or(Malformed)?;
    *input = tail;
    Ok(head)
}

macro_rules! numbers {
    ($($type:ty)*) => { $(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
                let bytes = take(input, size_of::<Self>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?))
            }
        }
    )* };
}
numbers!(u8 u16 u32 u64 i32 i64 f64);

impl Wire for char {
    fn put(&self, out: &mut Vec<u8>) {
        u32::from(*self).put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Self::from_u32(u32::get(input)?).ok_or(Malformed)
    }
}

impl Wire for Ipv4Addr {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_bits().put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self::from_bits(u32::get(input)?))
    }
}

impl Wire for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        String::get(input)?.parse().map_err(|_| Malformed)
    }
}

impl Wire for [u8; 6] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        take(input, 6)?.try_into().map_err(|_| Malformed)
    }
}

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }
}

/// A run of bytes, copied as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

fn put_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length).expect("messages are far below 4 GiB").put(out);
}

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = u32::get(input)? as usize;
        Ok(Self(take(input, length)?.to_vec()))
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Self::from_utf8(Bytes::get(input)?.0).map_err(|_| Malformed)
    }
}

impl Wire for PathBuf {
    fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.as_os_str().as_bytes();
        put_length(bytes.len(), out);
        out.extend_from_slice(bytes);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(OsString::from_vec(Bytes::get(input)?.0).into())
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(if bool::get(input)? { Some(T::get(input)?) } else { None })
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        T::get(input).map(Self::new)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(self.len(), out);
        for value in self {
            value.put(out);
        }
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        let length = u32::get(input)?;
        // Not reserved in advance: the length is only believed element by element.
        (0..length).map(|_| T::get(input)).collect()
    }
}

/// Implements [`Wire`] for a struct, field by field in the order given.
macro_rules! wire_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn get(input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                Ok(Self { $($field: $crate::wire::Wire::get(input)?),* })
            }
        }
    };
}

/// Implements [`Wire`] for an enum whose variants are units or structs.
macro_rules! wire_enum {
    ($type:ident { $($number:literal => $variant:ident $({ $($field:ident),* })?),* $(,)? }) => {
        impl $crate::wire::Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field),* })? => {
                        $crate::wire::Wire::put(&($number as u8), out);
                        $($($field.put(out);)*)?
                    })*
                }
            }
            fn get(input: &mut &[u8]) -> Result<Self, $crate::wire::Malformed> {
                match <u8 as $crate::wire::Wire>::get(input)? {
                    $($number => Ok(Self::$variant $({ $($field: $crate::wire::Wire::get(input)?),* })?),)*
                    _ => Err($crate::wire::Malformed),
                }
            }
        }
    };
}

pub(crate) use {wire_enum, wire_struct};

mod specs {
    use super::{Bytes, Malformed, Wire, put_length};
    use crate::dns::Resolver;
    use crate::spec::{
        CgroupSpec, Limits, Link, Mount, MountKind, Network, Process, Resource, Rlimit, Root,
        Seccomp, SecretBytes, Security, Spec,
    };

    impl Wire for SecretBytes {
        fn put(&self, out: &mut Vec<u8>) {
            put_length(self.expose().len(), out);
            out.extend_from_slice(self.expose());
        }
        fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
            Ok(Self::new(Bytes::get(input)?.0))
        }
    }

    wire_struct!(Spec {
        root,
        mounts,
        network,
        hostname,
        process,
        cgroup,
        privileged,
        die_with_parent,
    });
    wire_enum!(Root {
        0 => Overlay { lowers, upper, work, readonly, volatile },
        1 => Directory { path, readonly },
        2 => Chroot { path },
    });
    wire_struct!(Mount { target, kind });
    wire_enum!(MountKind {
        0 => Bind { source, readonly, recursive },
        1 => Tmpfs { size_bytes, mode, readonly },
        2 => Tree { lowers, writable, place, path, readonly },
        3 => File { content, mode, uid, gid },
    });
    wire_enum!(Network {
        0 => Host,
        1 => None,
        2 => Bridged { links, resolver },
        3 => Shared { pid, start_time },
    });
    wire_struct!(Resolver { domain, members, addresses, base, servers, forwards });
    wire_struct!(Link { name, host_name, bridge, mac, address, prefix, gateway, mtu });
    wire_struct!(Process {
        args,
        env,
        cwd,
        user,
        groups,
        terminal,
        terminal_size,
        init,
        rlimits,
        oom_score_adj,
        security,
    });
    wire_struct!(Security { cap_add, cap_drop, seccomp, no_new_privileges });
    wire_struct!(Rlimit { resource, soft, hard, required });
    wire_struct!(CgroupSpec { name, parent, account_memory, freezer, limits });
    wire_struct!(Limits { memory_bytes, memory_swap_bytes, cpus, cpu_shares, pids });

    impl Wire for Seccomp {
        fn put(&self, out: &mut Vec<u8>) {
            match self {
                Self::Default => 0u8.put(out),
                Self::Unconfined => 1u8.put(out),
                Self::Json(text) => {
                    2u8.put(out);
                    text.put(out);
                }
            }
        }
        fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
            match u8::get(input)? {
                0 => Ok(Self::Default),
                1 => Ok(Self::Unconfined),
                2 => Ok(Self::Json(String::get(input)?)),
                _ => Err(Malformed),
            }
        }
    }

    impl Wire for Resource {
        fn put(&self, out: &mut Vec<u8>) {
            self.number().put(out);
        }
        fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
            let number = u32::get(input)?;
            Self::ALL.iter().copied().find(|resource| resource.number() == number).ok_or(Malformed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Resolver;
    use crate::spec::{
        CgroupSpec, Limits, Link, Mount, MountKind, Network, Resource, Rlimit, Root, Seccomp, Spec,
    };

    fn full() -> Spec {
        let mut spec = Spec::new(
            Root::Overlay {
                lowers: vec!["/l/a".into(), "/l/b".into()],
                upper: Some("/u".into()),
                work: Some("/w".into()),
                readonly: false,
                volatile: true,
            },
            vec!["sh".into(), "-c".into(), "exit 3".into()],
        );
        spec.mounts = vec![
            Mount {
                target: "/data".into(),
                kind: MountKind::Bind { source: "/srv".into(), readonly: true, recursive: false },
            },
            Mount {
                target: "/run".into(),
                kind: MountKind::Tmpfs { size_bytes: Some(1 << 40), mode: 0o1777, readonly: false },
            },
        ];
        spec.network = Network::Bridged {
            links: vec![Link {
                name: "eth0".into(),
                host_name: "rr-1".into(),
                bridge: 7,
                mac: [2, 0, 0, 0, 0, 9],
                address: Ipv4Addr::new(10, 1, 2, 3),
                prefix: 22,
                gateway: Some(Ipv4Addr::new(10, 1, 0, 1)),
                mtu: 1500,
            }],
            resolver: Some(Box::new(Resolver {
                domain: "lab".into(),
                members: "/m".into(),
                addresses: "/a".into(),
                base: Ipv4Addr::new(10, 1, 0, 0),
                servers: vec!["::1".parse().unwrap()],
                forwards: true,
            })),
        };
        spec.hostname = Some("höst".into());
        spec.process.rlimits = vec![Rlimit {
            resource: Resource::OpenFiles,
            soft: Some(1024),
            hard: None,
            required: true,
        }];
        spec.process.oom_score_adj = Some(-5);
        spec.process.security.seccomp = Seccomp::Json("{}".into());
        spec.cgroup = Some(CgroupSpec {
            name: "rrun-1".into(),
            parent: Some("/jobs".into()),
            account_memory: true,
            freezer: true,
            limits: Limits { cpus: Some(1.5), pids: Some(-1), ..Limits::default() },
        });
        spec
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(decode::<Spec>(&encode(&full())), Ok(full()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode(&full());
        for length in 0..bytes.len() {
            assert!(
                decode::<Spec>(&bytes[..length]).is_err(),
                "accepted {length} of {} bytes",
                bytes.len()
            );
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(decode::<Spec>(&longer).is_err(), "accepted a trailing byte");
    }
}
