//! Bodies of PutLogEvents: any bytes never panic, and what is taken is whole entries, as many as are counted.
#![no_main]

use firelane::wire::cloudwatch_in::{Frame, Outline, Times, entries};
use firelane::wire::entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for all in [false, true] {
        let Ok(outline) = Outline::read(body, all) else { continue };
        let frame = Frame::new(&[("log_group", &outline.group), ("log_stream", &outline.stream)], None);
        for times in [Times::ANY, Times { oldest: 10, kept: 20, newest: 1_760_000_000_000 }] {
            let mut out = Vec::new();
            let Ok(batch) = entries(body, &outline, &frame, times, &mut out) else {
                assert!(out.is_empty());
                continue;
            };
            let (mut pos, mut count) = (0, 0);
            while pos < out.len() {
                pos = entry::read(&out, pos).expect("whole").expect("an entry").end;
                count += 1;
            }
            assert_eq!(count, batch.taken);
            assert!(batch.taken <= batch.events);
        }
    }
});
