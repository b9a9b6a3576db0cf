//! The certificates in `fixtures` are made by `openssl req -x509`, and what is expected of them by
//! `openssl x509 -fingerprint`.

use super::*;
use proptest::prelude::*;

const RSA_SHA256: &[u8] = include_bytes!("fixtures/rsa_sha256_common_name.der");
const RSA_SHA1: &[u8] = include_bytes!("fixtures/rsa_sha1.der");
const RSA_PSS_SHA512: &[u8] = include_bytes!("fixtures/rsa_pss_sha512.der");
const ECDSA_SHA384: &[u8] = include_bytes!("fixtures/ecdsa_sha384_names.der");
const ED25519: &[u8] = include_bytes!("fixtures/ed25519.der");

fn hash(der: &[u8]) -> String {
    end_point_hash(der).unwrap_or_default().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[test]
fn the_binding_is_the_certificates_hash_by_its_signatures_function() {
    assert_eq!(hash(RSA_SHA256), "BA52C6A6B06C7A41E84A379EB6FFE6A7C8ECE76A2EA83D0F5536F359084A9F49");
    assert_eq!(
        hash(ECDSA_SHA384),
        "12E073C17BC1CC45E577C25D04DC22F3448CBEACD196192873 20D6C0F7002D1D11953A1797ABF348230BC9AFAAACCC83"
            .replace(' ', "")
    );
    assert!(hash(RSA_PSS_SHA512).starts_with("86DCADCC69FA") && hash(RSA_PSS_SHA512).len() == 128);
}

#[test]
fn sha256_stands_in_for_functions_that_are_broken() {
    assert_eq!(hash(RSA_SHA1), "C0DF47DF161171D0D2106E60DBEBD7B317FF12EDC7D48D184FC6E8F54A746BB4");
}

#[test]
fn a_signature_without_a_hash_gives_no_binding() {
    assert_eq!(end_point_hash(ED25519), None);
}

#[test]
fn alternative_names_decide_where_there_are_any() {
    let subject = Subject::of(ECDSA_SHA384).unwrap();
    for host in ["db.example", "DB.Example", "a.pool.example", "10.0.0.7", "::1"] {
        assert!(subject.is_for(host), "{host}");
    }
    for host in
        ["ignored.example", "pool.example", "a.b.pool.example", ".pool.example", "10.0.0.8", "example", ""]
    {
        assert!(!subject.is_for(host), "{host}");
    }
    assert_eq!(subject.described(), "db.example, *.pool.example, 10.0.0.7, ::1");
}

#[test]
fn the_common_name_decides_where_there_are_none() {
    let subject = Subject::of(RSA_SHA256).unwrap();
    assert!(subject.is_for("db.example"));
    assert!(!subject.is_for("other.example"));
    assert!(!subject.is_for("10.0.0.7"));
    assert_eq!(subject.described(), "db.example");
}

#[test]
fn a_star_never_stands_for_part_of_an_address() {
    assert!(name_matches("*.0.0.1", "a.0.0.1"));
    assert!(!name_matches("*.0.0.1", "127.0.0.1"));
    assert!(!name_matches("*", "localhost"));
}

#[test]
fn validity_is_told_by_the_certificates_own_dates() {
    let subject = Subject::of(ECDSA_SHA384).unwrap();
    assert_eq!(subject.validity, (20_261_121_050_500, 21_261_028_050_500));
    assert!(!subject.is_valid_at(1_795_237_499));
    assert!(subject.is_valid_at(1_795_237_500));
    assert!(!subject.is_valid_at(4_949_000_000));
}

#[test]
fn seconds_become_calendar_dates() {
    assert_eq!(calendar(0), 19_700_101_000_000);
    assert_eq!(calendar(951_827_696), 20_000_229_123_456);
    assert_eq!(calendar(4_107_542_399), 21_000_228_235_959);
    assert_eq!(calendar(4_107_542_400), 21_000_301_000_000);
}

#[test]
fn every_cut_of_a_certificate_is_no_certificate() {
    for end in 0..ECDSA_SHA384.len() {
        assert_eq!(Subject::of(&ECDSA_SHA384[..end]), None, "{end}");
        assert_eq!(end_point_hash(&ECDSA_SHA384[..end]), None, "{end}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0_usize..465, byte: u8) {
        let _ = (Subject::of(&bytes), end_point_hash(&bytes));
        let mut changed = ECDSA_SHA384.to_vec();
        changed[at] = byte;
        let _ = (Subject::of(&changed), end_point_hash(&changed));
    }
}
