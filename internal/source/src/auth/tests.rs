use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

/// The server's side of RFC 5802 and RFC 7677, as far as these tests go.
struct Server {
    password: &'static str,
    mechanisms: &'static [&'static str],
}

const BOTH: &[&str] = &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
const PLAIN: &[&str] = &["SCRAM-SHA-256"];
const SALT: &[u8] = b"sixteen bytes ok";
const ITERATIONS: u32 = 16;

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(data).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn salted(password: &str) -> Vec<u8> {
    let mut last = hmac(password.as_bytes(), &[SALT, &[0, 0, 0, 1]].concat());
    let mut sum = last.clone();
    for _ in 1..ITERATIONS {
        last = hmac(password.as_bytes(), &last);
        sum.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// What the client said, for the tests to look at.
#[derive(Debug, Default)]
struct Heard {
    mechanism: String,
    binding: Vec<u8>,
    proof_is_right: bool,
}

fn request(kind: u32, body: &[u8]) -> Message {
    let mut bytes = BytesMut::from(&b"R"[..]);
    bytes.extend_from_slice(&(body.len() as u32 + 8).to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(body);
    Message::parse(&mut bytes).unwrap().unwrap()
}

fn ok() -> Message {
    request(0, &[])
}

/// The body of the `p` message that the client sends.
fn sent(next: Next) -> Vec<u8> {
    let Next::Send(bytes) = next else { panic!("{next:?}") };
    assert_eq!(bytes[0], b'p');
    assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 1);
    bytes[5..].to_vec()
}

impl Server {
    /// The whole exchange but AuthenticationOk.
    fn exchange(&self, client: &mut Authentication<'_>) -> Result<Heard, StartupError> {
        let mut heard = Heard::default();
        let list: Vec<u8> =
            self.mechanisms.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let first = sent(client.next(request(10, &[&list[..], b"\0"].concat()))?);
        let end = first.iter().position(|&byte| byte == 0).unwrap();
        heard.mechanism = String::from_utf8(first[..end].to_vec()).unwrap();
        let first = String::from_utf8(first[end + 5..].to_vec()).unwrap();
        let bare = first.splitn(3, ',').nth(2).unwrap().to_owned();
        let nonce = format!("{}server", bare.split_once(",r=").unwrap().1);
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64.encode(SALT));

        let last = String::from_utf8(sent(client.next(request(11, server_first.as_bytes()))?)).unwrap();
        let (without_proof, proof) = last.split_once(",p=").unwrap();
        let binding = without_proof.strip_prefix("c=").unwrap().split(',').next().unwrap();
        heard.binding = BASE64.decode(binding).unwrap();
        let signed = format!("{bare},{server_first},{without_proof}");
        let salted = salted(self.password);
        let key = hmac(&salted, b"Client Key");
        let signature = hmac(&Sha256::digest(&key), signed.as_bytes());
        let expected: Vec<u8> = key.iter().zip(&signature).map(|(key, byte)| key ^ byte).collect();
        heard.proof_is_right = BASE64.decode(proof).unwrap() == expected;
        let verifier = BASE64.encode(hmac(&hmac(&salted, b"Server Key"), signed.as_bytes()));
        assert_eq!(client.next(request(12, format!("v={verifier}").as_bytes()))?, Next::Read);
        Ok(heard)
    }
}

fn client(binding: ChannelBinding, hash: Option<&'static [u8]>) -> Authentication<'static> {
    Authentication::new("repl", Some("pencil"), binding, hash)
}

#[test]
fn both_sides_prove_that_they_know_the_password() {
    let mut client = client(ChannelBinding::Prefer, None);
    let heard = Server { password: "pencil", mechanisms: PLAIN }.exchange(&mut client).unwrap();
    assert!(heard.proof_is_right);
    assert_eq!((heard.mechanism.as_str(), heard.binding.as_slice()), ("SCRAM-SHA-256", &b"n,,"[..]));
    assert_eq!(client.next(ok()).unwrap(), Next::Done);
}

#[test]
fn over_tls_the_exchange_is_bound_to_the_servers_certificate() {
    let mut client = client(ChannelBinding::Require, Some(b"the hash"));
    let heard = Server { password: "pencil", mechanisms: BOTH }.exchange(&mut client).unwrap();
    assert!(heard.proof_is_right);
    assert_eq!(heard.mechanism, "SCRAM-SHA-256-PLUS");
    assert_eq!(heard.binding, b"p=tls-server-end-point,,the hash");
}

#[test]
fn a_server_without_binding_is_told_that_we_could_have() {
    let heard = |binding, mechanisms| {
        let mut client = client(binding, Some(b"the hash"));
        Server { password: "pencil", mechanisms }.exchange(&mut client).unwrap().binding
    };
    assert_eq!(heard(ChannelBinding::Prefer, PLAIN), b"y,,");
    assert_eq!(heard(ChannelBinding::Disable, BOTH), b"n,,");
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let mut client = client(ChannelBinding::Prefer, None);
    let error = Server { password: "guess", mechanisms: PLAIN }.exchange(&mut client).unwrap_err();
    assert!(matches!(error, StartupError::Refused(text) if text.contains("SCRAM")));
}

#[test]
fn a_server_cannot_skip_its_proof() {
    let mut client = client(ChannelBinding::Prefer, None);
    client.next(request(10, b"SCRAM-SHA-256\0\0")).unwrap();
    assert!(matches!(client.next(ok()), Err(StartupError::Protocol(_))));
}

#[test]
fn nothing_but_a_bound_exchange_fulfils_channel_binding_require() {
    for message in [ok(), request(3, &[]), request(5, b"salt"), request(10, b"SCRAM-SHA-256\0\0")] {
        let error = client(ChannelBinding::Require, Some(b"the hash")).next(message).unwrap_err();
        assert!(matches!(error, StartupError::Refused(text) if text.contains("channel_binding=require")));
    }
    // Offered, but there is no TLS to bind to.
    let offer = request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    assert!(client(ChannelBinding::Require, None).next(offer).is_err());
}

#[test]
fn md5_and_cleartext_send_what_postgres_expects() {
    assert_eq!(sent(client(ChannelBinding::Prefer, None).next(request(3, &[])).unwrap()), b"pencil\0");
    // md5(md5("pencil" + "repl") + "salt"), as `md5sum` has it.
    let answer = sent(client(ChannelBinding::Prefer, None).next(request(5, b"salt")).unwrap());
    assert_eq!(answer, b"md5d8e3fdf630fca5daecebee314e3e403b\0");
}

#[test]
fn no_password_and_unknown_methods_are_said() {
    let mut without = Authentication::new("repl", None, ChannelBinding::Prefer, None);
    let error = without.next(request(3, &[])).unwrap_err();
    assert!(matches!(error, StartupError::Refused(text) if text.contains("PGPASSWORD")));
    let error = client(ChannelBinding::Prefer, None).next(request(7, &[])).unwrap_err();
    assert!(matches!(error, StartupError::Refused(text) if text.contains("GSSAPI")));
    let error = client(ChannelBinding::Prefer, None).next(request(10, b"OAUTHBEARER\0\0")).unwrap_err();
    assert!(matches!(error, StartupError::Refused(text) if text.contains("OAUTHBEARER")));
}
