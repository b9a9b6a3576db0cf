//! Arrays: any number of dimensions, any lower bounds, any elements.
//!
//! Shape: number of dimensions, whether there are NULLs, the elements' type, 32 bits each; for each dimension its
//! length and its lower bound, 32 bits each; the elements in row-major order, each its length in bytes (-1 for
//! NULL, 32 bits) and its own binary form.
//!
//! Sources: `array_send` and `array_out` in `arrayfuncs.c`.

use crate::Malformed;
use crate::read::Reader;
use crate::types::Scalar;

/// The most dimensions that an array has (`MAXDIM`).
pub const DIMENSIONS_MAX: usize = 6;

/// One dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dimension {
    /// How many elements, or arrays of the dimensions behind it.
    pub length: u32,
    /// The first one's subscript; 1 unless somebody chose another.
    pub lower_bound: i32,
}

/// A binary array, read and checked as far as its elements' lengths.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    element_oid: u32,
    dimensions: [Dimension; DIMENSIONS_MAX],
    dimension_count: usize,
    length: usize,
    elements: &'a [u8],
}

impl<'a> Array<'a> {
    /// Reads an array.
    ///
    /// # Errors
    /// The bytes are no array: it has not as many elements as it says, say.
    pub fn read(binary: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(binary);
        let dimension_count = reader.count()?;
        let _has_nulls = reader.u32()?;
        let element_oid = reader.u32()?;
        let mut dimensions = [Dimension::default(); DIMENSIONS_MAX];
        let used = dimensions.get_mut(..dimension_count).ok_or(Malformed("it has too many dimensions"))?;
        let mut length = usize::from(!used.is_empty());
        for dimension in used {
            let size = reader.count()?;
            *dimension = Dimension { length: size as u32, lower_bound: reader.i32()? };
            length = length.checked_mul(size).ok_or(Malformed("it has too many elements"))?;
        }
        let array = Self { element_oid, dimensions, dimension_count, length, elements: reader.0 };
        let mut elements = array.elements();
        while elements.left > 0 {
            elements.try_next()?;
        }
        elements.reader.end()?;
        Ok(array)
    }

    /// The element type's own oid (a domain's for a domain).
    pub fn element_oid(&self) -> u32 {
        self.element_oid
    }

    /// The dimensions, outermost first; none for an empty array.
    pub fn dimensions(&self) -> &[Dimension] {
        self.dimensions.get(..self.dimension_count).unwrap_or_default()
    }

    /// How many elements there are in all.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The elements in row-major order.
    pub fn elements(&self) -> Elements<'a> {
        Elements { reader: Reader(self.elements), left: self.length }
    }
}

