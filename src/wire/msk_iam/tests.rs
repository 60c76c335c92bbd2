//! Against the tokens of PyPI's aws-msk-iam-sasl-signer-python at fixed clocks (tests/golden/msk-iam.py makes them).

use super::*;

#[test]
fn tokens_are_those_of_awss_own_signer_but_for_the_name_at_the_end() {
    let golden = include_str!("../../../tests/golden/msk-iam.jsonl");
    let mut rows = 0;
    for line in golden.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| row[key].as_str().unwrap();
        let keys = Keys { id: text("id"), secret: text("secret"), session: row["session"].as_str() };
        let now = row["now"].as_i64().unwrap();
        let address = URL_SAFE_NO_PAD.decode(token(text("region"), &keys, now)).unwrap();
        let address = String::from_utf8(address).unwrap();
        let signed = |url: &str| url.split("&User-Agent=").next().unwrap().to_owned();
        assert_eq!(signed(&address), signed(text("url")));
        assert_eq!((now + EXPIRES) * 1000, row["expires_ms"].as_i64().unwrap());
        rows += 1;
    }
    assert_eq!(rows, 3);
}
