//! A Keys Service request on the board, from the bytes of the request to the bytes of the answer.

#![no_std]
#![no_main]

use aziot_core::time::UnixTime;
use aziot_crypto::software::HmacSha256;
use aziot_firmware_lm3s6965evb::keys::{Buffers, Keys};

/// Bytes of stack that one request may take, beside the caller's buffers.
const STACK_LIMIT: usize = 8 * 1024;

/// `Sat, 21 Nov 2026 19:40:00 GMT`.
const DATE: u64 = 1_795_290_000;

/// The body of vector V1: an HMAC of `hello` with the key `imp`, whose handle is ⟨A⟩.
const V1_BODY: &str = include_str!("../../../tests/bench/sign.json");

/// The answer that the reference gives to V1, header order and all.
const V1_ANSWER: &str = concat!(
    "HTTP/1.1 200 OK\r\n",
    "content-type: application/json\r\n",
    "content-length: 60\r\n",
    "date: Sat, 21 Nov 2026 19:40:00 GMT\r\n",
    "\r\n",
    r#"{"signature":"IxvEhMU2UUQJfw9HJMGHaERWDj339gW7XXxoJcyTLis="}"#,
);

/// Keys of the conformance fixture.
fn fixture() -> Keys<'static> {
    let handle_validation: [u8; 32] = core::array::from_fn(|index| index as u8);
    Keys {
        handle_validation: HmacSha256::new(&handle_validation),
        id: "imp",
        key: HmacSha256::new(b"test-symmetric-key"),
    }
}

/// Request and answer buffers; statics, so that they are on nobody's stack.
struct State {
    keys: Keys<'static>,
    buffers: &'static mut Buffers,
}

impl State {
    /// Puts a request together in the buffer and returns its length.
    fn put(&mut self, parts: &[&str]) -> usize {
        let mut length = 0;
        for part in parts {
            self.buffers.request[length..length + part.len()].copy_from_slice(part.as_bytes());
            length += part.len();
        }
        length
    }

    /// The answer to the request in the buffer, as text.
    fn answer(&mut self, parts: &[&str]) -> &str {
        let length = self.put(parts);
        let length = self.answer_bytes(length);
        core::str::from_utf8(&self.buffers.response[..length]).unwrap_or("not UTF-8")
    }

    fn answer_bytes(&mut self, length: usize) -> usize {
        let date = defmt::unwrap!(UnixTime::from_secs(DATE));
        defmt::unwrap!(self.keys.answer(self.buffers, length, date))
    }
}

const V1_HEAD: &str = concat!(
    "POST /sign?api-version=2021-05-01 HTTP/1.1\r\n",
    "host: keyd.sock\r\n",
    "content-type: application/json\r\n",
    "content-length: 294\r\n",
    "\r\n",
);

#[defmt_test::tests]
mod tests {
    use core::hint::black_box;

    use aziot_firmware_lm3s6965evb::keys::{Buffers, Unanswerable};
    use aziot_firmware_lm3s6965evb::stack;
    use cortex_m::singleton;

    use super::*;

    #[init]
    fn init() -> State {
        let buffers = defmt::unwrap!(singleton!(: Buffers = Buffers::new()));
        State {
            keys: fixture(),
            buffers,
        }
    }

    /// The measuring itself: a known frame is found, and a deeper one measures deeper.
    #[test]
    fn stack_depth_follows_the_frame() {
        #[inline(never)]
        fn frame<const N: usize>() -> u8 {
            let bytes = black_box([1u8; N]);
            bytes[N / 2]
        }
        let (_, small) = stack::measure(frame::<1024>);
        let (_, large) = stack::measure(frame::<5120>);
        defmt::info!(
            "a frame of 1024 bytes measures {}, one of 5120 bytes {}",
            small,
            large
        );
        defmt::assert!((1024..1024 + 512).contains(&small));
        defmt::assert!((4096 - 64..4096 + 64).contains(&(large - small)));
    }

