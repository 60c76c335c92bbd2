//! What the binary needs of the machine that it runs on: the C library and nothing of ours.

use std::process::Command;

#[test]
fn openssl_zlib_and_librdkafka_are_linked_in() {
    let found = Command::new("ldd").arg(env!("CARGO_BIN_EXE_firelane")).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(text.contains("libc.so"), "{text}");
    for library in ["libssl", "libcrypto", "libz.", "libzstd", "liblz4", "librdkafka", "libstdc++"] {
        assert!(!text.contains(library), "{library} is not linked in: {text}");
    }
}
