//! Services that answer late, in part, too much, or nothing: the client returns, with the right answer or an error.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

mod support;

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use aziot_keys_client::transport::{self, Deadline, Kind, Step};
use aziot_keys_client::{Deadlines, Error, Usage};
use support::{
    LONG, SHORT, Service, client, handle, hang_on, json, place, request, transport_error,
};

const LOADED: &str = "{\"keyHandle\":\"h\"}";

#[test]
fn hc_08_ks_35_a_connection_closed_at_once() {
    // It was not read, so it is sent again, whatever it is, and then given up.
    let service = Service::new(4, |_, stream| drop(stream));
    let error = transport_error(service.client().delete_key(&handle()));
    assert_eq!(error.kind(), Kind::Closed { answered: false });
    assert!(error.to_string().contains("max_requests"), "{error}");
    service.end();
    let service = Service::new(3, |number, mut stream| {
        if number == 2 {
            request(&mut stream);
            let answer = "HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    service.client().delete_key(&handle()).unwrap();
    service.end();
}

#[test]
fn hc_08_ks_35_a_connection_closed_after_the_request() {
    let service = Service::new(4, |_, mut stream| drop(request(&mut stream)));
    let keys = service.client();
    // None of them is repeated: the fourth would find nobody.
    for result in [
        keys.move_key_pair("a", "b"),
        keys.delete_key_pair(&handle()),
        keys.load_key("k").map(drop),
        keys.import_key("k", b"x", Usage::DERIVE_SIGN).map(drop),
    ] {
        let error = transport_error(result);
        assert_eq!(error.kind(), Kind::Closed { answered: false });
        assert!(!error.is_unsent());
    }
    service.end();
}

#[test]
fn ks_35_an_answer_in_single_bytes() {
    let service = Service::new(1, |_, mut stream| {
        request(&mut stream);
        for byte in json("200 OK", LOADED).bytes() {
            stream.write_all(&[byte]).unwrap();
            std::thread::yield_now();
        }
        hang_on(stream);
    });
    assert_eq!(service.client().load_key("k").unwrap().as_str(), "h");
    service.end();
}

#[test]
fn ks_35_an_answer_that_ends_anywhere() {
    let whole = json("200 OK", LOADED);
    let cuts = whole.len();
    let service = Service::new(cuts, move |cut, mut stream| {
        request(&mut stream);
        stream.write_all(&whole.as_bytes()[..cut]).unwrap();
    });
    let keys = service.client();
    for cut in 0..cuts {
        let error = transport_error(keys.load_key("k"));
        assert_eq!(
            error.kind(),
            Kind::Closed { answered: cut > 0 },
            "after {cut} bytes: {error}"
        );
    }
    service.end();
}

#[test]
fn ks_35_heads_without_end() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let service = Service::saying(long);
    let error = transport_error(service.client().load_key("k"));
    assert_eq!(error.kind(), Kind::InvalidData, "{error}");
    service.end();

    for piece in ["x: y\r\n", "y", "HTTP/1.1 100 Continue\r\n"] {
        let service = Service::new(1, move |_, mut stream| {
            request(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
            // Until the client has had enough.
            while stream.write_all(piece.repeat(1000).as_bytes()).is_ok() {}
        });
        let error = transport_error(service.client().load_key("k"));
        assert_eq!(error.kind(), Kind::InvalidData, "{piece:?}: {error}");
        service.end();
    }
}

#[test]
fn ks_35_bodies_without_end() {
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
    let service = Service::saying(announced);
    let error = transport_error(service.client().load_key("k"));
    assert_eq!(error.kind(), Kind::InvalidData, "{error}");
    service.end();

    for framing in ["connection: close", "transfer-encoding: chunked"] {
        let service = Service::new(1, move |_, mut stream| {
            request(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        });
        let error = transport_error(service.client().load_key("k"));
        assert_eq!(error.kind(), Kind::InvalidData, "{framing}: {error}");
        service.end();
    }
}

#[test]
fn ks_35_no_content_is_complete_while_the_connection_stays_open() {
    for field in [
        "",
        "content-length: 0\r\n",
        "content-length: 5\r\n",
        "connection: close\r\n",
        "content-type: application/json\r\n",
    ] {
        let service = Service::saying(format!("HTTP/1.1 204 No Content\r\n{field}\r\n"));
        service.client().delete_key_pair(&handle()).unwrap();
        service.end();
        let service = Service::saying(format!("HTTP/1.1 204 No Content\r\n{field}\r\n"));
        service.client().move_key_pair("a", "b").unwrap();
        service.end();
    }
}

#[test]
fn hc_05_ks_35_framings_and_content_types() {
    let body = LOADED;
    let length = body.len();
    let (first, second) = body.split_at(5);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\nt: v\r\n\r\n",
        second.len()
    );
    for answer in [
        json("200 OK", body),
        json("201 Created", body),
        chunked,
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}",
            json("200 OK", body)
        ),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: APPLICATION/JSON\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("HTTP/1.0 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
    ] {
        let service = Service::saying(answer.clone());
        let result = service.client().load_key("k");
        assert_eq!(result.unwrap().as_str(), "h", "{answer}");
        service.end();
    }
    // To the end of the stream.
    let service = Service::new(1, |_, mut stream| {
        request(&mut stream);
        let answer = format!("HTTP/1.1 200 OK\r\n\r\n{LOADED}");
        stream.write_all(answer.as_bytes()).unwrap();
    });
    assert_eq!(service.client().load_key("k").unwrap().as_str(), "h");
    service.end();
    let html = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let service = Service::saying(html);
    assert!(matches!(
        service.client().load_key("k"),
        Err(Error::Malformed(_))
    ));
    service.end();
}

#[test]
fn answers_that_are_not_http() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "HTTP/1.1 2000 Many\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ] {
        let service = Service::saying(answer);
        let error = transport_error(service.client().load_key("k"));
        assert_eq!(error.kind(), Kind::InvalidData, "{answer:?}: {error}");
        service.end();
    }
}

