//! One page of SCAN, as whoever walks through a server takes it.

use crate::backend::Reply;

/// Where the next page begins, and the keys of this one that are not Standin's own.
pub(super) struct Page<'a> {
    pub(super) next: &'a [u8],
    pub(super) keys: Vec<&'a [u8]>,
}

impl<'a> Page<'a> {
    /// From the reply to SCAN; keys that begin with `own_prefix` are left out.
    ///
    /// # Errors
    /// The server's refusal, or that it answered with something else.
    pub(super) fn read(reply: &'a Reply, own_prefix: &str) -> Result<Self, String> {
        let Some([Reply::Bulk(next), keys]) = reply.elements() else {
            return Err(reply.error().unwrap_or("SCAN was answered by something else").to_owned());
        };
        let keys = keys.elements().unwrap_or_default().iter().filter_map(|key| match key {
            Reply::Bulk(key) if !key.starts_with(own_prefix.as_bytes()) => Some(&**key),
            _ => None,
        });
        Ok(Self { next, keys: keys.collect() })
    }

    /// Whether there is no further page.
    pub(super) fn is_last(&self) -> bool {
        self.next == b"0"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec().into())
    }

    #[test]
    fn a_page_holds_the_keys_of_applications_and_a_refusal_is_told() {
        let reply = Reply::Array(vec![bulk("17"), Reply::Array(vec![bulk("a"), bulk("standin:g:x"), bulk("b")])]);
        let page = Page::read(&reply, "standin:").unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((page.next, page.keys.as_slice(), page.is_last()), (&b"17"[..], &[&b"a"[..], b"b"][..], false));
        let refusal = Reply::Error("NOPERM no".into());
        assert!(Page::read(&refusal, "standin:").is_err_and(|why| why == "NOPERM no"));
        assert!(Page::read(&Reply::Null, "standin:").is_err());
    }
}
