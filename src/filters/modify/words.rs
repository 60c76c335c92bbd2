//! The words of a rule: separated by spaces (a tab is part of a word), held together by single or double quotes.

/// Splits into words. Inside of quotes a `\` before a quote or a `\` is not part of the word; elsewhere quotes and
/// backslashes are ordinary, so that patterns can be written as they are. `None` when a quote is not closed.
pub(super) fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if_eq(&' ').is_some() {}
        let Some(first) = chars.peek().copied() else { return Some(words) };
        let mut word = String::new();
        if let '"' | '\'' = first {
            chars.next();
            loop {
                match chars.next()? {
                    c if c == first => break,
                    '\\' => word.push(chars.next_if(|c| matches!(c, '"' | '\'' | '\\')).unwrap_or('\\')),
                    c => word.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ' ') {
                word.push(c);
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn quotes_of_both_kinds_hold_words_together() {
        for (text, want) in [
            (r#""a key" "a  value""#, vec!["a key", "a  value"]),
            ("a 'b c'  d ", vec!["a", "b c", "d"]),
            (r#"x "a\"b" 'it\'s' "\\d" '\d+'"#, vec!["x", "a\"b", "it's", "\\d", "\\d+"]),
            (r#"^k\d$ a"b c'd"#, vec!["^k\\d$", "a\"b", "c'd"]),
            (r#""" x"#, vec!["", "x"]),
            ("x a\tb", vec!["x", "a\tb"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), want, "{text}");
        }
        assert_eq!(split("a \"b c"), None);
        assert_eq!(split("a 'b\\"), None);
    }
}
