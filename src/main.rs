//! Arguments to a command; everything else is in the library.

use std::process::ExitCode;

/// Two arenas are enough for one data thread and the control plane (the default of four for each core doubles the
/// resident memory), and what a burst of large values took is given back after a second.
#[allow(unsafe_code)] // the only way to configure the allocator before it is first used
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: &[u8] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true\0";

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    standin::cli::main(std::env::args_os())
}
