//! The packer: every record in a message of its tag, in order; sizes and options as configured.

use super::*;
use crate::outputs::forward::testing::{Queue, delivery, entry, queue, segments};
use crate::wire::forward::{Body, Compressed, Decoder, Next, each as each_entry};
use crate::wire::inflate::{Compression, inflate};
use proptest::prelude::*;

const IDS: [u8; 8] = *b"own-8-by";

fn plain() -> Format {
    Format {
        tag: TagChoice::Own,
        integer_times: false,
        keep_metadata: true,
        gzip: false,
        options: false,
        acks: false,
        added: Vec::new(),
    }
}

/// The messages that a list of deliveries becomes when all are there at once.
fn pack(format: Format, deliveries: Vec<Delivery>) -> Vec<Vec<u8>> {
    let mut packer = Packer::new(format, Ids::new(IDS));
    let mut window = Window::default();
    for delivery in deliveries {
        packer.add(delivery, &mut window);
    }
    packer.finish(&mut window);
    window.messages().map(Message::bytes).collect()
}

/// `92 EventTime(5, 7) {"k": n}`
fn plain_entry(n: u8) -> Vec<u8> {
    [&b"\x92\xd7\x00\x00\x00\x00\x05\x00\x00\x00\x07\x81\xa1k"[..], &[n]].concat()
}

#[test]
fn forward_mode_is_an_array_of_entries_without_options() {
    let q = queue();
    let got = pack(plain(), vec![delivery(&q, b"t", 2)]);
    assert_eq!(got, [[&b"\x92\xa1t\x92"[..], &plain_entry(0), &plain_entry(1)].concat()]);
}

#[test]
fn an_ack_is_asked_for_by_an_id_that_is_base64_of_128_bits() {
    let q = queue();
    let got = pack(Format { acks: true, options: true, ..plain() }, vec![delivery(&q, b"t", 1)]);
    let options = b"\x83\xa5chunk\xb8b3duLTgtYnkAAAAAAAAAAA==\xa4size\x01\xadfluent_signal\x00";
    assert_eq!(got, [[&b"\x93\xa1t\x91"[..], &plain_entry(0), options].concat()]);
}

#[test]
fn gzip_is_one_member_in_a_bin() {
    let q = queue();
    let got = pack(Format { gzip: true, options: true, ..plain() }, vec![delivery(&q, b"t", 2)]);
    let Ok(Next::Frame(frame)) = Decoder::new(1 << 20).next(&got[0]) else { panic!() };
    assert_eq!(frame.compressed, Compressed::Gzip);
    let Body::Packed(payload) = frame.body else { panic!() };
    assert_eq!(got[0][3], 0xc4);
    let tail = &got[0][payload.end..];
    assert_eq!(tail, b"\x83\xa4size\x02\xaacompressed\xa4gzip\xadfluent_signal\x00");
    let entries = inflate(Compression::Gzip, &got[0][payload], 1000).unwrap();
    assert_eq!(entries, [plain_entry(0), plain_entry(1)].concat());
}

#[test]
fn integer_times_are_whole_seconds_without_metadata() {
    let q = queue();
    let records = vec![entry(5, 1, true), entry(6, 2, false)];
    let format = Format { integer_times: true, keep_metadata: false, ..plain() };
    let got = pack(format, vec![segments(&q, &[(b"t", records)])]);
    assert_eq!(got, [b"\x92\xa1t\x92\x92\x05\x81\xa1k\x01\x92\x06\x81\xa1k\x02"]);
}

#[test]
fn metadata_stays_beside_the_time_unless_it_is_not_wanted() {
    let q = queue();
    let records = || vec![entry(5, 1, true), entry(5, 2, false)];
    let kept = pack(plain(), vec![segments(&q, &[(b"t", records())])]);
    assert_eq!(kept, [[&b"\x92\xa1t\x92"[..], &records().concat()].concat()]);
    let bare = pack(Format { keep_metadata: false, ..plain() }, vec![segments(&q, &[(b"t", records())])]);
    assert_eq!(bare, [[&b"\x92\xa1t\x92"[..], &plain_entry(1), &plain_entry(2)].concat()]);
}

#[test]
fn a_time_of_another_form_is_sent_as_an_event_time() {
    let q = queue();
    let whole = b"\x92\xce\x00\x00\x00\x05\x81\xa1k\x01".to_vec();
    let with_metadata = b"\x92\x92\xcb\x40\x14\x00\x00\x00\x00\x00\x00\x80\x81\xa1k\x01".to_vec();
    let got = pack(plain(), vec![segments(&q, &[(b"t", vec![whole, with_metadata])])]);
    let time = b"\xd7\x00\x00\x00\x00\x05\x00\x00\x00\x00";
    let want =
        [&b"\x92\xa1t\x92\x92"[..], time, b"\x81\xa1k\x01\x92\x92", time, b"\x80\x81\xa1k\x01"].concat();
    assert_eq!(got, [want]);
}

#[test]
fn a_tag_made_from_fields_gives_each_record_its_own_message() {
    let q = queue();
    let tag = || TagChoice::Made(Template::new("n.$TAG.$k").unwrap());
    let records = || vec![segments(&q, &[(b"t", vec![entry(5, 1, true), entry(5, 2, false)])])];
    let time = b"\xd7\x00\x00\x00\x00\x05\x00\x00\x00\x07";
    let got = pack(Format { tag: tag(), ..plain() }, records());
    let want = [
        &b"\x94\xa5n.t.1"[..],
        time,
        b"\x81\xa1k\x01\x82\xadfluent_signal\x00\xa8metadata\x81\xa1m\x01",
        b"\x94\xa5n.t.2",
        time,
        b"\x81\xa1k\x02\x81\xadfluent_signal\x00",
    ]
    .concat();
    assert_eq!(got, [want]);
    let got = pack(Format { tag: tag(), acks: true, options: true, ..plain() }, records()).concat();
    for id in [&b"\xb8b3duLTgtYnkAAAAAAAAAAA=="[..], b"\xb8b3duLTgtYnkAAAAAAAAAAQ=="] {
        assert!(got.windows(id.len()).any(|w| w == id));
    }
}

