use super::Misfit;

/// Value of each hexadecimal digit, 0xff for other bytes.
const HEX: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// Two hexadecimal digits as a byte; `None` when one of them is none.
#[inline]
fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (HEX[usize::from(high)], HEX[usize::from(low)]);
    (high | low < 16).then_some(high << 4 | low)
}

/// Appends a `bytea`'s bytes, in either of its text forms (`bytea_output` = `hex` or `escape`). After an
/// error `out` has a part of them.
///
/// # Errors
/// It is in neither form.
///
/// Source: <https://www.postgresql.org/docs/current/datatype-binary.html>.
pub fn push_bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
    if let Some(hex) = text.strip_prefix(b"\\x") {
        let (pairs, rest) = hex.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Misfit::Malformed);
        }
        out.reserve(pairs.len());
        for &[high, low] in pairs {
            out.push(hex_pair(high, low).ok_or(Misfit::Malformed)?);
        }
        return Ok(());
    }
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = after;
        } else {
            let (octal, after) = rest.split_first_chunk::<3>().ok_or(Misfit::Malformed)?;
            let value = octal.iter().try_fold(0_u16, |value, digit| {
                (b'0'..=b'7').contains(digit).then(|| value * 8 + u16::from(digit - b'0'))
            });
            out.push(value.and_then(|value| u8::try_from(value).ok()).ok_or(Misfit::Malformed)?);
            rest = after;
        }
    }
    Ok(())
}

/// A `uuid`'s bytes, in the order of its text (RFC 9562).
///
/// # Errors
/// It is not 32 hexadecimal digits in the usual groups.
#[inline]
pub fn uuid(text: &[u8]) -> Result<[u8; 16], Misfit> {
    let text: &[u8; 36] = text.try_into().map_err(|_| Misfit::Malformed)?;
    let mut value = 0_u128;
    let mut digits = 0;
    for (index, &byte) in text.iter().enumerate() {
        if matches!(index, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return Err(Misfit::Malformed);
            }
            continue;
        }
        let digit = HEX[usize::from(byte)];
        if digit > 15 {
            return Err(Misfit::Malformed);
        }
        value = value << 4 | u128::from(digit);
        digits += 1;
    }
    debug_assert_eq!(digits, 32);
    Ok(value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytea(text: &[u8]) -> Result<Vec<u8>, Misfit> {
        let mut out = Vec::new();
        push_bytea(text, &mut out).map(|()| out)
    }

    #[test]
    fn both_forms_of_bytea_are_read() {
        assert_eq!(bytea(b"\\x"), Ok(vec![]));
        assert_eq!(bytea(b"\\x00fFAb"), Ok(vec![0, 0xff, 0xab]));
        assert_eq!(bytea(b""), Ok(vec![]));
        assert_eq!(bytea(b"a\\\\b\\000\\377"), Ok(b"a\\b\0\xff".to_vec()));
        for text in [&b"\\x0"[..], b"\\xzz", b"\\9", b"\\400", b"\\12", b"\\x0g"] {
            assert_eq!(bytea(text), Err(Misfit::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_uuid_is_its_digits() {
        assert_eq!(
            uuid(b"00112233-4455-6677-8899-aabbccddeeff"),
            Ok([0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff])
        );
        for text in ["", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg"] {
            assert_eq!(uuid(text.as_bytes()), Err(Misfit::Malformed), "{text}");
        }
        assert_eq!(uuid(b"0011223-34455-6677-8899-aabbccddeeff"), Err(Misfit::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_from_both_forms(bytes: Vec<u8>) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(bytea(format!("\\x{hex}").as_bytes()), Ok(bytes.clone()));
            let escape: String = bytes.iter().map(|&byte| match byte {
                b'\\' => "\\\\".to_owned(),
                0x20..0x7f => char::from(byte).to_string(),
                byte => format!("\\{byte:03o}"),
            }).collect();
            prop_assert_eq!(bytea(escape.as_bytes()), Ok(bytes));
        }

        #[test]
        fn no_bytes_make_it_panic(text: Vec<u8>) {
            let _ = bytea(&text);
            let _ = uuid(&text);
        }
    }
}
