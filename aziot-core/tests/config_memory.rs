//! How much memory configuration takes at most, counted.
#![cfg(feature = "alloc")]
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use aziot_core::config::{DOCUMENT_BYTES, MERGED_BYTES, Merged, Places, VALUES, identityd, keyd};

/// Counts bytes in use, and the most there ever were.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    let now = IN_USE.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

// SAFETY: all calls are passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as for this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as for this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes in use at a time while `work` runs, beyond what was in use before.
fn peak(work: impl FnOnce()) -> usize {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    PEAK.load(Relaxed) - before
}

fn load(documents: &[&str]) {
    let mut merged = Merged::new();
    for (name, document) in documents.iter().enumerate() {
        merged.add(&name.to_string(), document).unwrap();
    }
    let _ = keyd::Settings::read(&merged, &Places::default());
    let _ = identityd::Settings::read(&merged, &Places::default());
}

/// One test, as the count is for the whole process.
#[test]
fn memory_is_bounded() {
    // What a device has.
    let ordinary = "max_requests = 10\n[aziot_keys]\nhomedir_path = \"/var/lib/aziot/keyd\"\n\
                    [preloaded_keys]\ndevice-id = \"file:///var/secrets/aziot/keyd/device-id\"\n\
                    [[principal]]\nuid = 994\nkeys = [\"aziot_identityd_master_id\", \"device-id\"]\n";
    let bytes = peak(|| load(&[ordinary]));
    assert!(bytes < 16 * 1024, "{bytes}");

    // The most values in the fewest bytes, in as many documents as are accepted.
    let dense = format!("a=[{}]", "1,".repeat(VALUES / 4 - 1));
    let full = [dense.as_str(); 4];
    let bytes = peak(|| load(&full));
    assert!(bytes < 3 << 20, "{bytes}");

    // The same with a name for each, and as much text as is accepted.
    let mut named = String::new();
    for key in 0..VALUES / 4 - 1 {
        named.push_str(&format!("{key:04x}=\"{:8}\"\n", ""));
    }
    assert!(named.len() <= DOCUMENT_BYTES);
    let bytes = peak(|| load(&[named.as_str(); MERGED_BYTES / DOCUMENT_BYTES]));
    assert!(bytes < 3 << 20, "{bytes}");

    // What is refused has been parsed: a document of nothing but one-digit numbers takes the most.
    let refused = format!("a=[{}]", "1,".repeat(DOCUMENT_BYTES / 2 - 2));
    let bytes = peak(|| assert!(Merged::new().add("f", &refused).is_err()));
    assert!(bytes < 6 << 20, "{bytes}");

    // Everything is given back.
    let before = IN_USE.load(Relaxed);
    load(&full);
    assert_eq!(IN_USE.load(Relaxed), before);
}