/// The elements of an [`Array`] in their binary form, `None` for NULL.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Elements<'a> {
    #[inline]
    fn try_next(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        self.left = self.left.saturating_sub(1);
        match self.reader.i32()? {
            -1 => Ok(None),
            length => {
                let length =
                    usize::try_from(length).map_err(|_| Malformed("an element's length is negative"))?;
                self.reader.bytes(length).map(Some)
            }
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 { None } else { self.try_next().ok() }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Elements<'_> {}

pub(crate) fn write(element: Scalar, binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let array = Array::read(binary)?;
    if array.is_empty() {
        out.extend_from_slice(b"{}");
        return Ok(());
    }
    let dimensions = array.dimensions();
    if dimensions.iter().any(|dimension| dimension.lower_bound != 1) {
        for dimension in dimensions {
            let last = i64::from(dimension.lower_bound) + i64::from(dimension.length) - 1;
            out.push(b'[');
            out.extend_from_slice(itoa::Buffer::new().format(dimension.lower_bound).as_bytes());
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(last).as_bytes());
            out.push(b']');
        }
        out.push(b'=');
    }
    let delimiter = element.delimiter();
    // For each dimension, how many are done of the braces that are open.
    let mut done = [0; DIMENSIONS_MAX];
    out.extend(std::iter::repeat_n(b'{', dimensions.len()));
    for (number, value) in array.elements().enumerate() {
        if number > 0 {
            // As many dimensions as are full here close, and open again.
            let closing = count_full(&mut done, dimensions);
            out.extend(std::iter::repeat_n(b'}', closing));
            out.push(delimiter);
            out.extend(std::iter::repeat_n(b'{', closing));
        }
        match value {
            None => out.extend_from_slice(b"NULL"),
            Some(value) => {
                let begin = out.len();
                element.write_text(value, out)?;
                quote(out, begin, delimiter);
            }
        }
    }
    out.extend(std::iter::repeat_n(b'}', dimensions.len()));
    Ok(())
}

/// Counts one more element as done; returns how many of the dimensions, from the innermost, that fills.
fn count_full(done: &mut [u32; DIMENSIONS_MAX], dimensions: &[Dimension]) -> usize {
    let mut full = 0;
    for (done, dimension) in done.iter_mut().zip(dimensions).rev() {
        *done += 1;
        if *done < dimension.length {
            break;
        }
        *done = 0;
        full += 1;
    }
    full
}

/// Quotes what is in `out` from `begin` on, if an element with that text has to be.
fn quote(out: &mut Vec<u8>, begin: usize, delimiter: u8) {
    let Some(text) = out.get(begin..) else { return };
    let mut escapes = 0;
    let mut quotes = text.is_empty() || text.eq_ignore_ascii_case(b"NULL");
    for &byte in text {
        match byte {
            b'"' | b'\\' => escapes += 1,
            // `array_isspace`.
            b'{' | b'}' | b' ' | b'\t'..=b'\r' => quotes = true,
            byte => quotes |= byte == delimiter,
        }
    }
    if !quotes && escapes == 0 {
        return;
    }
    let end = out.len();
    out.resize(end + escapes + 2, b'"');
    // From the last byte to the first each moves to where it comes to stand.
    let mut target = out.len() - 1;
    for source in (begin..end).rev() {
        let Some(&byte) = out.get(source) else { return };
        for moved in [Some(byte), matches!(byte, b'"' | b'\\').then_some(b'\\')].into_iter().flatten() {
            target = target.saturating_sub(1);
            if let Some(place) = out.get_mut(target) {
                *place = moved;
            }
        }
    }
    if let Some(place) = out.get_mut(begin) {
        *place = b'"';
    }
}

/// `int2vector` and `oidvector`: an array of one dimension, shown as numbers with spaces between.
pub(crate) fn write_vector(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    for (number, element) in Array::read(binary)?.elements().enumerate() {
        if number > 0 {
            out.push(b' ');
        }
        match element {
            Some(element @ [_, _]) => Scalar::Int2.write_text(element, out)?,
            Some(element) => Scalar::Unsigned4.write_text(element, out)?,
            None => return Err(Malformed("it has a NULL")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of texts, with the dimensions (length, lower bound).
    fn binary(dimensions: &[(i32, i32)], elements: &[Option<&str>]) -> Vec<u8> {
        let mut out: Vec<u8> =
            [dimensions.len() as i32, 0, 25].iter().flat_map(|number| number.to_be_bytes()).collect();
        for (length, lower_bound) in dimensions {
            out.extend(length.to_be_bytes());
            out.extend(lower_bound.to_be_bytes());
        }
        for element in elements {
            out.extend(element.map_or(-1, |text| text.len() as i32).to_be_bytes());
            out.extend(element.unwrap_or_default().bytes());
        }
        out
    }

    fn text(dimensions: &[(i32, i32)], elements: &[Option<&str>]) -> String {
        let mut out = b"before".to_vec();
        write(Scalar::Text, &binary(dimensions, elements), &mut out).unwrap();
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn elements_are_quoted_where_they_could_be_mistaken() {
        let elements = ["a", "", "null", "NULLS", "a b", "a,b", "a;b", "{", "\"", "\\x\\", "\t", "é"];
        let elements: Vec<_> = elements.into_iter().map(Some).chain([None]).collect();
        assert_eq!(
            text(&[(13, 1)], &elements),
            r#"{a,"","null",NULLS,"a b","a,b",a;b,"{","\"","\\x\\","#.to_owned() + "\"\t\",é,NULL}"
        );
    }

    #[test]
    fn dimensions_nest_and_bounds_are_shown_where_they_are_not_one() {
        let six: Vec<_> = ["1", "2", "3", "4", "5", "6"].map(Some).to_vec();
        assert_eq!(text(&[(2, 1), (3, 1)], &six), "{{1,2,3},{4,5,6}}");
        assert_eq!(text(&[(2, 1), (1, 1), (3, 1)], &six), "{{{1,2,3}},{{4,5,6}}}");
        assert_eq!(text(&[(2, 1), (3, -1)], &six), "[1:2][-1:1]={{1,2,3},{4,5,6}}");
        assert_eq!(text(&[], &[]), "{}");
        assert_eq!(text(&[(1, i32::MAX)], &[None]), "[2147483647:2147483647]={NULL}");
    }

    #[test]
    fn an_array_tells_its_parts() {
        let bytes = binary(&[(2, 5)], &[Some("x"), None]);
        let array = Array::read(&bytes).unwrap();
        assert_eq!(array.dimensions(), [Dimension { length: 2, lower_bound: 5 }]);
        assert_eq!((array.element_oid(), array.len()), (25, 2));
        assert_eq!(array.elements().collect::<Vec<_>>(), [Some(&b"x"[..]), None]);
    }

    #[test]
    fn what_is_no_array_is_an_error() {
        let whole = binary(&[(2, 1)], &[Some("xy"), None]);
        for end in 0..whole.len() {
            assert!(Array::read(&whole[..end]).is_err(), "{end}");
        }
        assert!(Array::read(&[&whole[..], b"x"].concat()).is_err());
        assert!(Array::read(&binary(&[(i32::MAX, 1); 6], &[])).is_err());
        assert!(Array::read(&binary(&[(1, 1); 7], &[None])).is_err());
        assert!(Array::read(&binary(&[(-1, 1)], &[])).is_err());
    }
}
