//! What the kernel says of this process. Read from `/proc`; a system without it reports nothing rather than zero.

use std::fs;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessSample {
    /// `VmRSS`. Taken from `status`, which gives kilobytes whatever the page size is.
    pub resident_bytes: Option<u64>,
    /// Without the descriptor that reads the list.
    pub open_fds: Option<u64>,
}

impl ProcessSample {
    /// Two small reads, some tens of microseconds; meant for once a second.
    pub fn now() -> Self {
        Self {
            resident_bytes: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_kernels_text() {
        assert_eq!(resident_bytes("Name:\tstandin\nVmRSS:\t   10240 kB\nThreads:\t3\n"), Some(10_485_760));
        for text in ["", "VmRSS:\t10240\n", "VmRSS:\tmany kB\n", "VmHWM:\t1 kB\n"] {
            assert_eq!(resident_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_has_memory_and_its_standard_streams() {
        let sample = ProcessSample::now();
        assert!(sample.resident_bytes.unwrap() > 100_000, "{sample:?}");
        assert!(sample.open_fds.unwrap() >= 3, "{sample:?}");
    }
}
