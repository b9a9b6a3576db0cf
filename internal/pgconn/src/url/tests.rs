use super::*;
use crate::ErrorKind;
use proptest::prelude::*;

fn with(url: &str, environment: &[(&str, &str)]) -> Result<ConnectOptions, ConnectError> {
    parse(url, None, &|name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn options(url: &str) -> ConnectOptions {
    with(url, &[]).unwrap()
}

fn refused(url: &str) -> String {
    let error = with(url, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Halt);
    error.to_string()
}

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.into(), port }
}

#[test]
fn a_url_says_who_where_and_what() {
    let options = options("postgres://re%40pl:s%2Fec@db.example:5433/my%20shop?application_name=a%26b");
    assert_eq!(options.user, "re@pl");
    assert_eq!(options.database, "my shop");
    assert_eq!(options.hosts, [tcp("db.example", 5433)]);
    assert_eq!(options.password_for(&options.hosts[0]).as_deref(), Some("s/ec"));
    assert_eq!(options.application_name.as_deref(), Some("a&b"));
    assert_eq!(options.to_string(), "re@pl@db.example:5433/my shop");
}

#[test]
fn what_is_not_said_is_as_in_libpq() {
    let options = options("postgresql://repl@db");
    assert_eq!(options.hosts, [tcp("db", 5432)]);
    assert_eq!(options.database, "repl");
    assert_eq!(options.ssl_mode, SslMode::Prefer);
    assert_eq!(options.channel_binding, ChannelBinding::Prefer);
    assert_eq!(options.connect_timeout, None);
    assert_eq!(options.password_for(&options.hosts[0]), None);
}

#[test]
fn the_environment_fills_in_and_the_url_wins() {
    let environment = [
        ("PGHOST", "elsewhere"),
        ("PGPORT", "6000"),
        ("PGUSER", "eve"),
        ("PGDATABASE", "other"),
        ("PGPASSWORD", "hunter2"),
        ("PGSSLMODE", "verify-full"),
        ("PGCONNECT_TIMEOUT", "7"),
    ];
    let bare = with("postgres://", &environment).unwrap();
    assert_eq!(bare.to_string(), "eve@elsewhere:6000/other");
    assert_eq!(bare.ssl_mode, SslMode::VerifyFull);
    assert_eq!(bare.connect_timeout, Some(Duration::from_secs(7)));
    assert_eq!(bare.password, Some(Password("hunter2".into())));
    let full = with("postgres://al:pw@db:1/shop?sslmode=disable", &environment).unwrap();
    assert_eq!(full.to_string(), "al@db:1/shop");
    assert_eq!(full.ssl_mode, SslMode::Disable);
    assert_eq!(full.password, Some(Password("pw".into())));
}

#[test]
fn the_password_of_the_configuration_stands_between_url_and_environment() {
    let environment = |name: &str| (name == "PGPASSWORD").then(|| "from env".to_owned());
    let password = |url, given| parse(url, given, &environment).unwrap().password.map(|password| password.0);
    assert_eq!(password("postgres://u:url@h", Some("given")).as_deref(), Some("url"));
    assert_eq!(password("postgres://u@h", Some("given")).as_deref(), Some("given"));
    assert_eq!(password("postgres://u@h", Some("")).as_deref(), Some("from env"));
}

#[test]
fn a_socket_is_named_by_its_directory() {
    let socket = |port| Host::Unix { directory: "/run/pg".into(), port };
    assert_eq!(options("postgres://u@/d?host=/run/pg").hosts, [socket(5432)]);
    assert_eq!(options("postgres://u@%2Frun%2Fpg/d").hosts, [socket(5432)]);
    assert_eq!(options("postgres://u@%2Frun%2Fpg:5433/d").hosts, [socket(5433)]);
    assert_eq!(options("postgres://u@/d?host=/run/pg&port=5433").hosts, [socket(5433)]);
    assert_eq!(socket(5433).to_string(), "/run/pg/.s.PGSQL.5433");
}

#[test]
fn several_hosts_have_their_ports_or_share_one() {
    assert_eq!(options("postgres://u@a,b:2,[::1]:3/d").hosts, [tcp("a", 5432), tcp("b", 2), tcp("::1", 3)]);
    assert_eq!(options("postgres://u@a,b/d?port=7").hosts, [tcp("a", 7), tcp("b", 7)]);
    assert!(refused("postgres://u@a,b,c/d?port=1,2").contains("3 hosts and 2 ports"));
    assert_eq!(options("postgres://u@[fe80::1%25eth0]/d").hosts, [tcp("fe80::1%eth0", 5432)]);
}