    #[test]
    fn ks_12_sign_v1_with_its_stack_measured(state: &mut State) {
        let length = state.put(&[V1_HEAD, V1_BODY]);
        let (answer_length, depth) = stack::measure(|| state.answer_bytes(length));
        defmt::assert_eq!(
            &state.buffers.response[..answer_length],
            V1_ANSWER.as_bytes()
        );
        defmt::info!(
            "POST /sign: {} bytes of stack beside buffers of {} bytes (limit {})",
            depth,
            size_of::<Buffers>(),
            STACK_LIMIT
        );
        defmt::assert!(depth <= STACK_LIMIT);
    }

    #[test]
    fn refusals_take_no_more_stack(state: &mut State) {
        let no_version = [
            "POST /sign HTTP/1.1\r\ncontent-length: 294\r\n\r\n",
            V1_BODY,
        ];
        let bad_json = [
            "POST /sign?api-version=2021-05-01 HTTP/1.1\r\ncontent-length: 2\r\n\r\n",
            "{]",
        ];
        let bad_head = ["POST\r\n", "\r\n"];
        let requests: [(&[&str], &str, &str); 3] = [
            (
                &no_version,
                "HTTP/1.1 400 ",
                r#"{"message":"api-version not specified"}"#,
            ),
            (
                &bad_json,
                "HTTP/1.1 422 ",
                r#"{"message":"key must be a string at line 1 column 2"}"#,
            ),
            (&bad_head, "HTTP/1.1 400 ", "\r\n\r\n"),
        ];
        for (parts, start, end) in requests {
            let length = state.put(parts);
            let (answer_length, depth) = stack::measure(|| state.answer_bytes(length));
            let answer =
                defmt::unwrap!(core::str::from_utf8(&state.buffers.response[..answer_length]).ok());
            defmt::info!("{=str}: {} bytes of stack", start, depth);
            defmt::assert!(
                answer.starts_with(start) && answer.ends_with(end),
                "{=str}",
                answer
            );
            defmt::assert!(depth <= STACK_LIMIT);
        }
    }

    #[test]
    fn ks_14_forged_handle_is_refused(state: &mut State) {
        let (before, after) = defmt::unwrap!(V1_BODY.split_once("&sig=M"));
        let answer = state.answer(&[V1_HEAD, before, "&sig=N", after]);
        defmt::assert!(answer.starts_with("HTTP/1.1 400 "), "{=str}", answer);
        defmt::assert!(
            answer.ends_with("caused by: invalid handle\"}"),
            "{=str}",
            answer
        );
    }

    #[test]
    fn incomplete_request_waits(state: &mut State) {
        let date = defmt::unwrap!(UnixTime::from_secs(DATE));
        let length = state.put(&[V1_HEAD, V1_BODY]);
        for length in [0, 10, V1_HEAD.len() - 1, V1_HEAD.len(), length - 1] {
            let length = state.put(&[V1_HEAD, V1_BODY]).min(length);
            let answer = state.keys.answer(state.buffers, length, date);
            defmt::assert_eq!(answer, Err(Unanswerable::Incomplete));
        }
    }

    #[test]
    fn derived_key_signs_v6(state: &mut State) {
        let body = concat!(
            r#"{"keyHandle":""#,
            include_str!("derived-handle.txt"),
            r#"","algorithm":"HMAC-SHA256","parameters":{"message":"aGVsbG8="}}"#
        );
        let head = "POST /sign?api-version=2021-05-01 HTTP/1.1\r\ncontent-length: 674\r\n\r\n";
        defmt::assert_eq!(body.len(), 674);
        let answer = state.answer(&[head, body]);
        defmt::assert!(
            answer.ends_with(r#"{"signature":"4bn05rQ6bGyfX0Mpebcq7C0fcWj95Udp4N0/YKvqGmc="}"#),
            "{=str}",
            answer
        );
    }
}
