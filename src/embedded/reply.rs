//! The reply of one command, in the protocol of its client.

use crate::resp::{Protocol, write};

pub(super) struct Reply<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) protocol: Protocol,
}

impl Reply<'_> {
    pub(super) fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    pub(super) fn simple(&mut self, text: &str) {
        write::simple(self.out, text);
    }

    pub(super) fn error(&mut self, text: &str) {
        write::error(self.out, text);
    }

    pub(super) fn integer(&mut self, value: i64) {
        write::integer(self.out, value);
    }

    pub(super) fn count(&mut self, value: usize) {
        write::integer(self.out, value as i64);
    }

    pub(super) fn flag(&mut self, value: bool) {
        write::integer(self.out, i64::from(value));
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        write::bulk(self.out, bytes);
    }

    pub(super) fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    pub(super) fn null(&mut self) {
        write::null(self.out, self.protocol);
    }

    pub(super) fn null_array(&mut self) {
        write::null_array(self.out, self.protocol);
    }

    pub(super) fn array(&mut self, length: usize) {
        write::array_len(self.out, length);
    }

    pub(super) fn map(&mut self, pairs: usize) {
        write::map_len(self.out, pairs, self.protocol);
    }

    pub(super) fn set(&mut self, length: usize) {
        write::set_len(self.out, length, self.protocol);
    }

    pub(super) fn push(&mut self, length: usize) {
        write::push_len(self.out, length, self.protocol);
    }

    pub(super) fn double(&mut self, value: f64) {
        write::double(self.out, value, self.protocol);
    }

    pub(super) fn verbatim(&mut self, text: &str) {
        write::verbatim(self.out, "txt", text, self.protocol);
    }

    pub(super) fn bulks<'b>(&mut self, items: impl ExactSizeIterator<Item = &'b [u8]>) {
        self.array(items.len());
        for item in items {
            self.bulk(item);
        }
    }

    pub(super) fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }
}