fn deadlines(connect: Duration, silence: Duration) -> Deadlines {
    Deadlines {
        connect,
        silence,
        whole: LONG,
        generation: LONG,
    }
}

#[test]
fn ks_35_a_silent_service() {
    for beginning in [
        "",
        "HTTP/1.1 200 O",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let service = Service::saying(beginning);
        let keys = client(service.path(), deadlines(LONG, SHORT));
        let error = transport_error(keys.load_key("k"));
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::TimedOut, Step::Receive),
            "{error}"
        );
        assert!(error.to_string().contains("keyd.sock"), "{error}");
        service.end();
    }
}

#[test]
fn ks_35_a_service_that_never_finishes() {
    let service = Service::new(1, |_, mut stream| {
        request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").unwrap();
        while stream.write_all(b"y").is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let keys = client(
        service.path(),
        Deadlines {
            whole: SHORT,
            ..Deadlines::all(LONG)
        },
    );
    let error = transport_error(keys.load_key("k"));
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::TimedOut, Step::Receive),
        "{error}"
    );
    service.end();
}

#[test]
fn generating_a_key_may_take_longer() {
    let quick = Deadlines {
        generation: LONG,
        ..Deadlines::all(SHORT)
    };
    let service = Service::new(2, |_, mut stream| {
        request(&mut stream);
        std::thread::sleep(SHORT * 2);
        let answer = json("200 OK", LOADED);
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let keys = client(service.path(), quick);
    keys.create_key_pair("k", Some("rsa-4096")).unwrap();
    keys.create_key("k", Usage::DERIVE_SIGN).unwrap();
    service.end();
}

#[test]
fn ks_35_a_service_that_takes_nothing() {
    let (done, wait) = std::sync::mpsc::channel();
    let service = Service::new(1, move |_, stream| {
        wait.recv_timeout(LONG).unwrap();
        hang_on(stream);
    });
    let keys = client(service.path(), deadlines(LONG, SHORT));
    let error = transport_error(keys.encrypt(&handle(), b"iv", b"", &vec![0; 4 << 20]));
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::TimedOut, Step::Send),
        "{error}"
    );
    done.send(()).unwrap();
    service.end();
}

#[test]
fn ks_35_a_service_that_accepts_nobody() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    // The backlog of the listener is filled up.
    let at_once = || transport::connect_unix(&path, Deadline::after(Duration::ZERO));
    let mut waiting = Vec::new();
    while let Ok(stream) = at_once() {
        waiting.push(stream);
    }
    let keys = client(&path, deadlines(SHORT, LONG));
    let error = transport_error(keys.load_key("k"));
    assert_eq!(
        (error.kind(), error.step()),
        (Kind::TimedOut, Step::Connect),
        "{error}"
    );
    drop(listener);
}

#[test]
fn nobody_there_and_what_to_do_about_it() {
    let (_directory, path) = place();
    let keys = client(&path, Deadlines::all(LONG));
    let missing = transport_error(keys.load_key("k"));
    // A socket file that nobody listens at any more.
    drop(UnixListener::bind(&path).unwrap());
    let stale = transport_error(keys.load_key("k"));
    for error in [missing, stale] {
        assert_eq!(
            (error.kind(), error.step()),
            (Kind::NotConnected, Step::Connect)
        );
        let text = error.to_string();
        assert!(
            text.contains(path.to_str().unwrap()) && text.contains("systemctl status aziot-keyd"),
            "{text}"
        );
    }
    let long = path.with_file_name("x".repeat(200));
    let error = transport_error(client(&long, Deadlines::all(LONG)).load_key("k"));
    assert_eq!(error.kind(), Kind::NotConnected, "{error}");
}
