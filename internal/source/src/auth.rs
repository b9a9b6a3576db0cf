//! Who we are: the authentication exchange as a state machine without a socket.
//!
//! ```text
//!   start ──AuthenticationOk──────────────────────────────────────────────▶ done
//!     ├────CleartextPassword / MD5Password──▶ password sent ──Ok──────────▶ done
//!     └────SASL──▶ first message ──Continue──▶ proof ──Final (checked)──▶ proven ──Ok──▶ done
//! ```
//!
//! # Invariants
//! - A SCRAM exchange ends well only when the server has proven that it knows the password too.
//! - `channel_binding=require` is fulfilled by SCRAM-SHA-256-PLUS and by nothing else.
//!
//! Source: <https://www.postgresql.org/docs/current/sasl-authentication.html>.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use replicator_pgconn::{ChannelBinding, NO_CHANNEL_BINDING, NO_PASSWORD, StartupError};

pub(crate) struct Authentication<'a> {
    user: &'a str,
    password: Option<&'a str>,
    channel_binding: ChannelBinding,
    end_point_hash: Option<&'a [u8]>,
    state: State,
}

enum State {
    Start,
    PasswordSent,
    ScramFirst(Box<sasl::ScramSha256>),
    ScramProof(Box<sasl::ScramSha256>),
    ScramProven,
    Done,
}

/// What to do after a message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send these bytes and read the next message.
    Send(BytesMut),
    /// Read the next message.
    Read,
    /// The server knows us.
    Done,
}

impl<'a> Authentication<'a> {
    pub(crate) fn new(
        user: &'a str,
        password: Option<&'a str>,
        channel_binding: ChannelBinding,
        end_point_hash: Option<&'a [u8]>,
    ) -> Self {
        Self { user, password, channel_binding, end_point_hash, state: State::Start }
    }

    /// Takes the next authentication message.
    pub(crate) fn next(&mut self, message: Message) -> Result<Next, StartupError> {
        let mut out = BytesMut::new();
        let state = std::mem::replace(&mut self.state, State::Done);
        self.state = match (state, message) {
            (State::Start, Message::AuthenticationOk) => {
                self.unbound()?;
                return Ok(Next::Done);
            }
            (State::PasswordSent | State::ScramProven, Message::AuthenticationOk) => return Ok(Next::Done),
            (State::Start, Message::AuthenticationCleartextPassword) => {
                self.unbound()?;
                frontend::password_message(self.password()?.as_bytes(), &mut out)?;
                State::PasswordSent
            }
            (State::Start, Message::AuthenticationMd5Password(body)) => {
                self.unbound()?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?.as_bytes(), body.salt());
                frontend::password_message(hash.as_bytes(), &mut out)?;
                State::PasswordSent
            }
            (State::Start, Message::AuthenticationSasl(body)) => {
                let mut names = Vec::new();
                let mut mechanisms = body.mechanisms();
                while let Some(name) = mechanisms.next()? {
                    names.push(name.to_owned());
                }
                let (mechanism, binding) = self.mechanism(&names)?;
                let scram = sasl::ScramSha256::new(self.password()?.as_bytes(), binding);
                frontend::sasl_initial_response(mechanism, scram.message(), &mut out)?;
                State::ScramFirst(Box::new(scram))
            }
            (State::ScramFirst(mut scram), Message::AuthenticationSaslContinue(body)) => {
                scram.update(body.data()).map_err(scram_error)?;
                frontend::sasl_response(scram.message(), &mut out)?;
                State::ScramProof(scram)
            }
            (State::ScramProof(mut scram), Message::AuthenticationSaslFinal(body)) => {
                scram.finish(body.data()).map_err(scram_error)?;
                State::ScramProven
            }
            (
                State::Start,
                Message::AuthenticationGss
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationScmCredential
                | Message::AuthenticationSspi,
            ) => {
                let text = "the server wants GSSAPI, SSPI or Kerberos, which is not supported; give this role \
                            scram-sha-256 in pg_hba.conf";
                return Err(StartupError::Refused(text.to_owned()));
            }
            _ => return Err(StartupError::Protocol("an authentication message came out of turn".to_owned())),
        };
        Ok(if out.is_empty() { Next::Read } else { Next::Send(out) })
    }

    fn password(&self) -> Result<&'a str, StartupError> {
        self.password.ok_or_else(|| StartupError::Refused(NO_PASSWORD.to_owned()))
    }

    /// Everything but SCRAM-SHA-256-PLUS passes through here.
    fn unbound(&self) -> Result<(), StartupError> {
        if self.channel_binding == ChannelBinding::Require {
            return Err(StartupError::Refused(NO_CHANNEL_BINDING.to_owned()));
        }
        Ok(())
    }

    fn mechanism(&self, offered: &[String]) -> Result<(&'static str, sasl::ChannelBinding), StartupError> {
        let offers = |name: &str| offered.iter().any(|offered| offered == name);
        let hash = self.end_point_hash.filter(|_| self.channel_binding != ChannelBinding::Disable);
        if let Some(hash) = hash.filter(|_| offers(sasl::SCRAM_SHA_256_PLUS)) {
            let binding = sasl::ChannelBinding::tls_server_end_point(hash.to_vec());
            return Ok((sasl::SCRAM_SHA_256_PLUS, binding));
        }
        self.unbound()?;
        if !offers(sasl::SCRAM_SHA_256) {
            let offered = offered.join(", ");
            return Err(StartupError::Refused(format!(
                "the server offers only {offered}, and this program knows SCRAM-SHA-256"
            )));
        }
        // "unrequested" tells the server that we could have: it then notices when its offer was cut out.
        let binding = match hash {
            Some(_) => sasl::ChannelBinding::unrequested(),
            None => sasl::ChannelBinding::unsupported(),
        };
        Ok((sasl::SCRAM_SHA_256, binding))
    }
}

fn scram_error(error: std::io::Error) -> StartupError {
    StartupError::Refused(format!(
        "the SCRAM exchange failed ({error}): the server does not know this password, or is not the one it says it is"
    ))
}

#[cfg(test)]
mod tests;
