//! Moves shares of the hash slots between two backends that both serve.

use std::rc::Rc;
use std::time::Duration;

use super::shared::Shared;
use crate::policy::BackendId;

impl Shared {
    /// Lets `to` serve this share of the hash slots, and `from`, the active, the rest; 0 is everything back. Says for how
    /// long requests were held. Nothing has changed when it fails.
    pub(super) async fn move_share(
        self: &Rc<Self>,
        from: BackendId,
        to: BackendId,
        percent: u8,
    ) -> Result<Duration, String> {
        let (from, to) = (&self.rules(from).name, &self.rules(to).name);
        Err(format!("{percent} % of {from} cannot be moved to {to} by this build"))
    }

    /// Everything back to the active at once, also from a backend that does not answer.
    pub(super) async fn withdraw_share(self: &Rc<Self>) -> Result<Duration, String> {
        Ok(Duration::ZERO)
    }
}
