//! What the service would refuse is never built, and nothing is left out.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::record::{Chunk, Seg, Tag, Time};
use crate::rt::{Budget, queue};
use crate::wire::{entry, msgpack};

fn message(limit: usize, oversize: Oversize) -> Message {
    Message { key: Some(b"log".as_slice().into()), json: Json { escape_unicode: true }, limit, oversize }
}

/// A chunk of records `{"log": text}`, in a table of its own.
fn parcels(records: &[(i64, String)]) -> (Parcels, VecDeque<Run>) {
    let mut bytes = Vec::new();
    for (millis, text) in records {
        let time = Time::new(millis.div_euclid(1000), millis.rem_euclid(1000) as u32 * 1_000_000);
        entry::write_head(&mut bytes, time, None);
        msgpack::write_map(&mut bytes, 1);
        msgpack::write_str(&mut bytes, b"log");
        msgpack::write_str(&mut bytes, text.as_bytes());
    }
    parcels_of(bytes, records.len() as u64)
}

fn parcels_of(bytes: Vec<u8>, count: u64) -> (Parcels, VecDeque<Run>) {
    let end = bytes.len();
    let chunk = Chunk {
        bytes: bytes.into(),
        segs: [Seg { tag: Tag::new(b"t"), end, count }].into_iter().collect(),
        count,
        charge: Budget::new(1 << 30).take(0),
        meter: None,
    };
    let (tx, _rx) = queue("o", 1 << 30, Arc::default(), None);
    let mut parcels = Parcels::default();
    let parcel = parcels.add(tx.deliver(Arc::new(chunk), None));
    (parcels, [Run { parcel, start: 0, end, sent: 0 }].into())
}

/// All batches of the records: for each its events.
fn batches(message: Message, records: &[(i64, String)]) -> (Vec<Vec<(i64, String)>>, usize) {
    let (parcels, mut runs) = parcels(records);
    let mut writer = Writer::new(message);
    let (mut all, mut unsent) = (Vec::new(), Vec::new());
    while !runs.is_empty() {
        let Some(mut batch) = writer.take(("g", "s"), &mut runs, &parcels, Vec::new(), &mut unsent) else {
            continue;
        };
        let events = read(&batch.body);
        assert_eq!(events.len(), batch.items.len());
        // Made again it is the same.
        let before = batch.forget_body();
        writer.write(("g", "s"), &mut batch, &parcels);
        assert_eq!(before, batch.body);
        all.push(events);
    }
    (all, unsent.len())
}

fn read(body: &[u8]) -> Vec<(i64, String)> {
    let json: Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&json["logGroupName"], &json["logStreamName"]), (&Value::from("g"), &Value::from("s")));
    let event = |e: &Value| (e["timestamp"].as_i64().unwrap(), e["message"].as_str().unwrap().to_owned());
    json["logEvents"].as_array().unwrap().iter().map(event).collect()
}

fn check(batch: &[(i64, String)]) {
    assert!((1..=10_000).contains(&batch.len()));
    assert!(batch.iter().map(|(_, m)| m.len() + 26).sum::<usize>() <= 1_048_576);
    assert!(batch.iter().all(|(_, m)| !m.is_empty()));
    assert!(batch.windows(2).all(|w| w[0].0 <= w[1].0));
    assert!(batch.last().unwrap().0 - batch.first().unwrap().0 < 86_400_000);
}

const T: i64 = 1_800_000_000_000;

#[test]
fn a_batch_ends_at_exactly_ten_thousand_events() {
    let records: Vec<_> = (0..20_001).map(|n| (T + n, "x".to_owned())).collect();
    let (all, _) = batches(message(1000, Oversize::Split), &records);
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 1]);
}

#[test]
fn a_batch_ends_at_exactly_a_mebibyte_with_26_for_each_event() {
    // 1024 events of 1024 bytes with their 26.
    let text = "é".repeat((1024 - 26) / 2);
    let records: Vec<_> = (0..1025).map(|_| (T, text.clone())).collect();
    let (all, _) = batches(message(2000, Oversize::Split), &records);
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 1]);
}

