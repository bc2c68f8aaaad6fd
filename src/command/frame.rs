//! The arguments of one complete multibulk request frame.

/// The arguments, in order; stops at the first byte that breaks the protocol.
pub(super) fn arguments(frame: &[u8]) -> Arguments<'_> {
    let mut arguments = Arguments { rest: frame, left: 0 };
    arguments.left = arguments.number(b'*').unwrap_or(0);
    arguments
}

#[derive(Clone)]
pub(super) struct Arguments<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Arguments<'a> {
    pub(super) fn len(&self) -> usize {
        self.left
    }

    fn number(&mut self, marker: u8) -> Option<usize> {
        let (&first, mut rest) = self.rest.split_first()?;
        let mut number = 0usize;
        loop {
            match rest {
                [digit @ b'0'..=b'9', more @ ..] => {
                    number = number.checked_mul(10)?.checked_add(usize::from(digit - b'0'))?;
                    rest = more;
                }
                [b'\r', b'\n', more @ ..] if first == marker => {
                    self.rest = more;
                    return Some(number);
                }
                _ => return None,
            }
        }
    }
}

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let length = self.number(b'$')?;
        let argument = self.rest.get(..length)?;
        self.rest = self.rest.get(length + 2..)?;
        Some(argument)
    }
}
