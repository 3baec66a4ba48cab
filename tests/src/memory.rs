//! How much memory a process of the tests' own has, as the system counts it.

use std::fs;

/// The memory of one process since a moment when it was what is normal for it.
#[derive(Debug)]
pub struct Memory {
    pid: u32,
    normal_kib: u64,
}

impl Memory {
    /// What it has now is normal.
    pub fn of(pid: u32) -> Self {
        // Forgets the highest so far. Where the system does not do that, the highest counts from the start, which is no less strict.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Self { pid, normal_kib: figure(pid, "VmRSS:") }
    }

    /// What is normal, in MiB.
    pub fn normal_mib(&self) -> u64 {
        self.normal_kib / 1024
    }

    /// By how much it was more than that at the most, in MiB.
    pub fn grown_mib(&self) -> u64 {
        figure(self.pid, "VmHWM:").saturating_sub(self.normal_kib) / 1024
    }
}

fn figure(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {status}"));
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}