#[test]
fn a_batch_spans_less_than_a_day() {
    let times = [T, T + 86_399_999, T + 86_400_000, T + 86_400_001];
    let records: Vec<_> = times.into_iter().map(|t| (t, "x".to_owned())).collect();
    let (all, _) = batches(message(1000, Oversize::Split), &records);
    assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn events_of_one_millisecond_stay_in_the_order_they_came() {
    let records: Vec<_> = [(5, "a"), (3, "b"), (5, "c"), (3, "d")].map(|(t, m)| (T + t, m.to_owned())).into();
    let (all, _) = batches(message(1000, Oversize::Split), &records);
    let order: String = all[0].iter().map(|(_, m)| m.as_str()).collect();
    assert_eq!(order, "bdac");
}

#[test]
fn a_message_that_is_too_long_becomes_several_or_is_cut_as_configured() {
    let long = (T, "é".repeat(100));
    let (all, _) = batches(message(65, Oversize::Split), std::slice::from_ref(&long));
    assert_eq!(all[0].iter().map(|(_, m)| m.len()).collect::<Vec<_>>(), [64, 64, 64, 8]);
    assert_eq!(all[0].iter().map(|(_, m)| m.as_str()).collect::<String>(), long.1);
    let (all, _) = batches(message(65, Oversize::Truncate), &[long]);
    assert_eq!(all[0].len(), 1);
    assert!(all[0][0].1.len() <= 65 && all[0][0].1.ends_with("é[Truncated...]"));
}

#[test]
fn a_message_in_pieces_may_go_over_several_batches() {
    let records = [(T, "x".repeat(2_500_000)), (T, "next".to_owned())];
    let (all, _) = batches(message(1_000_000, Oversize::Split), &records);
    all.iter().for_each(|batch| check(batch));
    assert_eq!(
        all.iter().flatten().map(|(_, m)| m.len()).collect::<Vec<_>>(),
        [1_000_000, 1_000_000, 500_000, 4]
    );
}

#[test]
fn a_whole_record_as_json_is_the_same_in_one_pass_and_in_pieces() {
    let records: Vec<_> = ["a \"b\" \\ \n é", &"é\"".repeat(60)].map(|m| (T, m.to_owned())).into();
    let whole = |limit| Message { key: None, ..message(limit, Oversize::Split) };
    let (all, _) = batches(whole(1000), &records);
    let (pieces, _) = batches(whole(64), &records);
    assert!(pieces[0].len() > all[0].len());
    let text = |events: &[(i64, String)]| events.iter().map(|(_, m)| m.as_str()).collect::<String>();
    assert_eq!(text(&all[0]), text(&pieces[0]));
    assert_eq!(all[0][0].1, "{\"log\":\"a \\\"b\\\" \\\\ \\n \\u00e9\"}");
}

#[test]
fn events_whose_senders_said_different_things_of_their_format_go_in_calls_of_their_own() {
    let mut bytes = Vec::new();
    let mut metadata = vec![0x81];
    msgpack::write_str(&mut metadata, b"x-amzn-logs-format");
    msgpack::write_str(&mut metadata, b"json/emf");
    for with in [true, true, false, true] {
        entry::write_head(&mut bytes, Time::new(T / 1000, 0), with.then_some(&metadata[..]));
        bytes.extend_from_slice(b"\x81\xa3log\xa1x");
    }
    let (parcels, mut runs) = parcels_of(bytes, 4);
    let mut writer = Writer::new(message(1000, Oversize::Split));
    let mut take = || writer.take(("g", "s"), &mut runs, &parcels, Vec::new(), &mut Vec::new()).unwrap();
    let batches = [take(), take(), take()].map(|b| (b.format, b.items.len()));
    let emf = || Some("json/emf".to_owned());
    assert_eq!(batches, [(emf(), 2), (None, 1), (emf(), 1)]);
}

#[test]
fn halves_hold_every_event_once() {
    let records: Vec<_> = (0..5).map(|n| (T, n.to_string())).collect();
    let (parcels, mut runs) = parcels(&records);
    let mut writer = Writer::new(message(1000, Oversize::Split));
    let batch = writer.take(("g", "s"), &mut runs, &parcels, Vec::new(), &mut Vec::new()).unwrap();
    let (mut a, mut b) = batch.halves();
    for half in [&mut a, &mut b] {
        writer.write(("g", "s"), half, &parcels);
    }
    let both: String = [a, b].iter().flat_map(|h| read(&h.body)).map(|(_, m)| m).collect();
    assert_eq!(both, "01234");
}

proptest! {
    // Batches are large, and so is what fills them.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_batch_is_one_that_the_service_takes_and_together_they_are_all(
        records in proptest::collection::vec((0_i64..200_000_000, "\\PC{0,12}", 1_usize..40_000), 1..60),
    ) {
        let records: Vec<_> = records.into_iter().map(|(t, m, n)| (T + t, m.repeat(n))).collect();
        let (all, unsent) = batches(message(100_000, Oversize::Split), &records);
        all.iter().for_each(|batch| check(batch));
        let empty = records.iter().filter(|(_, m)| m.is_empty()).count();
        prop_assert_eq!(unsent, empty);
        let mut sent: Vec<_> = all.into_iter().flatten().collect();
        sent.sort();
        let sent: usize = sent.iter().map(|(_, m)| m.len()).sum();
        prop_assert_eq!(sent, records.iter().map(|(_, m)| m.len()).sum::<usize>());
    }
}
