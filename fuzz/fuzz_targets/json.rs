//! The JSON writer: both forms of the masks agree, any text reads back as its lossy form, by serde_json and by our own
//! reader, any bytes never panic.
#![no_main]

use firelane::wire::json::Json;
use firelane::wire::json::mask::{RUN, mask, portable, structure, structure_portable};
use firelane::wire::{json_in, msgpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for run in bytes.windows(RUN) {
        if let Some(run) = run.first_chunk::<RUN>() {
            assert_eq!(mask(run), portable(run));
            assert_eq!(structure(run), structure_portable(run));
        }
    }
    for escape_unicode in [true, false] {
        let json = Json { escape_unicode };
        let mut out = Vec::new();
        json.write_str(&mut out, bytes);
        let back: String = serde_json::from_slice(&out).expect("a JSON string");
        assert_eq!(back, String::from_utf8_lossy(bytes));
        let mut encoded = Vec::new();
        assert_eq!(json_in::value_into(&out, &mut encoded), Ok(out.len()));
        assert_eq!(msgpack::content(&encoded), back.as_bytes());
        json.write_value(&mut out, bytes, 0);
    }
});
