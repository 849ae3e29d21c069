//! Certificates that clients have asked for, from the request to the moment when they are stored.
//!
//! Nothing is locked meanwhile. Whoever asks for the same once more (because it has given up waiting, say) gets what the
//! first one gets; nothing is issued twice.

use std::sync::Arc;

use aziot_core::api::certs::CreateCertificate;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::issue::{self, NamedIssuer, Next, Prepared, Way};
use super::target::Target;
use super::writes::{Change, Write};
use super::{Certd, Event};
use crate::client::KeyHandle;
use crate::lanes::Lane;
use crate::service::{Context, RequestId};

/// The certificates that are being issued.
#[derive(Debug, Default)]
pub struct Orders(Vec<Order>);

/// A certificate that is being issued.
#[derive(Debug)]
struct Order {
    /// The first of the requests, which names it.
    name: RequestId,
    /// All that wait for it.
    requests: Vec<RequestId>,
    /// What all of them ask for.
    sum: [u8; 32],
    /// Where it goes, once that is known to be possible.
    target: Option<Target>,
}

impl Orders {
    fn take(&mut self, name: RequestId) -> Option<Order> {
        let at = self.0.iter().position(|order| order.name == name)?;
        Some(self.0.swap_remove(at))
    }
}

impl Certd {
    /// Has a certificate issued for a client that may have it.
    pub(super) fn order(
        &mut self,
        request: RequestId,
        create: &CreateCertificate<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Result<(), Error> {
        let sum = sum(create);
        if let Some(same) = self.orders.0.iter_mut().find(|order| order.sum == sum) {
            same.requests.push(request);
            return Ok(());
        }
        let id = create.cert_id;
        let issuer = create.issuer.map(|issuer| NamedIssuer {
            id: issuer.cert_id.to_owned(),
            key: KeyHandle::new(issuer.private_key_handle),
        });
        let way = Way::of(&self.settings, &self.tools.store, id, issuer);
        let target = self.tools.store.target(&self.settings.preloaded_certs, id);
        let (tools, csr) = (Arc::clone(&self.tools), create.csr.0.to_owned());
        let held = cx.hold(csr.len());
        let job = move || {
            let prepared = issue::prepare(&tools, &csr, way, target);
            drop((csr, held));
            Event::Prepared(request, prepared)
        };
        cx.run(Lane::Local, job).map_err(|_| Error::busy())?;
        self.orders.0.push(Order {
            name: request,
            requests: vec![request],
            sum,
            target: None,
        });
        Ok(())
    }

    /// A request for a certificate was judged.
    pub(super) fn prepared(
        &mut self,
        name: RequestId,
        result: Result<Prepared, Error>,
        cx: &mut Context<'_, Self>,
    ) {
        let prepared = match result {
            Ok(prepared) => prepared,
            Err(error) => return self.give_up(name, &error, cx),
        };
        let Some(order) = self.orders.0.iter_mut().find(|order| order.name == name) else {
            return;
        };
        if order.requests.iter().all(|id| cx.has_hung_up(*id)) {
            // Nobody wants it any more, and nothing has been done yet. The answer frees their connections.
            let error = Error::internal("everybody who has asked for it has hung up");
            return self.give_up(name, &error, cx);
        }
        let id = prepared.target.id().to_owned();
        order.target = Some(prepared.target);
        let begun = match prepared.next {
            Next::Enrol => self.est.enrol(name, &id, prepared.request, cx),
            Next::Sign(issuance) => {
                let tools = Arc::clone(&self.tools);
                let job = move || Event::Issued {
                    request: name,
                    result: issue::sign(&tools, &prepared.request, &issuance),
                    id,
                };
                cx.run(Lane::Sibling, job).map_err(|_| Error::busy())
            }
        };
        if let Err(error) = begun {
            self.give_up(name, &error, cx);
        }
    }

    /// A certificate was issued, or could not be.
    pub(super) fn issued(
        &mut self,
        name: RequestId,
        result: Result<String, Error>,
        cx: &mut Context<'_, Self>,
    ) {
        let text = match result {
            Ok(text) => text,
            Err(error) => return self.give_up(name, &error, cx),
        };
        // Stored even if nobody waits any more: it may not be had a second time.
        if let Some(order) = self.orders.take(name)
            && let Some(target) = order.target
        {
            let write = Write::new(target, Change::Store(text), order.requests, cx);
            self.write(write, cx);
        }
    }

    fn give_up(&mut self, name: RequestId, error: &Error, cx: &mut Context<'_, Self>) {
        let Some(order) = self.orders.take(name) else {
            return;
        };
        let error = error.clone().in_context("could not create cert");
        Self::refuse_all(&order.requests, &error, cx);
    }
}

/// What a request asks for, in short. Equal sums mean equal requests.
fn sum(create: &CreateCertificate<'_>) -> [u8; 32] {
    let issuer = create.issuer.as_ref();
    let parts = [
        Some(create.cert_id),
        Some(create.csr.0),
        issuer.map(|issuer| issuer.cert_id),
        issuer.map(|issuer| issuer.private_key_handle),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        // The length of nothing is that of no text.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use aziot_core::api::certs::{Issuer, Pem};

    use super::*;

    #[test]
    fn only_equal_requests_have_equal_sums() {
        let issuer = |cert_id, private_key_handle| {
            Some(Issuer {
                cert_id,
                private_key_handle,
            })
        };
        let all = [
            ("a", "b", None),
            ("ab", "", None),
            ("", "ab", None),
            ("a", "b", issuer("", "")),
            ("a", "b", issuer("c", "d")),
            ("a", "b", issuer("cd", "")),
            ("a", "b", issuer("c", "e")),
        ];
        let sums: Vec<_> = all
            .iter()
            .map(|(cert_id, csr, issuer)| {
                sum(&CreateCertificate {
                    cert_id,
                    csr: Pem(csr),
                    issuer: *issuer,
                })
            })
            .collect();
        for (n, one) in sums.iter().enumerate() {
            for (m, other) in sums.iter().enumerate() {
                assert_eq!(n == m, one == other, "{:?} {:?}", all[n], all[m]);
            }
        }
    }
}
