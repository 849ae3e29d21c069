//! A service with the routes of the transport's conformance vectors, for tests of everything that services share.
//!
//! `stub-service SOCKET`; the variable `STUB_MAX_REQUESTS` sets the number of connections per user.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aziot_core::api::{Api, Route};
use aziot_core::http::Method;
use aziot_core::json::Bytes;
use aziot_daemon::lanes::Lane;
use aziot_daemon::listener::Endpoint;
use aziot_daemon::logging;
use aziot_daemon::server::{self, Setup};
use aziot_daemon::service::{Context, Handled, Reply, Request, RequestId, Service};
use aziot_daemon::timing::Timing;
use serde_json::{Value, json};

/// Where the routes lead.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Echoes what reached the handler.
    Item,
    /// Exists from the second version on.
    Newer,
    /// Answers 204.
    NoContent,
    /// Answers 204 and closes.
    NoContentAndClose,
    /// Answers after `ms` milliseconds in a worker.
    Slow,
    /// Keeps the loop for 20 ms the first time, and from then on until there is a `file`, but no longer than twenty seconds.
    Wait,
    /// Answers with a string of `bytes` characters.
    Big,
    /// Fails with an internal error that has a cause.
    Broken,
}

static API: Api<Op> = Api {
    versions: &["2020-09-01", "2022-08-01"],
    routes: &[
        Route {
            path: "/items/{id}",
            since: 0,
            methods: &[Method::Get, Method::Post, Method::Put, Method::Delete],
            id: Op::Item,
        },
        Route {
            path: "/newer",
            since: 1,
            methods: &[Method::Get],
            id: Op::Newer,
        },
        Route {
            path: "/nc",
            since: 0,
            methods: &[Method::Get, Method::Delete],
            id: Op::NoContent,
        },
        Route {
            path: "/ncc",
            since: 0,
            methods: &[Method::Get],
            id: Op::NoContentAndClose,
        },
        Route {
            path: "/slow/{ms}",
            since: 0,
            methods: &[Method::Get, Method::Post],
            id: Op::Slow,
        },
        Route {
            path: "/wait/{file}",
            since: 0,
            methods: &[Method::Get],
            id: Op::Wait,
        },
        Route {
            path: "/big/{bytes}",
            since: 0,
            methods: &[Method::Get],
            id: Op::Big,
        },
        Route {
            path: "/broken",
            since: 0,
            methods: &[Method::Get],
            id: Op::Broken,
        },
    ],
};

aziot_core::json_input! {
    /// The body that items take.
    struct Item<'a> {
        /// Any string.
        key_id: &'a str = "keyId",
        /// Any bytes.
        n: Option<Bytes<'a>> = "n",
    }
}

/// The service.
#[derive(Default)]
struct Stub {
    /// Whether the loop was kept.
    has_waited: bool,
}

impl Service for Stub {
    type Op = Op;
    type Event = RequestId;

    const NAME: &'static str = "aziot_stub";
    const BODY_LIMIT: usize = 1024 * 1024;

    fn api() -> &'static Api<Op> {
        &API
    }

    fn request(
        &mut self,
        mut request: Request<'_, Op>,
        reply: Reply<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Handled {
        match request.op {
            Op::Item => item(&mut request, reply),
            Op::Newer => reply.ok(&json!({ "version": request.version })),
            Op::NoContent => reply.no_content(),
            Op::NoContentAndClose => reply.no_content_and_close(),
            Op::Slow => {
                let pause = Duration::from_millis(number(request.param));
                let id = request.id;
                let job = move || {
                    std::thread::sleep(pause);
                    id
                };
                match cx.run(Lane::Cloud, job) {
                    Ok(()) => Handled::Later,
                    Err(_) => reply.error(500, &"the lane is full"),
                }
            }
            Op::Wait => {
                let file = Path::new(request.param);
                if std::mem::replace(&mut self.has_waited, true) {
                    let latest = Instant::now() + Duration::from_secs(20);
                    while !file.exists() && Instant::now() < latest {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                } else {
                    std::thread::sleep(Duration::from_millis(20));
                }
                reply.ok(&json!({ "exists": file.exists() }))
            }
            Op::Big => {
                let size = usize::try_from(number(request.param)).unwrap_or(0);
                reply.ok(&json!({ "text": "x".repeat(size) }))
            }
            Op::Broken => reply.error(500, &"a first cause\nand its own cause"),
        }
    }

    fn event(&mut self, id: RequestId, cx: &mut Context<'_, Self>) {
        if let Some(reply) = cx.reply(id) {
            let _ = reply.ok(&json!({ "slow": true }));
        }
    }
}

fn item<'r>(request: &mut Request<'r, Op>, reply: Reply<'_>) -> Handled {
    let peer = request.peer;
    let mut echo = json!({
        "id": request.param,
        "type": request.kind,
        "version": request.version,
        "uid": peer.uid,
        "pid": peer.pid,
    });
    let optional = request.method == Method::Get
        || (request.method == Method::Delete && request.body.is_none());
    if !optional {
        let item: Item<'r> = match request.decode() {
            Ok(item) => item,
            Err(error) => return reply.error(error.status(), &error),
        };
        echo["keyId"] = json!(item.key_id);
        echo["n"] = item.n.map_or(Value::Null, |n| json!(n.0));
    }
    reply.ok(&echo)
}

fn number(param: &str) -> u64 {
    param.parse().unwrap_or(0)
}

fn main() -> ExitCode {
    logging::init();
    let Some(socket) = std::env::args_os().nth(1) else {
        log::error!("usage: stub-service SOCKET");
        return ExitCode::from(2);
    };
    let max_requests = std::env::var("STUB_MAX_REQUESTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10);
    let passed = match server::passed() {
        Ok(passed) => passed,
        Err(error) => {
            logging::error_chain("service encountered an error", Some(&error));
            return ExitCode::FAILURE;
        }
    };
    let setup = Setup {
        endpoint: Endpoint::Path(socket.into()),
        max_requests,
        passed,
        watch: None,
        timing: Timing::from_env(),
        announce: true,
    };
    match server::serve(|_| Stub::default(), setup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::error_chain("service encountered an error", Some(&error));
            ExitCode::FAILURE
        }
    }
}
