use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A certificate authority of one server's own, with the server's certificate and whatever client
/// certificates a test wants, as PEM files.
#[derive(Debug)]
pub struct Tls {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Tls {
    /// Makes the authority, and a server certificate for `localhost` and 127.0.0.1, in `dir`.
    ///
    /// # Panics
    /// When `dir` cannot be written.
    pub fn generate(dir: &Path) -> Self {
        let mut params = named("replicator test CA", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.self_signed(&key).expect("sign the CA");
        write(&dir.join("ca.crt"), &certificate.pem());
        let tls = Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) };
        tls.issue("server", "localhost", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        tls
    }

    /// The authority's certificate: what a client trusts (`sslrootcert`).
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// The server's certificate.
    pub fn server_cert_file(&self) -> PathBuf {
        self.dir.join("server.crt")
    }

    /// The server's key.
    pub fn server_key_file(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// Makes a certificate and key for a client of that common name (`sslcert`, `sslkey`): with `hba` method
    /// `cert` the name of the role.
    ///
    /// # Panics
    /// When the folder cannot be written.
    pub fn client(&self, common_name: &str) -> (PathBuf, PathBuf) {
        self.issue(&format!("client-{common_name}"), common_name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        file: &str,
        common_name: &str,
        alt_names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> (PathBuf, PathBuf) {
        let mut params = named(common_name, alt_names);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("make a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign a certificate");
        let (cert_file, key_file) =
            (self.dir.join(format!("{file}.crt")), self.dir.join(format!("{file}.key")));
        write(&cert_file, &certificate.pem());
        write(&key_file, &key.serialize_pem());
        (cert_file, key_file)
    }
}

fn named(common_name: &str, alt_names: &[&str]) -> CertificateParams {
    let alt_names: Vec<String> = alt_names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(alt_names).expect("these are names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Readable for the owner alone, as libpq and Postgres want keys to be.
fn write(path: &Path, pem: &str) {
    let _ = fs::remove_file(path);
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
    std::io::Write::write_all(&mut file, pem.as_bytes()).expect("write a PEM file");
}
