//! Bookmarks: positions as text that sorts as they do.

use replicator_types::{Lsn, Position};

/// Characters of a bookmark: two numbers of 16 hexadecimal digits, and a hyphen between them.
pub const CHARS: usize = 33;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The text of `position`: `000000000016b374-0000000000000007`.
pub fn write(position: Position, out: &mut [u8; CHARS]) {
    let (lsn, rest) = out.split_at_mut(16);
    hex(position.commit_lsn.0, lsn);
    if let Some((hyphen, ordinal)) = rest.split_first_mut() {
        *hyphen = b'-';
        hex(position.ordinal, ordinal);
    }
}

/// As [`write()`], for where a text of its own is needed.
pub fn text(position: Position) -> String {
    format!("{:016x}-{:016x}", position.commit_lsn.0, position.ordinal)
}

/// The position that a bookmark tells; `None` when the text is none.
pub fn parse(text: &str) -> Option<Position> {
    let (lsn, ordinal) = text.split_once('-')?;
    let number = |digits: &str| {
        let is_whole = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_whole { u64::from_str_radix(digits, 16).ok() } else { None }
    };
    Some(Position { commit_lsn: Lsn(number(lsn)?), ordinal: number(ordinal)? })
}

/// Whether a position is one of the stream's, rather than of a copied row or of the truncate before such: commit
/// records begin at multiples of 8.
pub fn is_of_stream(position: Position) -> bool {
    position.commit_lsn.0.is_multiple_of(8)
}

fn hex(number: u64, out: &mut [u8]) {
    for (place, byte) in out.iter_mut().rev().enumerate() {
        *byte = DIGITS[(number >> (place * 4)) as usize & 15];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bookmark_gives_back_its_position_and_sorts_as_it(a: (u64, u64), b: (u64, u64)) {
            let of = |(lsn, ordinal)| Position { commit_lsn: Lsn(lsn), ordinal };
            prop_assert_eq!(parse(&text(of(a))), Some(of(a)));
            prop_assert_eq!(text(of(a)).cmp(&text(of(b))), of(a).cmp(&of(b)));
            let mut written = [0; CHARS];
            write(of(a), &mut written);
            prop_assert_eq!(std::str::from_utf8(&written).unwrap(), text(of(a)));
        }

        #[test]
        fn any_text_is_a_bookmark_or_not(text: String) {
            let _ = parse(&text);
        }
    }

    #[test]
    fn copied_rows_are_not_of_the_stream() {
        assert!(is_of_stream(Position { commit_lsn: Lsn(0x100), ordinal: 3 }));
        assert!(!is_of_stream(Position::copied(Lsn(0x100), 3)));
    }
}
