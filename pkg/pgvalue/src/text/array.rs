use super::Misfit;

/// Walks the elements of a one-dimensional array's text form, `{1,NULL,"a \"b\""}`.
///
/// Not an `Iterator`: an element may lie in the scratch buffer, which the next call overwrites.
///
/// Source: <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>; the delimiter is a comma for
/// every built-in type but `box`.
pub struct Elements<'a> {
    rest: &'a [u8],
    delimiter: u8,
    first: bool,
    done: bool,
}

/// An element: `None` for NULL.
type Element<'e> = Option<&'e [u8]>;

impl<'a> Elements<'a> {
    /// Begins to walk `text`. An array with explicit bounds (`[0:1]={…}`) has no counterpart.
    pub fn of(text: &'a [u8], delimiter: u8) -> Result<Self, Misfit> {
        match text.split_first() {
            Some((b'{', rest)) => Ok(Self { rest, delimiter, first: true, done: false }),
            Some((b'[', _)) => Err(Misfit::Shape),
            _ => Err(Misfit::Malformed),
        }
    }

    /// The next element; `None` at the end. Text with escapes is put together in `scratch`.
    pub fn next<'e>(&mut self, scratch: &'e mut Vec<u8>) -> Result<Option<Element<'e>>, Misfit>
    where
        'a: 'e,
    {
        if self.done {
            return Ok(None);
        }
        if self.first {
            self.first = false;
            if self.rest == b"}" {
                self.done = true;
                return Ok(None);
            }
        }
        match self.rest.first() {
            Some(b'{') => Err(Misfit::Shape),
            Some(b'"') => {
                let element = self.quoted(scratch)?;
                self.after_element()?;
                Ok(Some(Some(element)))
            }
            Some(_) => {
                let delimiter = self.delimiter;
                let end = self
                    .rest
                    .iter()
                    .position(|&byte| byte == delimiter || matches!(byte, b'}' | b'{' | b'"' | b'\\'))
                    .ok_or(Misfit::Malformed)?;
                let (element, rest) = self.rest.split_at_checked(end).ok_or(Misfit::Malformed)?;
                self.rest = rest;
                self.after_element()?;
                if element.is_empty() {
                    return Err(Misfit::Malformed);
                }
                // Text that reads NULL is always quoted by the server.
                Ok(Some((!element.eq_ignore_ascii_case(b"NULL")).then_some(element)))
            }
            None => Err(Misfit::Malformed),
        }
    }

    fn quoted<'e>(&mut self, scratch: &'e mut Vec<u8>) -> Result<&'e [u8], Misfit>
    where
        'a: 'e,
    {
        let text = self.rest.strip_prefix(b"\"").ok_or(Misfit::Malformed)?;
        let special = text.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Misfit::Malformed)?;
        let (plain, rest) = text.split_at_checked(special).ok_or(Misfit::Malformed)?;
        if let Some(rest) = rest.strip_prefix(b"\"") {
            self.rest = rest;
            return Ok(plain);
        }
        scratch.clear();
        scratch.extend_from_slice(plain);
        let mut rest = rest;
        loop {
            match rest {
                [b'"', after @ ..] => {
                    self.rest = after;
                    return Ok(scratch);
                }
                [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                    scratch.push(*byte);
                    rest = after;
                }
                [] => return Err(Misfit::Malformed),
            }
        }
    }

    /// Steps over the comma, or over the closing brace, behind which nothing may come.
    fn after_element(&mut self) -> Result<(), Misfit> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte == self.delimiter => self.rest = rest,
            Some((b'}', [])) => self.done = true,
            _ => return Err(Misfit::Malformed),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn elements(text: &[u8]) -> Result<Vec<Option<Vec<u8>>>, Misfit> {
        let mut elements = Elements::of(text, b',')?;
        let mut scratch = Vec::new();
        let mut out = Vec::new();
        while let Some(element) = elements.next(&mut scratch)? {
            out.push(element.map(<[u8]>::to_vec));
        }
        assert_eq!(elements.next(&mut scratch), Ok(None), "the end stays the end");
        Ok(out)
    }

    fn some(text: &str) -> Option<Vec<u8>> {
        Some(text.as_bytes().to_vec())
    }

    #[test]
    fn elements_are_told_apart_whatever_they_contain() {
        assert_eq!(elements(b"{}"), Ok(vec![]));
        assert_eq!(elements(b"{1,NULL,-3}"), Ok(vec![some("1"), None, some("-3")]));
        assert_eq!(
            elements(br#"{"a,b","NULL","","c\"d\\e",nUlL,"{x}"}"#),
            Ok(vec![some("a,b"), some("NULL"), some(""), some("c\"d\\e"), None, some("{x}")])
        );
    }

    #[test]
    fn other_shapes_are_named_and_broken_texts_are_malformed() {
        for text in ["{{1,2},{3,4}}", "[0:1]={1,2}", "[1:1][1:1]={{1}}", "{1,{2}}"] {
            assert_eq!(elements(text.as_bytes()), Err(Misfit::Shape), "{text}");
        }
        for text in
            ["", "1", "{", "{1", "{1,", "{1,}", "{,1}", "{1}x", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{\"a\\"]
        {
            assert_eq!(elements(text.as_bytes()), Err(Misfit::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_list_comes_back(list: Vec<Option<String>>) {
            let written: Vec<String> = list.iter().map(|element| match element {
                None => "NULL".to_owned(),
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            }).collect();
            let expected: Vec<_> = list.iter().map(|element| element.as_ref().map(|t| t.as_bytes().to_vec())).collect();
            prop_assert_eq!(elements(format!("{{{}}}", written.join(",")).as_bytes()), Ok(expected));
        }

        #[test]
        fn no_bytes_make_it_panic(text in "[{}\",\\\\aN1]{0,16}") {
            let _ = elements(text.as_bytes());
        }
    }
}
