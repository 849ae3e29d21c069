//! PEM in place: what servers send that take PEM for PKCS #7.

use super::answer::{Error, decode_base64};
use super::pkcs7;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Labels of blocks that hold PKCS #7; the last may also hold a certificate.
const LABELS: [&[u8]; 3] = [b"PKCS7", b"PKCS #7 SIGNED DATA", b"CERTIFICATE"];

/// Whether there is a block in `text`.
pub(super) fn is_pem(text: &[u8]) -> bool {
    find(text, BEGIN).is_some()
}

/// Moves the certificates of all blocks to the front of `text`, and answers how many bytes they have. Blocks with other
/// labels are ignored.
pub(super) fn certificates(text: &mut [u8]) -> Result<usize, Error> {
    let mut read = 0_usize;
    let mut written = 0_usize;
    let mut blocks = 0_usize;
    while let Some((is_ours, block)) = next_block(text, &mut read) {
        if !is_ours {
            continue;
        }
        blocks = blocks.saturating_add(1);
        let start = block.start;
        let length = decode_base64(text.get_mut(block).unwrap_or_default())?;
        let der = text
            .get(start..start.saturating_add(length))
            .unwrap_or_default();
        let found = pkcs7::certificates(der).map_err(Error::Pkcs7)?;
        let length = found.len();
        let from = start.saturating_add(found.start);
        // What is written never gets ahead of what is read, because Base64 is longer than its bytes.
        text.copy_within(from..from.saturating_add(length), written);
        written = written.saturating_add(length);
    }
    if blocks == 0 {
        return Err(Error::Encoding(super::Excerpt::new(text)));
    }
    Ok(written)
}

/// The next block from `at` on: whether it is one that matters, and where its Base64 is. An unfinished block is none.
fn next_block(text: &[u8], at: &mut usize) -> Option<(bool, core::ops::Range<usize>)> {
    let label = at.checked_add(find(text.get(*at..)?, BEGIN)?)?;
    let label = label.checked_add(BEGIN.len())?;
    let label_length = find(text.get(label..)?, DASHES)?;
    let name = text.get(label..label.checked_add(label_length)?)?;
    let mut start = label.checked_add(label_length)?.checked_add(DASHES.len())?;
    let end = start.checked_add(find(text.get(start..)?, END)?)?;
    *at = end;
    // Header fields (RFC 1421) come first and end with an empty line; Base64 has no colon.
    let body = text.get(start..end)?;
    if body.contains(&b':') {
        let empty = find(body, b"\n\n").or_else(|| find(body, b"\n\r\n"));
        start = start.checked_add(empty?)?;
    }
    Some((LABELS.contains(&name), start..end))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}
