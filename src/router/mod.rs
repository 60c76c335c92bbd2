//! Which filters and outputs a tag goes through.
//!
//! Enters: a tag. Leaves: a shared route, resolved once per tag and cached (the cache is bounded: clients choose tags).
//! Tags that match the same filters and outputs share one route.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::text::{Regex, TagPattern};

/// Tags kept in the cache; beyond it the cache begins anew.
const MAX_TAGS: usize = 65_536;

/// `Match` and `Match_Regex` of one filter or output: either is enough.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// `Match`.
    pub pattern: Option<TagPattern>,
    /// `Match_Regex`, anchored at the start of the tag.
    pub regex: Option<Regex>,
}

impl Matcher {
    /// Whether it takes the tag.
    pub fn matches(&self, tag: &[u8]) -> bool {
        self.regex.as_ref().is_some_and(|r| r.is_match_at_start(tag))
            || self.pattern.as_ref().is_some_and(|p| p.matches(tag))
    }
}

type Make<R> = Box<dyn Fn(usize, &[usize], &[usize]) -> R + Send + Sync>;

struct Cache<R> {
    tags: HashMap<Box<[u8]>, Arc<R>, foldhash::fast::RandomState>,
    classes: HashMap<(Vec<usize>, Vec<usize>), Arc<R>>,
}

/// Resolves tags.
pub struct Router<R> {
    filters: Vec<Matcher>,
    outputs: Vec<Matcher>,
    make: Make<R>,
    cache: Mutex<Cache<R>>,
}

impl<R> Router<R> {
    /// `make(number, filters, outputs)` builds the route of a set of matching filters and outputs, in order; it is
    /// called once for each set, with consecutive numbers from 0.
    pub fn new(filters: Vec<Matcher>, outputs: Vec<Matcher>, make: Make<R>) -> Self {
        let cache = Mutex::new(Cache { tags: HashMap::default(), classes: HashMap::new() });
        Router { filters, outputs, make, cache }
    }

    /// The route of a tag.
    pub fn route(&self, tag: &[u8]) -> Arc<R> {
        // Every write leaves the maps whole, so a poisoned lock is still good.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = cache.tags.get(tag) {
            return Arc::clone(route);
        }
        let matching = |list: &[Matcher]| -> Vec<usize> {
            list.iter().enumerate().filter(|(_, m)| m.matches(tag)).map(|(i, _)| i).collect()
        };
        let set = (matching(&self.filters), matching(&self.outputs));
        let number = cache.classes.len();
        let route = match cache.classes.get(&set) {
            Some(route) => Arc::clone(route),
            None => {
                let route = Arc::new((self.make)(number, &set.0, &set.1));
                cache.classes.insert(set, Arc::clone(&route));
                route
            }
        };
        if cache.tags.len() >= MAX_TAGS {
            cache.tags.clear();
        }
        cache.tags.insert(tag.into(), Arc::clone(&route));
        route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(p: &str) -> Matcher {
        Matcher { pattern: Some(TagPattern::new(p)), regex: None }
    }

    #[test]
    fn tags_with_the_same_filters_and_outputs_share_a_route() {
        let router = Router::new(
            vec![glob("a*"), glob("*")],
            vec![glob("*")],
            Box::new(|n, f, o| (n, f.to_vec(), o.to_vec())),
        );
        assert_eq!(*router.route(b"a1"), (0, vec![0, 1], vec![0]));
        assert!(Arc::ptr_eq(&router.route(b"a1"), &router.route(b"a2")));
        assert_eq!(*router.route(b"b"), (1, vec![1], vec![0]));
    }

    #[test]
    fn match_regex_is_anchored_at_the_start_and_either_is_enough() {
        let m = Matcher { pattern: Some(TagPattern::new("z")), regex: Regex::new("a.").ok() };
        assert!(m.matches(b"abc") && m.matches(b"z") && !m.matches(b"xab"));
    }
}
