//! The proxy in front of a server that sends back what it gets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use replicator_harness::{Direction, Proxy, eventually_blocking};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn echo_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn echo(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text)?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn what_goes_in_comes_out_and_is_counted() {
    let proxy = Proxy::start(echo_server());
    let mut stream = connect(&proxy);
    assert_eq!(echo(&mut stream, b"hello").unwrap(), b"hello");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the end is passed on");
    eventually_blocking(Duration::from_secs(5), "bytes are counted", || {
        let counted =
            (proxy.forwarded_bytes(Direction::ToUpstream), proxy.forwarded_bytes(Direction::ToClient));
        if counted == (5, 5) { Ok(()) } else { Err(format!("{counted:?}")) }
    });
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn a_cut_resets_what_is_open_and_nothing_else() {
    let proxy = Proxy::start(echo_server());
    let mut stream = connect(&proxy);
    echo(&mut stream, b"a").unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(echo(&mut connect(&proxy), b"b").unwrap(), b"b");
}

#[test]
fn a_stall_holds_everything_back_and_loses_nothing() {
    let proxy = Proxy::start(echo_server());
    let mut stream = connect(&proxy);
    echo(&mut stream, b"a").unwrap();
    proxy.stall();
    let mut second = connect(&proxy);
    for (stream, sent) in [(&mut stream, b"b"), (&mut second, b"c")] {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(echo(stream, sent).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    proxy.resume();
    for (stream, expected) in [(&mut stream, b"b"), (&mut second, b"c")] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut late = [0];
        stream.read_exact(&mut late).unwrap();
        assert_eq!(&late, expected);
    }
}

#[test]
fn refusing_keeps_what_is_open_and_takes_nothing_new() {
    let proxy = Proxy::start(echo_server());
    let mut stream = connect(&proxy);
    echo(&mut stream, b"a").unwrap();
    proxy.refuse();
    assert_eq!(TcpStream::connect(proxy.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(echo(&mut stream, b"b").unwrap(), b"b");
    proxy.accept();
    assert_eq!(echo(&mut connect(&proxy), b"c").unwrap(), b"c");
}

#[test]
fn a_cut_after_some_bytes_forwards_exactly_those() {
    let proxy = Proxy::start(echo_server());
    let mut stream = connect(&proxy);
    echo(&mut stream, b"a").unwrap();
    proxy.cut_after(3, Direction::ToUpstream);
    stream.write_all(b"hello").unwrap();
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.forwarded_bytes(Direction::ToUpstream), 4);
    assert_eq!(echo(&mut connect(&proxy), b"hello").unwrap(), b"hello", "it cuts once");
}
