//! What the machine, or the container, allows: memory and processors.

use std::path::Path;

/// The memory limit of this process's cgroup in bytes (v2, then v1), if there is one.
pub fn cgroup_memory() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(Path::new(path)).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        // v1 says "no limit" with a number near 2^63.
        .find(|limit| *limit < 1 << 60)
}

/// The default byte budget: 32 MiB, or 40 % of the cgroup's limit where that is less.
pub fn default_budget() -> u64 {
    let most = 32 << 20;
    cgroup_memory().map_or(most, |limit| (limit / 5 * 2).min(most))
}

/// Processors this process may use at once; honours the cgroup's quota.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
