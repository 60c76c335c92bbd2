//! The classic reader: any text never panics, and what it accepts has sections before keys.
#![no_main]

use firelane::config::classic::{Item, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(items) = parse(text, "fuzz.conf") {
        let mut open = false;
        for item in items {
            match item {
                Item::Header(..) => open = true,
                Item::Entry(key, _, pos) => assert!(open && !key.is_empty() && pos.line > 0),
                Item::Include(..) | Item::Set(..) | Item::UnknownMeta(..) => {}
            }
        }
    }
});
