use crate::support::Cell::{N, T};
use crate::support::*;
use replicator_config::Secret;
use replicator_harness::{ClickHouse, ClickHouseOptions, Direction, Proxy, Tls, scratch_dir};
use replicator_sink::{ErrorKind, Sink};
use replicator_types::Op;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_was_found_and_changes_nothing() {
    let fixture = Fixture::new();
    let items = fixture.sink().check(&[orders()]).await;
    assert!(items.iter().all(|item| item.result.is_ok()), "{items:?}");
    assert!(
        items.iter().any(|item| item.result.as_ref().is_ok_and(|text| text.contains("version 2"))),
        "{items:?}"
    );
    assert_eq!(fixture.query("SELECT count() FROM system.databases WHERE name = '{db}'"), "0");
    fixture.sink().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_with_the_remedy_and_never_shown() {
    let server = ClickHouse::start(&ClickHouseOptions { user: "writer".into(), password: "right".into() });
    let mut fixture = Fixture::new();
    fixture.config.url = Secret::new(server.url());
    fixture.config.user = "writer".into();
    fixture.config.password = Secret::new("hunter2");
    let orders = orders();
    let error = fixture.try_lane(&[&orders]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
    let items = fixture.sink().check(&[orders]).await;
    assert_eq!(items.len(), 1, "nothing else is asked of a server that lets nobody in: {items:?}");
    for text in [error.to_string(), items[0].result.clone().unwrap_err()] {
        assert!(text.contains(server.address()) && text.contains("password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // In the URL it is as good, and as hidden.
    fixture.config.url = Secret::new(server.url().replace("http://", "http://writer:right@"));
    fixture.config.user = String::new();
    fixture.config.password = Secret::default();
    fixture.sink().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_tried_again() {
    let mut fixture = Fixture::new();
    fixture.config.url = Secret::new("http://127.0.0.1:1");
    let error = fixture.sink().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_at_once() {
    let open = |change: &dyn Fn(&mut replicator_config::ClickHouseConfig)| {
        let mut config = Fixture::new().config.clone();
        change(&mut config);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        replicator_sink_clickhouse::open("analytics".into(), config, 1, logger)
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(open(&|_| {}), None);
    let url = |text: &'static str| {
        move |config: &mut replicator_config::ClickHouseConfig| config.url = Secret::new(text)
    };
    for text in ["localhost:8123", "http://", "tcp://host:9000", ""] {
        let error = open(&url(text)).unwrap_or_else(|| panic!("{text} is taken"));
        assert!(error.contains("analytics"), "{error}");
    }
    let error = open(&|config| config.password_file = Some("/nonexistent/file".into())).unwrap();
    assert!(error.contains("password_file"), "{error}");
    let error = open(&|config| {
        config.url = Secret::new("https://localhost:8443");
        config.ca_file = Some("/nonexistent/ca.pem".into());
    })
    .unwrap();
    assert!(error.contains("ca_file"), "{error}");
}

/// An order of which 5000 make a body of a megabyte.
fn large_batch(orders: &Arc<replicator_types::Relation>, commit: u64) -> replicator_types::Batch {
    let note = |n: u64| {
        let mut state = n;
        let letters = (0..300).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + (state >> 58) as u8)
        });
        letters.collect::<String>()
    };
    let events: Vec<_> = (0..5000_u64)
        .map(|n| insert(orders, (commit, n), &[T(&(commit * 10_000 + n).to_string()), N, T(&note(n))]))
        .collect();
    batch(&events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_anywhere_is_tried_again_and_no_row_of_a_history_is_doubled_or_lost() {
    let mut fixture = Fixture::history();
    let proxy = Proxy::start(server().address());
    fixture.config.url = Secret::new(format!("http://{}", proxy.address()));
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let faults: [(&str, &dyn Fn()); 4] = [
        ("refused", &|| {
            proxy.refuse();
            proxy.cut();
        }),
        ("cut in the head", &|| proxy.cut_after(100, Direction::ToUpstream)),
        ("cut in the body", &|| proxy.cut_after(500_000, Direction::ToUpstream)),
        ("the reply lost", &|| proxy.cut_after(5, Direction::ToClient)),
    ];
    for (commit, (name, fault)) in (10..).zip(faults) {
        let mut sent = lane.prepare(Arc::new(large_batch(&orders, commit))).await.unwrap();
        assert!(sent.held_bytes() > 800_000);
        fault();
        let error = sent.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retry, "{name}: {error}");
        proxy.accept();
        sent.send().await.unwrap();
        let forwarded = proxy.forwarded_bytes(Direction::ToUpstream);
        sent.send().await.unwrap();
        assert_eq!(proxy.forwarded_bytes(Direction::ToUpstream), forwarded, "what is done is not sent again");
        let rows = (commit - 9) * 5000;
        assert_eq!(
            fixture.query("SELECT count(), uniqExact(id) FROM {db}.orders"),
            format!("{rows}\t{rows}"),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up_and_tried_again() {
    let mut fixture = Fixture::new();
    let proxy = Proxy::start(server().address());
    fixture.config.url = Secret::new(format!("http://{}", proxy.address()));
    fixture.config.request_timeout_ms = 1000;
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let mut sent = lane.prepare(Arc::new(large_batch(&orders, 10))).await.unwrap();
    proxy.stall();
    let error = sent.send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    proxy.resume();
    let truncated = fenced(&[event(&orders, Op::Truncate, (11, 0))]);
    sent.send().await.unwrap();
    write(&mut lane, truncated).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        fixture.query("SELECT count() FROM {db}.orders"),
        "0",
        "the insert that was given up came after all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_waits_for_an_insert_that_was_given_up_and_still_runs() {
    let mut fixture = Fixture::new();
    fixture.query("CREATE DATABASE {db}");
    fixture.query(
        "CREATE TABLE {db}.orders (id Int64, state String, note String, slow UInt8 MATERIALIZED sleepEachRow(2), \
         _version UInt128, _deleted UInt8, _commit_time DateTime64(6)) \
         ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY id",
    );
    fixture.config.request_timeout_ms = 500;
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    let insert = batch(&[insert(&orders, (10, 0), &[T("1"), T("s"), T("n")])]);
    let error = try_write(&mut lane, insert).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    let truncate = fenced(&[event(&orders, Op::Truncate, (11, 0))]);
    let mut truncate = lane.prepare(Arc::new(truncate)).await.unwrap();
    while let Err(error) = truncate.send().await {
        assert_eq!(error.kind(), ErrorKind::Retry, "{error}");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.query("SELECT count() FROM {db}.orders"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_while_it_is_written_to_is_what_the_error_is_about() {
    let fixture = Fixture::new();
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    write(&mut lane, batch(&[insert(&orders, (9, 0), &[T("1"), N, N])])).await;
    fixture.query("DROP TABLE {db}.orders");
    let error = try_write(&mut lane, batch(&[insert(&orders, (10, 0), &[T("1"), N, N])])).await.unwrap_err();
    assert_eq!((error.kind(), error.table()), (ErrorKind::Halt, Some(orders.oid)));
    for part in ["orders", "dropped", "replicator resync"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// Lets TLS connections through to `upstream`.
async fn tls_front(tls: &Tls, upstream: &'static str) -> u16 {
    let pem = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let certificates =
        CertificateDer::pem_slice_iter(&pem(tls.server_cert_file())).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(tls.server_key_file())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_spoken_to_servers_whose_authority_is_trusted_and_to_no_others() {
    let mut fixture = Fixture::new();
    let folder = scratch_dir("tls");
    let tls = Tls::generate(&folder);
    let port = tls_front(&tls, server().address()).await;
    fixture.config.url = Secret::new(format!("https://localhost:{port}"));
    fixture.config.ca_file = Some(tls.ca_file());
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    write(&mut lane, large_batch(&orders, 10)).await;
    assert_eq!(fixture.query("SELECT count() FROM {db}.orders"), "5000");

    let others = folder.join("others");
    std::fs::create_dir(&others).unwrap();
    fixture.config.ca_file = Some(Tls::generate(&others).ca_file());
    let error = fixture.sink().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
    assert!(error.to_string().contains("ca_file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_death_of_the_server() {
    let server = ClickHouse::start(&ClickHouseOptions::default());
    if !server.is_own() {
        return;
    }
    let mut fixture = Fixture::new();
    fixture.config.url = Secret::new(server.url());
    let orders = orders();
    let mut lane = fixture.lane(&[&orders]).await;
    for commit in 10..20_u64 {
        write(&mut lane, batch(&[insert(&orders, (commit, 0), &[T(&commit.to_string()), T("s"), N])])).await;
    }
    server.kill9();
    let event = batch(&[insert(&orders, (20, 0), &[T("20"), T("s"), N])]);
    let mut waiting = lane.prepare(Arc::new(event)).await.unwrap();
    assert_eq!(waiting.send().await.unwrap_err().kind(), ErrorKind::Retry);
    server.start_again();
    tokio::time::timeout(Duration::from_secs(60), async {
        while waiting.send().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let count =
        server.query(&format!("SELECT count(), max(id) FROM {}.orders FINAL", fixture.config.database));
    assert_eq!(count.trim(), "11\t20");
}
