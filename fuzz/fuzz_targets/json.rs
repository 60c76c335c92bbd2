//! The JSON writer: both forms of the mask agree, any text reads back as its lossy form, any bytes never panic.
#![no_main]

use firelane::wire::json::Json;
use firelane::wire::json::mask::{RUN, mask, portable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for run in bytes.windows(RUN) {
        if let Some(run) = run.first_chunk::<RUN>() {
            assert_eq!(mask(run), portable(run));
        }
    }
    for escape_unicode in [true, false] {
        let json = Json { escape_unicode };
        let mut out = Vec::new();
        json.write_str(&mut out, bytes);
        let back: String = serde_json::from_slice(&out).expect("a JSON string");
        assert_eq!(back, String::from_utf8_lossy(bytes));
        json.write_value(&mut out, bytes, 0);
    }
});
