//! A plain HTTP/1.1 client: one request a connection, whole bodies.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any answer a test waits for.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// Body, decoded from chunks.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends `method path` with `body` to `address` (`host:port`).
///
/// # Errors
/// When the server cannot be reached, closes in mid-answer, or does not answer in HTTP.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    // A server may answer (with an error) before it has read the whole body, and close.
    let sent = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body));
    match read_response(&mut BufReader::new(&stream), method) {
        Err(error) => Err(sent.err().unwrap_or(error)),
        answer => answer,
    }
}

/// `GET path`.
///
/// # Errors
/// As [`request`].
pub fn get(address: &str, path: &str) -> io::Result<Response> {
    request(address, "GET", path, &[], &[])
}

/// `text` for use inside a URL's query.
pub fn percent_encode(text: &str) -> impl fmt::Display {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn read_response(reader: &mut impl BufRead, method: &str) -> io::Result<Response> {
    let first = read_line(reader)?;
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    if response.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        response.body = read_chunks(reader)?;
    } else if let Some(length) = response.header("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        reader.take(length).read_to_end(&mut response.body)?;
        if response.body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else {
        reader.read_to_end(&mut response.body)?;
    }
    Ok(response)
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if size == 0 {
            // Trailers, then an empty line.
            while !read_line(reader)?.is_empty() {}
            return Ok(body);
        }
        let wanted = body.len() as u64 + size;
        reader.take(size).read_to_end(&mut body)?;
        if body.len() as u64 != wanted || !read_line(reader)?.is_empty() {
            return Err(io::Error::other("a chunk that is not as long as it says"));
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Response> {
        read_response(&mut text.as_bytes(), "GET")
    }

    #[test]
    fn bodies_come_by_length_by_chunks_and_to_the_end() {
        let by_length = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more").unwrap();
        assert_eq!((by_length.status, by_length.text().as_str()), (200, "hello"));
        let by_chunks = read(
            "HTTP/1.1 500 Oh no\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        );
        assert_eq!(by_chunks.as_ref().map(|r| (r.status, r.text())).unwrap(), (500, "hello".to_owned()));
        assert_eq!(read("HTTP/1.0 200 OK\r\n\r\nhello").unwrap().text(), "hello");
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello").is_err());
        assert!(read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").is_err());
        assert!(read("HTTP/1.1 200 OK\r\n").is_err());
    }

    #[test]
    fn a_query_is_safe_in_a_url() {
        assert_eq!(percent_encode("a b&c=ü").to_string(), "a%20b%26c%3D%C3%BC");
    }
}
