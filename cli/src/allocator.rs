//! The allocator of all roles: jemalloc, set for a server.
//!
//! A request's memory is taken by one thread and given back by another, often the store's. glibc's allocator takes the lock of
//! the owner's arena for that and grows arenas page by page: up to a third of the server's CPU (docs/adr/013-allocator.md).

use std::ffi::c_char;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Two arenas, as many as threads that work at a time; pages that were free for half a second go back to the kernel. Small
/// processes are started with [`nodeagent::SMALL_HEAP`] in their environment.
const SETTINGS: &[u8] = b"narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0\0";

/// What jemalloc reads when the process starts (jemalloc(3), `malloc_conf`): a pointer to text that ends with a zero.
#[repr(transparent)]
pub struct Settings(*const c_char);

// SAFETY: the text it points to is never written.
unsafe impl Sync for Settings {}

// SAFETY: no other symbol of the executable has this name but jemalloc's own weak one, which it is made to replace; the type is
// that of a `const char *`.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
pub static MALLOC_CONF: Settings = Settings(SETTINGS.as_ptr().cast());
