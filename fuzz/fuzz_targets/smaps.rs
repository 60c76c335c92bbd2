//! What the kernel says of our mappings, as any text: only whole, ordered ranges come out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for range in firelane::rt::pages::clean_code(text) {
        assert!(!range.is_empty());
    }
});