#[test]
fn every_known_parameter_is_understood() {
    let options = options(
        "postgres://u@h/d?sslmode=verify-ca&sslrootcert=/ca&sslcert=/c&sslkey=/k&channel_binding=require\
         &connect_timeout=3&keepalives=0&keepalives_idle=4&keepalives_interval=5&keepalives_count=6\
         &tcp_user_timeout=7000&gssencmode=disable&options=-c%20geqo%3Doff%20--work-mem%3D1%5C%20MB",
    );
    assert_eq!(options.ssl_mode, SslMode::VerifyCa);
    assert_eq!(options.root_certificates, Some(RootCertificates::File("/ca".into())));
    assert_eq!((options.client_certificate, options.client_key), (Some("/c".into()), Some("/k".into())));
    assert_eq!(options.channel_binding, ChannelBinding::Require);
    let seconds = Duration::from_secs;
    assert_eq!(options.connect_timeout, Some(seconds(3)));
    let keepalive = Keepalive {
        enabled: false,
        idle: seconds(4),
        interval: seconds(5),
        count: 6,
        user_timeout: seconds(7),
    };
    assert_eq!(options.keepalive, keepalive);
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(options.settings, [setting("geqo", "off"), setting("work_mem", "1 MB")]);
}

#[test]
fn sslmode_allow_is_prefer_and_the_jdbc_spelling_is_require() {
    assert_eq!(options("postgres://u@h?sslmode=allow").ssl_mode, SslMode::Prefer);
    assert_eq!(options("postgres://u@h?ssl=true").ssl_mode, SslMode::Require);
    assert_eq!(
        options("postgres://u@h?sslmode=verify-full&sslrootcert=system").root_certificates,
        Some(RootCertificates::System)
    );
}

#[test]
fn an_unknown_parameter_is_an_error_that_names_the_nearest() {
    let text = refused("postgres://u@h/d?sslmod=require");
    assert!(text.contains("`sslmod`") && text.contains("`sslmode`"), "{text}");
    let text = refused("postgres://u@h/d?conect_timeout=1");
    assert!(text.contains("`connect_timeout`"), "{text}");
}

#[test]
fn a_wrong_value_is_an_error_that_says_what_is_right() {
    assert!(refused("postgres://u@h/d?sslmode=on").contains("verify-full"));
    assert!(refused("postgres://u@h:99999/d").contains("65535"));
    assert!(refused("postgres://u@h:0/d").contains("65535"));
    assert!(refused("postgres://u@[::1/d").contains("`]`"));
    assert!(refused("postgres://u@h/d?connect_timeout=soon").contains("whole number"));
    assert!(refused("postgres://u@h/d?sslmode").contains("no value"));
    assert!(refused("postgres://u@h/%zz").contains("%25"));
    assert!(refused("postgres://u@h/%00").contains("zero byte"));
    assert!(refused("host=h user=u").contains("postgres://"));
    assert!(refused("postgres://u@h/d?options=geqo").contains("-c name=value"));
}

#[test]
fn no_password_is_ever_shown() {
    let secret = "s3cr3t";
    let options = options(&format!("postgres://u:{secret}@h/d"));
    assert!(!format!("{options:?} {options:#?} {options}").contains(secret));
    for url in [
        format!("postgres://u:{secret}%@h/d"),
        format!("u:{secret}@h/d"),
        format!("postgres://u:{secret}@h:port/d"),
        format!("postgres://u@h/d?pasword={secret}"),
        format!("postgres://u:a?b:{secret}@h/d"),
        format!("postgres://u:{secret}/x@h/d"),
        format!("postgres://u:1?{secret}=x@h/d"),
    ] {
        let text = refused(&url);
        assert!(!text.contains(secret), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String, after in "[a-z@:/?%,&=0-9\\[\\]]{0,40}") {
        let _ = with(&text, &[]);
        let _ = with(&format!("postgres://{after}"), &[]);
        let _ = with("postgres://u@h", &[("PGOPTIONS", &text), ("PGPORT", &after)]);
    }
}
