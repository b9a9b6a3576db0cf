//! Addresses: `inet`, `cidr`, `macaddr`, `macaddr8`.
//!
//! Shape of the first two: family (2 for IPv4, 3 for IPv6), bits of the mask, whether it is a `cidr`, number of the
//! address' bytes (4 or 16), the bytes. Of the others: 6 or 8 bytes.
//!
//! Sources: `network_send` and `network_out` in `network.c`, `pg_inet_net_ntop` in `src/port/inet_net_ntop.c`,
//! `macaddr_out` in `mac.c`.

use crate::Malformed;
use crate::bytes::hex;
use crate::read::Reader;

const FAMILY_IPV4: u8 = 2;
const FAMILY_IPV6: u8 = 3;

pub(crate) fn write_inet(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut reader = Reader(binary);
    let [family, mask_bits, is_cidr, length] = reader.take()?;
    let address_bits = match (family, length) {
        (FAMILY_IPV4, 4) => {
            write_ipv4(reader.take()?, out);
            32
        }
        (FAMILY_IPV6, 16) => {
            write_ipv6(reader.take()?, out);
            128
        }
        _ => return Err(Malformed("it is neither IPv4 nor IPv6")),
    };
    reader.end()?;
    if mask_bits > address_bits {
        return Err(Malformed("its mask is longer than the address"));
    }
    if is_cidr != 0 || mask_bits < address_bits {
        out.push(b'/');
        push_number(mask_bits, out);
    }
    Ok(())
}

fn write_ipv4(address: [u8; 4], out: &mut Vec<u8>) {
    for (place, byte) in address.into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        push_number(byte, out);
    }
}

fn push_number(number: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// As RFC 5952 has it: the first longest run of at least two zero groups becomes `::`; an address that embeds an
/// IPv4 one (RFC 4291, section 2.5.5) ends in that.
fn write_ipv6(address: [u8; 16], out: &mut Vec<u8>) {
    let (pairs, _) = address.as_chunks::<2>();
    let mut zeros = 0..0;
    let mut run = 0..0;
    for (place, pair) in pairs.iter().enumerate() {
        if *pair != [0, 0] {
            continue;
        }
        if run.end != place {
            run.start = place;
        }
        run.end = place + 1;
        if run.len() > zeros.len() {
            zeros = run.clone();
        }
    }
    if zeros.len() < 2 {
        zeros = 0..0;
    }
    let [.., e, f, g, h, i, j] = address;
    let embeds_ipv4 = zeros == (0..6) || zeros == (0..5) && [e, f] == [0xff, 0xff];
    for (place, pair) in pairs.iter().enumerate() {
        if zeros.contains(&place) {
            if place == zeros.start {
                out.push(b':');
            }
            continue;
        }
        if place > 0 {
            out.push(b':');
        }
        if place == 6 && embeds_ipv4 {
            return write_ipv4([g, h, i, j], out);
        }
        let [[a, b], [c, d]] = pair.map(hex);
        let digits = [a, b, c, d];
        let zeros_in_front = digits.iter().take(3).take_while(|&&digit| digit == b'0').count();
        out.extend(digits.into_iter().skip(zeros_in_front));
    }
    if !zeros.is_empty() && zeros.end == pairs.len() {
        out.push(b':');
    }
}

pub(crate) fn write_macaddr(binary: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if !matches!(binary.len(), 6 | 8) {
        return Err(Malformed("it has neither 6 nor 8 bytes"));
    }
    for (place, &byte) in binary.iter().enumerate() {
        if place > 0 {
            out.push(b':');
        }
        out.extend_from_slice(&hex(byte));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(address: &str, mask_bits: u8, is_cidr: bool) -> String {
        let address: std::net::IpAddr = address.parse().unwrap();
        let (family, bytes) = match address {
            std::net::IpAddr::V4(v4) => (2, v4.octets().to_vec()),
            std::net::IpAddr::V6(v6) => (3, v6.octets().to_vec()),
        };
        let mut binary = vec![family, mask_bits, is_cidr.into(), bytes.len() as u8];
        binary.extend(bytes);
        let mut out = Vec::new();
        write_inet(&binary, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_ipv6_address_is_as_short_as_it_can_be() {
        for (given, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("::1:0", "::0.1.0.0"),
            ("1::", "1::"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("::1.2.3.4", "::1.2.3.4"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("1:0:2:0:3:0:4:0", "1:0:2:0:3:0:4:0"),
            ("fe80::abc:10:100:1000", "fe80::abc:10:100:1000"),
        ] {
            assert_eq!(inet(given, 128, false), expected);
        }
    }

    #[test]
    fn a_mask_is_shown_where_it_is_not_whole_and_always_of_a_cidr() {
        assert_eq!(inet("10.0.0.255", 32, false), "10.0.0.255");
        assert_eq!(inet("10.0.0.1", 24, false), "10.0.0.1/24");
        assert_eq!(inet("10.0.0.1", 32, true), "10.0.0.1/32");
        assert_eq!(inet("1::2", 0, false), "1::2/0");
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for wrong in [
            &[][..],
            &[2, 33, 0, 4, 1, 2, 3, 4],
            &[2, 32, 0, 4, 1, 2, 3],
            &[3, 0, 0, 4, 1, 2, 3, 4],
            &[2, 0, 0, 4, 1, 2, 3, 4, 5],
        ] {
            assert!(write_inet(wrong, &mut Vec::new()).is_err());
        }
    }
}