#[test]
fn a_fixed_tag_and_added_options_are_sent() {
    let q = queue();
    let format = Format {
        tag: TagChoice::Fixed(b"fixed".to_vec()),
        options: true,
        added: vec![("k".into(), "v".into())],
        ..plain()
    };
    let got = pack(format, vec![delivery(&q, b"t", 1)]);
    let tail = b"\x83\xa4size\x01\xadfluent_signal\x00\xa1k\xa1v";
    assert_eq!(got, [[&b"\x93\xa5fixed\x91"[..], &plain_entry(0), tail].concat()]);
}

#[test]
fn what_waits_under_one_tag_goes_together_and_a_chunk_of_two_tags_apart() {
    let q = queue();
    let got = pack(
        plain(),
        vec![
            delivery(&q, b"a", 1),
            delivery(&q, b"a", 2),
            segments(&q, &[(b"a", vec![entry(5, 0, false)]), (b"b", vec![entry(5, 0, false)])]),
        ],
    );
    let heads: Vec<&[u8]> = got.iter().map(|m| &m[..4]).collect();
    assert_eq!(heads, [&b"\x92\xa1a\x94"[..], b"\x92\xa1b\x91"]);
}

#[test]
fn a_very_long_run_is_cut_between_entries_and_its_bytes_are_not_copied() {
    let q = queue();
    let long = |n: u8| {
        let mut e = b"\x92\xd7\x00\x00\x00\x00\x05\x00\x00\x00\x07\x81\xa1k\xda\xff\xff".to_vec();
        e.resize(e.len() + 0xffff, n);
        e
    };
    let d = segments(&q, &[(b"t", (0..100).map(|n| long(n as u8)).collect())]);
    let chunk = std::sync::Arc::clone(&d.chunk);
    let mut packer = Packer::new(plain(), Ids::new(IDS));
    let mut window = Window::default();
    packer.add(d, &mut window);
    packer.finish(&mut window);
    let mut slices = Vec::new();
    window.unwritten(&mut slices, usize::MAX);
    let within = chunk.bytes.as_ptr_range();
    let shared: usize = slices.iter().filter(|s| within.contains(&s.as_ptr())).map(|s| s.len()).sum();
    assert_eq!(shared, chunk.bytes.len());
    let messages: Vec<_> = window.messages().map(Message::bytes).collect();
    assert!(messages.len() == 4 && messages.iter().all(|m| m.len() < CUT + 100));
    assert_eq!(read_back(&messages).len(), 100);
}

/// Tag, time and record of every entry, through our own decoder.
fn read_back(messages: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut out = Vec::new();
    for message in messages {
        let mut rest = &message[..];
        while !rest.is_empty() {
            let frame = match Decoder::new(1 << 24).next(rest) {
                Ok(Next::Frame(frame)) => frame,
                other => panic!("{other:?}"),
            };
            let tag = rest[frame.tag].to_vec();
            let run = match frame.body {
                Body::Message { record, .. } => {
                    out.push((tag, rest[record].to_vec()));
                    rest = &rest[frame.end..];
                    continue;
                }
                Body::Forward(range) => rest[range].to_vec(),
                Body::Packed(range) => inflate(Compression::Gzip, &rest[range], 1 << 24).unwrap(),
            };
            each_entry(&run, |e| out.push((tag.clone(), run[e.unwrap().record].to_vec())));
            rest = &rest[frame.end..];
        }
    }
    out
}

/// Deliveries of segments: a tag, and records with or without metadata.
type Plan = Vec<Vec<(u8, Vec<(u8, bool)>)>>;

fn any_deliveries() -> impl Strategy<Value = Plan> {
    let records = proptest::collection::vec((0u8..100, any::<bool>()), 1..5);
    proptest::collection::vec(proptest::collection::vec((0u8..3, records), 1..4), 1..6)
}

fn build(q: &Queue, all: &Plan) -> Vec<Delivery> {
    all.iter()
        .map(|segs| {
            let tags: Vec<[u8; 1]> = segs.iter().map(|(t, _)| [b'a' + t]).collect();
            let list: Vec<(&[u8], Vec<Vec<u8>>)> = segs
                .iter()
                .zip(&tags)
                .map(|((_, records), tag)| {
                    (&tag[..], records.iter().map(|(n, meta)| entry(5, *n, *meta)).collect())
                })
                .collect();
            segments(q, &list)
        })
        .collect()
}

proptest! {
    #[test]
    fn every_mode_comes_back_from_our_own_decoder_in_order(
        all in any_deliveries(),
        mode in 0..4,
        acks in any::<bool>(),
        keep_metadata in any::<bool>(),
    ) {
        let q = queue();
        let format = Format {
            integer_times: mode == 1,
            gzip: mode == 2,
            tag: if mode == 3 { TagChoice::Made(Template::new("$TAG").unwrap()) } else { TagChoice::Own },
            keep_metadata: keep_metadata && mode != 1,
            acks,
            options: acks || mode == 2,
            added: Vec::new(),
        };
        let got = read_back(&pack(format, build(&q, &all)));
        let want: Vec<_> = all
            .iter()
            .flatten()
            .flat_map(|(tag, records)| {
                records.iter().map(move |(n, _)| (vec![b'a' + tag], vec![0x81, 0xa1, b'k', *n]))
            })
            .collect();
        prop_assert_eq!(got, want);
    }
}
