//! The little of X.509 that libpq's rules need and the TLS library does not tell: the hash for channel
//! binding, the names with the fallback to the common name, and how long a certificate is valid.
//!
//! The bytes come from the network: every read is checked, and what is not understood is absent.
//!
//! Sources: RFC 5280 (certificates), X.690 (DER), RFC 5929 section 4.1 (`tls-server-end-point`),
//! Postgres' `src/interfaces/libpq/fe-secure-openssl.c` and `fe-secure-common.c` for what is compared.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use std::net::IpAddr;

/// The `tls-server-end-point` data of a DER certificate: its hash under its signature's hash function,
/// SHA-256 in place of MD5 and SHA-1. None when the signature names no hash.
pub(crate) fn end_point_hash(der: &[u8]) -> Option<Vec<u8>> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    certificate.expect(SEQUENCE)?;
    let hash = signature_hash(certificate.expect(SEQUENCE)?)?;
    Some(match hash {
        Hash::Sha224 => Sha224::digest(der).to_vec(),
        Hash::Sha256 => Sha256::digest(der).to_vec(),
        Hash::Sha384 => Sha384::digest(der).to_vec(),
        Hash::Sha512 => Sha512::digest(der).to_vec(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Of an `AlgorithmIdentifier`'s content.
fn signature_hash(algorithm: &[u8]) -> Option<Hash> {
    let mut algorithm = Der(algorithm);
    let oid = algorithm.expect(OBJECT_IDENTIFIER)?;
    // PKCS #1: 1.2.840.113549.1.1.x
    if let Some(&[last]) = oid.strip_prefix(b"\x2a\x86\x48\x86\xf7\x0d\x01\x01") {
        return match last {
            4 | 5 | 11 => Some(Hash::Sha256),
            12 => Some(Hash::Sha384),
            13 => Some(Hash::Sha512),
            14 => Some(Hash::Sha224),
            10 => Some(pss_hash(algorithm)),
            _ => None,
        };
    }
    // ecdsa-with-SHA1 is 1.2.840.10045.4.1, the others 1.2.840.10045.4.3.x
    match oid.strip_prefix(b"\x2a\x86\x48\xce\x3d\x04")? {
        [1] => Some(Hash::Sha256),
        [3, 1] => Some(Hash::Sha224),
        [3, 2] => Some(Hash::Sha256),
        [3, 3] => Some(Hash::Sha384),
        [3, 4] => Some(Hash::Sha512),
        _ => None,
    }
}

/// `RSASSA-PSS-params` name their hash in element 0; SHA-1, and so SHA-256 here, when absent.
fn pss_hash(mut after_oid: Der<'_>) -> Hash {
    let mut named = || {
        let mut parameters = Der(after_oid.expect(SEQUENCE)?);
        let mut algorithm = Der(Der(parameters.expect(0xa0)?).expect(SEQUENCE)?);
        // 2.16.840.1.101.3.4.2.x
        match algorithm.expect(OBJECT_IDENTIFIER)?.strip_prefix(b"\x60\x86\x48\x01\x65\x03\x04\x02")? {
            [2] => Some(Hash::Sha384),
            [3] => Some(Hash::Sha512),
            [4] => Some(Hash::Sha224),
            _ => None,
        }
    };
    named().unwrap_or(Hash::Sha256)
}

/// Who a certificate is for, and when.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// `dNSName`s of the alternative names.
    names: Vec<String>,
    /// `iPAddress`es of the alternative names.
    addresses: Vec<IpAddr>,
    /// The last common name of the subject.
    common_name: Option<String>,
    /// `notBefore` and `notAfter`, as `YYYYMMDDhhmmss`.
    validity: (u64, u64),
}

impl Subject {
    pub(crate) fn of(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).expect(SEQUENCE)?);
        let mut tbs = Der(certificate.expect(SEQUENCE)?);
        tbs.optional(0xa0); // version
        tbs.expect(INTEGER)?; // serial number
        tbs.expect(SEQUENCE)?; // signature algorithm
        tbs.expect(SEQUENCE)?; // issuer
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let validity = (time(validity.next()?)?, time(validity.next()?)?);
        let common_name = common_name(tbs.expect(SEQUENCE)?);
        tbs.expect(SEQUENCE)?; // public key
        tbs.optional(0x81);
        tbs.optional(0x82);
        let mut subject = Self { names: Vec::new(), addresses: Vec::new(), common_name, validity };
        if let Some(extensions) = tbs.optional(0xa3) {
            subject.read_alternative_names(extensions)?;
        }
        Some(subject)
    }

    fn read_alternative_names(&mut self, extensions: &[u8]) -> Option<()> {
        let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
        while let Some((_, extension)) = extensions.next() {
            let mut extension = Der(extension);
            // 2.5.29.17
            if extension.expect(OBJECT_IDENTIFIER)? != b"\x55\x1d\x11" {
                continue;
            }
            extension.optional(BOOLEAN);
            let mut names = Der(Der(extension.expect(OCTET_STRING)?).expect(SEQUENCE)?);
            while let Some((tag, name)) = names.next() {
                match tag {
                    0x82 => self.names.push(std::str::from_utf8(name).ok()?.to_owned()),
                    0x87 => {
                        let v4 = <[u8; 4]>::try_from(name).map(IpAddr::from);
                        let v6 = <[u8; 16]>::try_from(name).map(IpAddr::from);
                        self.addresses.extend(v4.or(v6));
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// libpq's rule: the alternative names decide; the common name does only when none of them is of the
    /// host's sort (for a name: no `dNSName`; for an address: no `iPAddress`).
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let common_name = || self.common_name.as_deref().is_some_and(|name| name_matches(name, host));
        match host.parse::<IpAddr>() {
            Ok(address) if self.addresses.is_empty() && self.names.is_empty() => {
                common_name() || self.common_name.as_ref().and_then(|name| name.parse().ok()) == Some(address)
            }
            Ok(address) => {
                // Addresses written as names, as certificates made for older clients have them.
                self.addresses.contains(&address) || self.names.iter().any(|name| name == host)
            }
            Err(_) if self.names.is_empty() => common_name(),
            Err(_) => self.names.iter().any(|name| name_matches(name, host)),
        }
    }

    /// Whether it is valid at a time, in seconds since 1970.
    pub(crate) fn is_valid_at(&self, unix_seconds: u64) -> bool {
        let now = calendar(unix_seconds);
        (self.validity.0..=self.validity.1).contains(&now)
    }

    /// For messages.
    pub(crate) fn described(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let names: Vec<String> = self.names.iter().cloned().chain(addresses).collect();
        match (&self.common_name, names.is_empty()) {
            (Some(name), true) => name.clone(),
            (None, true) => "nobody".to_owned(),
            (_, false) => names.join(", "),
        }
    }
}

/// A name or a `*.` pattern, whose star stands for one label.
fn name_matches(pattern: &str, host: &str) -> bool {
    let same = |a: &str, b: &str| !a.is_empty() && a.eq_ignore_ascii_case(b);
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        Some(parent) => {
            host.parse::<IpAddr>().is_err()
                && host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && same(rest, parent))
        }
        None => same(pattern, host),
    }
}

fn common_name(name: &[u8]) -> Option<String> {
    let mut sets = Der(name);
    let mut found = None;
    while let Some((_, set)) = sets.next() {
        let mut attribute = Der(Der(set).expect(SEQUENCE)?);
        // 2.5.4.3
        if attribute.expect(OBJECT_IDENTIFIER)? == b"\x55\x04\x03" {
            let (_, value) = attribute.next()?;
            found = std::str::from_utf8(value).ok().filter(|name| !name.contains('\0')).map(str::to_owned);
        }
    }
    found
}

/// `UTCTime` (two digits of the year) or `GeneralizedTime` as `YYYYMMDDhhmmss`.
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let century = if number / 10_000_000_000 < 50 { 20 } else { 19 };
            Some(century * 1_000_000_000_000 + number)
        }
        (GENERALIZED_TIME, 14) => Some(number),
        _ => None,
    }
}

/// Seconds since 1970 as `YYYYMMDDhhmmss`: days to a date by the proleptic Gregorian calendar, with years
/// that begin in March so that the leap day comes last.
fn calendar(unix_seconds: u64) -> u64 {
    let days = unix_seconds / 86_400 + 719_468; // since 0000-03-01
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let time = unix_seconds % 86_400;
    let clock = time / 3_600 * 10_000 + time / 60 % 60 * 100 + time % 60;
    (year * 10_000 + month * 100 + day) * 1_000_000 + clock
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;

/// What is left of a run of DER elements.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // Up to four bytes of length: 4 GiB, far beyond any handshake.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next element's content, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.optional(tag)
    }

    /// The next element's content, when it has this tag; otherwise nothing is read.
    fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        let before = self.0;
        match self.next() {
            Some((found, content)) if found == tag => Some(content),
            _ => {
                self.0 = before;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
