//! Archives that are damaged, or that two readers could read differently.

use super::{
    super::build::{Raw, archive, file, pax, tar},
    Want::{Holds, Refused},
    case, check,
};

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn privileged_damaged_and_ambiguous_archives() {
    let outside = tempfile::tempdir().unwrap();
    // A header inside the data of a file: whoever takes the wrong size sees an entry here.
    let hidden = [Raw::new(b'0', "evil", 0).with(&[]), vec![0; 512]].concat();
    let mut wrong_sum = tar(&[file("a", "x")]);
    wrong_sum[0] = b'b';
    let whole = tar(&[file("a", "some content")]);
    let id = |bytes: &[u8]| {
        let mut raw = Raw::new(b'0', "a", 0);
        raw.put(108, bytes);
        archive(&[raw.with(&[])])
    };
    let mut negative = Raw::new(b'0', "a", 0);
    negative.put(124, &[0xff; 12]);
    let data = vec![1; 1024];
    let special = |flag, size: u64| archive(&[Raw::new(flag, "h", size).with(&[])]);
    let pax_file = |records: &[(&str, &[u8])], data: &[u8], size| {
        archive(&[pax(records), Raw::new(b'0', "a", size).with(data)])
    };
    let refused_header = || Refused("damaged");
    check(
        vec![
            case("wrong checksum", wrong_sum, Refused("checksum")),
            case("cut in a header", whole[..300].to_vec(), Refused("in the middle of a header")),
            case(
                "cut in the data",
                whole[..520].to_vec(),
                Refused("in the middle of a file's data"),
            ),
            case(
                "cut in an extended header",
                pax(&[("path", b"x")])[..600].to_vec(),
                Refused("in the middle of an extended header"),
            ),
            case(
                "extended header without an entry",
                archive(&[pax(&[("path", b"x")])]),
                Refused("in the middle of an entry"),
            ),
            case(
                "one empty block",
                [vec![0; 512], whole.clone()].concat(),
                Refused("the archive goes on"),
            ),
            case("no end at all", whole[..1024].to_vec(), Holds(&["a"])),
            case("much behind the end", [whole.clone(), vec![7; 100_000]].concat(), Holds(&["a"])),
            case("no entries", vec![0; 1024], Holds(&[])),
            case("nothing", Vec::new(), Holds(&[])),
            case("negative owner", id(&[0xff; 8]), Refused("no valid id")),
            case("owner -1", pax_file(&[("uid", b"4294967295")], &[], 0), Refused("no valid id")),
            case(
                "owner beyond 32 bits",
                pax_file(&[("gid", b"1099511627776")], &[], 0),
                Refused("no valid id"),
            ),
            case("octal with an 8", id(b"0000008\0"), Refused("number")),
            case("negative size", archive(&[negative.with(&[])]), Refused("size is negative")),
            case(
                "size beyond all",
                pax_file(&[("size", b"9223372036854775807")], &[], 0),
                Refused("in the middle of a file's data"),
            ),
            case(
                "size that is no number",
                pax_file(&[("size", b"0x10")], &[], 0),
                refused_header(),
            ),
            case("huge PAX header", special(b'x', 1 << 21), Refused("exceeds the limit")),
            case("huge global header", special(b'g', 1 << 40), Refused("exceeds the limit")),
            case("huge long name", special(b'L', 1 << 30), Refused("exceeds the limit")),
            case("huge long link", special(b'K', 1 << 30), Refused("exceeds the limit")),
            case(
                "PAX record that is longer than its header",
                archive(&[Raw::new(b'x', "h", 9).with(b"99 path=x"), hidden.clone()]),
                refused_header(),
            ),
            case(
                "PAX size above the header's",
                pax_file(&[("size", b"1024")], &hidden, 0),
                Holds(&["a"]),
            ),
            case(
                "PAX size below the header's",
                pax_file(&[("size", b"0")], &[], 1024),
                Holds(&["a"]),
            ),
            case(
                "PAX size and a GNU long name between",
                archive(&[
                    pax(&[("size", b"1024")]),
                    Raw::gnu(b'L', "L", 5).with(b"name\0"),
                    Raw::new(b'0', "a", 0).with(&hidden),
                ]),
                Holds(&["name"]),
            ),
            case(
                "directory with a size",
                archive(&[Raw::new(b'5', "d", 1024).with(&[])]),
                Holds(&["d"]),
            ),
            case(
                "hard link with a size",
                archive(&[
                    Raw::new(b'0', "a", 0).with(&[]),
                    Raw::new(b'1', "b", 1024).link("a").with(&[]),
                ]),
                Holds(&["a", "b"]),
            ),
            case(
                "global path",
                archive(&[
                    {
                        let mut g = pax(&[("path", b"evil")]);
                        g[156] = b'x';
                        let mut raw = Raw([0; 512]);
                        raw.0.copy_from_slice(&g[..512]);
                        raw.put(156, b"g");
                        raw.with(&g[512..])
                    },
                    Raw::new(b'0', "a", 0).with(&[]),
                ]),
                Holds(&["a"]),
            ),
            case(
                "sparse parts that overlap",
                pax_file(
                    &[("GNU.sparse.map", b"0,512,256,512"), ("GNU.sparse.size", b"4096")],
                    &data,
                    1024,
                ),
                Refused("overlap"),
            ),
            case(
                "sparse parts beyond the end",
                pax_file(
                    &[("GNU.sparse.map", b"8192,1024"), ("GNU.sparse.size", b"4096")],
                    &data,
                    1024,
                ),
                Refused("beyond its end"),
            ),
            case(
                "sparse parts of another length",
                pax_file(
                    &[("GNU.sparse.map", b"0,512"), ("GNU.sparse.size", b"4096")],
                    &data,
                    1024,
                ),
                Refused("differ in length"),
            ),
            case(
                "sparse offset without a length",
                pax_file(
                    &[("GNU.sparse.map", b"0,512,7"), ("GNU.sparse.size", b"4096")],
                    &data,
                    1024,
                ),
                Refused("sparse map is damaged"),
            ),
            case(
                "sparse map of a billion parts",
                pax_file(
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"9"),
                    ],
                    b"1000000000\n",
                    512,
                ),
                Refused("too many parts"),
            ),
            case(
                "sparse map without an end",
                pax_file(
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"9"),
                    ],
                    &[b'1'; 512],
                    512,
                ),
                Refused("damaged"),
            ),
            case(
                "sparse map that is cut short",
                pax_file(
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"9"),
                    ],
                    b"2\n0\n1\n",
                    512,
                ),
                Refused("damaged"),
            ),
            case(
                "sparse map longer than the data",
                pax_file(
                    &[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"9"),
                    ],
                    ["300\n", &"1\n".repeat(254)].concat().as_bytes(),
                    512,
                ),
                Refused("longer than its data"),
            ),
            case(
                "sparse form of the future",
                pax_file(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")], &[], 0),
                Refused("unknown"),
            ),
            case(
                "GNU sparse without GNU",
                archive(&[Raw::new(b'S', "a", 0).with(&[])]),
                Refused("not in GNU's format"),
            ),
            case(
                "GNU sparse that never ends",
                {
                    let mut raw = Raw::gnu(b'S', "a", 0);
                    raw.put(482, &[1]);
                    archive(&[raw.with(&[]), vec![0; 504], vec![1; 8]])
                },
                Refused("sparse map is damaged"),
            ),
        ],
        outside.path(),
    );
}
