//! The YAML reader: any text never panics, recurses or runs away.
#![no_main]

use firelane::config::yaml::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = parse(text);
});
