//! The tag of a record: any bytes a client sends, usually short ASCII.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A tag, cheap to clone. Clients choose it: it may be empty, hold NUL or be no UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<[u8]>);

impl Tag {
    /// A tag of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Tag(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, with what is not UTF-8 replaced.
    pub fn to_str(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// A tag is found by its bytes: `Hash` and `Eq` are theirs.
impl Borrow<[u8]> for Tag {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_str())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_str())
    }
}
