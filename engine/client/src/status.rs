//! How the service stands.

use aziot_core::api::keys::status::{self, KeyStatus, TokenStatus};
use aziot_core::json::{Error, FromJson, Reader};

/// How the Keys Service stands: what [`Client::status`](crate::Client::status) shows.
pub type Status<'a> = status::Status<'a, Items<KeyStatus<'a>>, Items<TokenStatus<'a>>>;

/// A list in a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items<T>(pub Vec<T>);

/// An array. The bound on the response bounds it too.
impl<'a, T: FromJson<'a>> FromJson<'a> for Items<T> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let mut items = Vec::new();
        r.elements(|r| {
            items.push(T::from_json(r)?);
            Ok(())
        })?;
        Ok(Self(items))
    }
}
