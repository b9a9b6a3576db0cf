//! Reading numbers and runs of bytes, checked. All numbers are big-endian (`pqformat.c`).

/// Bytes that are not of the type they are said to be; says what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The bytes of a type whose values have `N` bytes.
///
/// # Errors
/// There are more or fewer.
#[inline]
pub fn exactly<const N: usize>(binary: &[u8]) -> Result<[u8; N], Malformed> {
    <[u8; N]>::try_from(binary)
        .map_err(|_| Malformed("it has not the number of bytes that the type's values have"))
}

/// What is left of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        self.take().map(f64::from_be_bytes)
    }

    /// A number that counts something.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.i32()?).map_err(|_| Malformed("a count is negative"))
    }

    #[inline]
    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// Text up to a zero byte, which is passed over.
    pub(crate) fn c_string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Malformed("a text has no end"))?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }

    /// Nothing may be left.
    #[inline]
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes follow its end")) }
    }
}
