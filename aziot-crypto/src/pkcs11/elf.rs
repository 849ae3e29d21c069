//! A look at a shared library before the loader maps it (System V ABI, chapter 5).
//!
//! The loader maps the segments that a file's header promises. Where the file ends before they do, as after a copy that
//! was interrupted, touching the rest ends the process with SIGBUS; nobody can catch that, so it is found out first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `PT_LOAD`: a segment that is mapped.
const LOAD: u64 = 1;

/// Program headers that are looked at; real libraries have about ten.
const MAX_HEADERS: usize = 128;

/// Where the fields are, for one of the two classes of files.
struct Layout {
    /// Bytes of an address or offset.
    word: usize,
    /// `e_phoff`, `e_phentsize`, `e_phnum` in the file's header.
    table: usize,
    entry_size: usize,
    entries: usize,
    /// `p_offset`, `p_filesz` in a program header; `p_type` is its first four bytes.
    offset: usize,
    size: usize,
}

const CLASS_32: Layout = Layout {
    word: 4,
    table: 28,
    entry_size: 42,
    entries: 44,
    offset: 4,
    size: 16,
};

const CLASS_64: Layout = Layout {
    word: 8,
    table: 32,
    entry_size: 54,
    entries: 56,
    offset: 8,
    size: 32,
};

/// Whether a file ends before the segments that its header promises, and with that how long it should be at least.
///
/// `None` also for everything that the loader refuses by itself: files that are none, or of another machine.
pub(super) fn missing_end(path: &Path) -> Option<(u64, u64)> {
    let file = File::open(path).ok()?;
    let promised = promised_len(&file).ok()??;
    let len = file.metadata().ok()?.len();
    (len < promised).then_some((len, promised))
}

/// The end of the last segment that would be mapped.
fn promised_len(file: &File) -> io::Result<Option<u64>> {
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    let layout = match header {
        [0x7f, b'E', b'L', b'F', 1, ..] => CLASS_32,
        [0x7f, b'E', b'L', b'F', 2, ..] => CLASS_64,
        _ => return Ok(None),
    };
    // What is written the other way round is of another machine.
    let fields = (
        number(&header, layout.table, layout.word),
        number(&header, layout.entry_size, 2),
        number(&header, layout.entries, 2),
    );
    let (Some(table), Some(entry_size), Some(entries)) = fields else {
        return Ok(None);
    };
    let mut promised = None;
    for at in 0..entries.min(MAX_HEADERS as u64) {
        let mut entry = [0; 56];
        let entry = entry
            .get_mut(..layout.size + layout.word)
            .unwrap_or_default();
        let place = at
            .checked_mul(entry_size)
            .and_then(|offset| table.checked_add(offset));
        let Some(place) = place else { break };
        file.read_exact_at(entry, place)?;
        let end = number(entry, layout.offset, layout.word)
            .zip(number(entry, layout.size, layout.word))
            .and_then(|(offset, size)| offset.checked_add(size));
        if number(entry, 0, 4) == Some(LOAD) {
            promised = promised.max(end);
        }
    }
    Ok(promised)
}

/// A number of `len` bytes, at most eight, in the byte order of this machine.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let mut value = [0; 8];
    if cfg!(target_endian = "big") {
        value.get_mut(8_usize.checked_sub(len)?..)?
    } else {
        value.get_mut(..len)?
    }
    .copy_from_slice(bytes);
    Some(u64::from_ne_bytes(value))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn libraries_that_are_whole_and_that_are_not() {
        let directory = tempfile::tempdir().unwrap();
        // The test itself is as good a file as any library.
        let whole = std::env::current_exe().unwrap();
        assert_eq!(missing_end(&whole), None);

        let bytes = fs::read(&whole).unwrap();
        let promised = promised_len(&File::open(&whole).unwrap()).unwrap().unwrap();
        let cut = directory.path().join("cut.so");
        for len in [promised / 2, promised - 1] {
            fs::write(&cut, &bytes[..usize::try_from(len).unwrap()]).unwrap();
            assert_eq!(missing_end(&cut), Some((len, promised)));
        }
        for len in [0, 3, 51, 63, 100] {
            fs::write(&cut, &bytes[..len]).unwrap();
            assert_eq!(missing_end(&cut), None, "the loader refuses {len} bytes");
        }
        fs::write(&cut, [0xff; 4096]).unwrap();
        assert_eq!(missing_end(&cut), None);
        assert_eq!(missing_end(&directory.path().join("missing")), None);
    }
}
