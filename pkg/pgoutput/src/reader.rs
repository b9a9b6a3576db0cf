use crate::DecodeError;

/// Takes values off the front of untrusted bytes. Every method says which part it wanted when the bytes end.
pub(crate) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    pub(crate) fn message(&self) -> &'static str {
        self.message
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn truncated(&self, part: &'static str) -> DecodeError {
        DecodeError::Truncated { message: self.message, part }
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.truncated(part))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, part: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(part).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, part: &'static str) -> Result<u16, DecodeError> {
        self.array(part).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, part: &'static str) -> Result<u32, DecodeError> {
        self.array(part).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, part: &'static str) -> Result<i32, DecodeError> {
        self.array(part).map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, part: &'static str) -> Result<u64, DecodeError> {
        self.array(part).map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, part: &'static str) -> Result<i64, DecodeError> {
        self.array(part).map(i64::from_be_bytes)
    }

    pub(crate) fn lsn(&mut self, part: &'static str) -> Result<replicator_types::Lsn, DecodeError> {
        self.u64(part).map(replicator_types::Lsn)
    }

    /// A zero-terminated UTF-8 string.
    pub(crate) fn text(&mut self, part: &'static str) -> Result<&'a str, DecodeError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or_else(|| self.truncated(part))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8 { message: self.message, part })
    }

    pub(crate) fn bytes(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.truncated(part))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn tuple(&mut self, part: &'static str) -> Result<replicator_types::Tuple<'a>, DecodeError> {
        let (tuple, rest) = replicator_types::Tuple::split_from(self.rest)
            .map_err(|error| DecodeError::Tuple { message: self.message, part, error })?;
        self.rest = rest;
        Ok(tuple)
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { message: self.message, bytes }),
        }
    }
}
