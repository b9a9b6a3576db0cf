use super::column::{Column, Problem};
use crate::parse::{Elements, Misfit};
use pgvalue::Malformed;
use pgvalue::array::Array;

/// The rows of an `Array` column: where each ends among the elements, and the elements as a column.
#[derive(Debug)]
pub(super) struct ArrayColumn {
    ends: Vec<u8>,
    elements: Box<Column>,
    delimiter: u8,
    scratch: Vec<u8>,
}

impl ArrayColumn {
    pub(super) fn new(elements: Column, delimiter: u8) -> Self {
        Self { ends: Vec::new(), elements: Box::new(elements), delimiter, scratch: Vec::new() }
    }

    pub(super) fn adjusted(&self) -> u64 {
        self.elements.adjusted()
    }

    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.elements.clear();
    }

    pub(super) fn push_empty(&mut self) {
        self.end_row();
    }

    pub(super) fn push_text(&mut self, text: &[u8]) -> Result<(), Misfit> {
        let mut elements = Elements::of(text, self.delimiter)?;
        while let Some(element) = elements.next(&mut self.scratch)? {
            let pushed = match element {
                Some(text) => self.elements.push_text(text),
                None => self.elements.push_null(),
            };
            pushed.map_err(misfit_of)?;
        }
        self.end_row();
        Ok(())
    }

    /// Adds an array from its binary form.
    pub(super) fn push_binary(&mut self, binary: &[u8]) -> Result<Result<(), Misfit>, Malformed> {
        let array = Array::read(binary)?;
        // As in text, where an empty array is `{}` whatever its dimensions.
        if !array.is_empty() {
            match array.dimensions() {
                [only] if only.lower_bound == 1 => {}
                _ => return Ok(Err(Misfit::Shape)),
            }
        }
        for element in array.elements() {
            let pushed = match element {
                Some(binary) => self.elements.push_binary(binary),
                None => self.elements.push_null(),
            };
            match pushed {
                Ok(()) => {}
                Err(Problem::Binary) => return Err(Malformed("an element is not of its type")),
                Err(problem) => return Ok(Err(misfit_of(problem))),
            }
        }
        self.end_row();
        Ok(Ok(()))
    }

    fn end_row(&mut self) {
        self.ends.extend_from_slice(&(self.elements.rows() as u64).to_le_bytes());
    }

    pub(super) fn write_data(&self, out: &mut dyn FnMut(&[u8])) {
        out(&self.ends);
        self.elements.write_data(out);
    }
}

/// What an element's problem is for the array.
fn misfit_of(problem: Problem) -> Misfit {
    match problem {
        Problem::Misfit(misfit) => misfit,
        Problem::Null | Problem::Binary | Problem::Unchanged => Misfit::Shape,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Rules;
    use crate::types::Type;
    use replicator_config::OutOfRange;
    use replicator_types::Value;

    fn column(rules: Rules) -> Column {
        Column::new("c", &Type::parse("Array(Nullable(Int16))"), pgvalue::Type::TextOnly, false, rules)
            .unwrap()
    }

    const RULES: Rules = Rules { out_of_range: OutOfRange::Clamp, null_is_empty_array: true, kept: false };

    #[test]
    fn an_array_is_where_it_ends_and_its_elements() {
        let mut column = column(RULES);
        for text in ["{1,NULL}", "{}", "{-1}"] {
            column.push(Value::Text(text.as_bytes())).unwrap();
        }
        column.push(Value::Null).unwrap();
        column.push_default();
        let mut bytes = Vec::new();
        column.write_data(&mut |piece| bytes.extend_from_slice(piece));
        let ends: Vec<u8> = [2_u64, 2, 3, 3, 3].iter().flat_map(|end| end.to_le_bytes()).collect();
        assert_eq!(bytes, [&ends[..], &[0, 1, 0], &[1, 0, 0, 0, 0xff, 0xff]].concat());
        assert_eq!(column.adjusted(), 1, "the NULL that became an empty array is counted");
    }

    #[test]
    fn an_array_of_another_shape_is_an_error_under_any_rule() {
        for (text, misfit) in
            [("{{1}}", Misfit::Shape), ("[0:0]={1}", Misfit::Shape), ("{70000}", Misfit::Above)]
        {
            assert_eq!(
                column(RULES).push(Value::Text(text.as_bytes())),
                Err(Problem::Misfit(misfit)),
                "{text}"
            );
        }
    }
}
