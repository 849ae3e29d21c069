//! A request on its way through the lanes.

use std::sync::Arc;

use aziot_core::api::keys::Op;
use aziot_core::http::Method;
use zeroize::Zeroizing;

use super::Event;
use super::grants::Caller;
use super::library::{Library, Mode, Place};
use super::operation::{self, Call, Failure, Work};
use crate::lanes::Lane;
use crate::server::Held;
use crate::service::RequestId;

/// A request with all that it takes to carry it out in a worker.
pub struct Task {
    /// For answering it.
    pub id: RequestId,
    /// The route.
    pub op: Op,
    /// The method.
    pub method: Method,
    /// The path parameter.
    pub param: String,
    /// The JSON body as it came in.
    pub body: Option<Zeroizing<Vec<u8>>>,
    /// Who asks.
    pub caller: Caller,
    /// What the body, and a copy of it, count for.
    pub held: Held,
}

impl Task {
    /// Carries it out. Bodies are decoded in place, so if it may turn out that this is not the place for it, a copy is
    /// worked on.
    pub fn run(mut self, library: &Library, mode: Mode) -> Event {
        let mut work = Work::default();
        let mut copy = (mode != Mode::Full).then(|| self.body.clone()).flatten();
        let body = match (mode, &mut self.body) {
            (Mode::Full, body) => body.as_mut(),
            _ => copy.as_mut(),
        };
        let call = Call {
            op: self.op,
            method: self.method,
            param: &self.param,
            body: body.map(|body| body.as_mut_slice()),
            caller: &self.caller,
        };
        match operation::execute(library, mode, call, &mut work) {
            Err(Failure::WouldBlock(place)) if mode != Mode::Full => {
                work.wipe();
                Event::Elsewhere(self, place)
            }
            result => Event::Done(self.id, result, work),
        }
    }
}

/// Which lane a task goes to, and how far it may go there, once it is known where the call that it needs has to be made.
///
/// All operations but moves need the handle key. If that is in a token, none of them stays away from the token for long, and
/// none may begin where it cannot end.
#[must_use]
pub fn lane(place: Place, handle_key: Place) -> (Lane, Mode) {
    match (place, handle_key) {
        (Place::Library, _) => (Lane::Library, Mode::Full),
        (Place::Token, _) | (_, Place::Token) => (Lane::Token, Mode::Full),
        (Place::Generation, _) => (Lane::Generate, Mode::Full),
        (Place::File, _) => (Lane::Local, Mode::Files),
    }
}

/// Runs what a task needs in a worker.
pub fn job(
    task: Task,
    library: &Arc<Library>,
    mode: Mode,
) -> impl FnOnce() -> Event + Send + use<> {
    let library = Arc::clone(library);
    move || task.run(&library, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_away_from_files() {
        for (place, handle_key, expected) in [
            (Place::File, Place::File, (Lane::Local, Mode::Files)),
            (Place::Token, Place::File, (Lane::Token, Mode::Full)),
            (Place::Generation, Place::File, (Lane::Generate, Mode::Full)),
            (Place::File, Place::Token, (Lane::Token, Mode::Full)),
            (Place::Generation, Place::Token, (Lane::Token, Mode::Full)),
            (Place::Library, Place::Library, (Lane::Library, Mode::Full)),
        ] {
            assert_eq!(
                lane(place, handle_key),
                expected,
                "{place:?} {handle_key:?}"
            );
        }
    }
}
