//! Geometric types: runs of `float8`, with a count where the number of points is open.
//!
//! Sources: `point_send`, `path_encode` and their kin in `geo_ops.c`.

use crate::Malformed;
use crate::float;
use crate::read::Reader;
use crate::types::Scalar;

/// Appends the text of a value of one of the geometric types; any other type is an error.
pub(crate) fn write(kind: Scalar, mut reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match kind {
        Scalar::Point => push_point(&mut reader, out)?,
        Scalar::Box => push_points(&mut reader, 2, out)?,
        Scalar::Segment => {
            out.push(b'[');
            push_points(&mut reader, 2, out)?;
            out.push(b']');
        }
        Scalar::Path => {
            let closed = reader.u8()? != 0;
            let points = reader.count()?;
            out.push(if closed { b'(' } else { b'[' });
            push_points(&mut reader, points, out)?;
            out.push(if closed { b')' } else { b']' });
        }
        Scalar::Polygon => {
            let points = reader.count()?;
            out.push(b'(');
            push_points(&mut reader, points, out)?;
            out.push(b')');
        }
        Scalar::Circle => {
            out.push(b'<');
            push_point(&mut reader, out)?;
            out.push(b',');
            float::write_f64(reader.f64()?, out);
            out.push(b'>');
        }
        Scalar::Line => {
            for before in *b"{,," {
                out.push(before);
                float::write_f64(reader.f64()?, out);
            }
            out.push(b'}');
        }
        _ => return Err(Malformed("its binary form is not understood")),
    }
    reader.end()
}

fn push_points(reader: &mut Reader<'_>, count: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    for number in 0..count {
        if number > 0 {
            out.push(b',');
        }
        push_point(reader, out)?;
    }
    Ok(())
}

fn push_point(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.push(b'(');
    float::write_f64(reader.f64()?, out);
    out.push(b',');
    float::write_f64(reader.f64()?, out);
    out.push(b')');
    Ok(())
}
