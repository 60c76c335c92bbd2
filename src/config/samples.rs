//! Tests of the sample configurations in `config/`: they load without a finding, and their parsers find their fields.

use std::path::{Path, PathBuf};

use super::{Diagnostics, Document, Env, Section, Service, check_whole, load};
use crate::text::Regex;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn loaded(name: &str) -> (Document, Service) {
    let mut diags = Diagnostics::new();
    let mut env = Env::of(&[("HOSTNAME", "here")]);
    let document = load(&sample(name), &[], &mut env, &mut diags);
    let service = Service::read(&document.service, &env, &mut diags);
    check_whole(&document, &mut diags);
    let found: Vec<String> = diags.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{name}: {found:?}");
    (document, service)
}

fn keys(sections: &[Section]) -> Vec<Vec<(&str, &str)>> {
    sections.iter().map(|s| s.entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect()).collect()
}

#[test]
fn the_configurations_of_firelens_load_without_a_finding() {
    for (name, inputs, filters, outputs) in
        [("firelens-bridge.conf", 3, 3, 3), ("firelens-awsvpc.conf", 3, 1, 2)]
    {
        let (d, _) = loaded(name);
        assert_eq!((d.inputs.len(), d.filters.len(), d.outputs.len()), (inputs, filters, outputs), "{name}");
        assert_eq!(d.inputs[0].last("unix_path").unwrap().value, "/var/run/fluent.sock");
    }
}

#[test]
fn the_standalone_configurations_say_the_same_in_both_formats() {
    let (classic, service) = loaded("standalone.conf");
    let (yaml, same) = loaded("standalone.yaml");
    assert_eq!(keys(&classic.inputs), keys(&yaml.inputs));
    assert_eq!(keys(&classic.filters), keys(&yaml.filters));
    assert_eq!(keys(&classic.outputs), keys(&yaml.outputs));
    assert_eq!(keys(&classic.parsers), keys(&yaml.parsers));
    assert_eq!(format!("{service:?}"), format!("{same:?}"));
    assert_eq!(classic.outputs[0].last("path").unwrap().value, "/var/log/firelane");
}

#[test]
fn parsers_find_their_fields_in_a_line_of_their_kind() {
    let (document, _) = loaded("standalone.conf");
    let pattern = |name: &str| {
        let section = document.parsers.iter().find(|s| s.last("name").is_some_and(|e| e.value == name));
        section.unwrap_or_else(|| panic!("{name}")).last("regex").unwrap().value.clone()
    };
    for (name, line, groups) in [
        ("apache", r#"10.0.0.1 - bob [02/Jan/2026:03:04:05 +0000] "GET /a b.gif HTTP/1.0" 200 2326"#, 7),
        (
            "apache",
            r#"10.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.1" 200 5 "-" "say \"x\"" tail"#,
            9,
        ),
        (
            "apache2",
            r#"10.0.0.1 - bob [02/Jan/2026:03:04:05 +0000] "GET /a?b=c HTTP/1.0" 404 - "http://x/" "curl/8""#,
            9,
        ),
        (
            "apache_error",
            "[Fri Jan 02 03:04:05.678901 2026] [core:error] [pid 35:tid 43] [client 10.0.0.1:5] no file",
            5,
        ),
        ("apache_error", "[Fri Jan 02 03:04:05 2026] [notice] started", 3),
        (
            "nginx",
            r#"10.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "POST /x HTTP/2.0" 201 0 "-" "Mozilla/5.0 (X11)""#,
            10,
        ),
        (
            "k8s-nginx-ingress",
            r#"10.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "GET / HTTP/1.1" 200 5 "-" "curl/8" 80 0.001 [shop-web-80] [] 10.1.0.2:80 5 0.001 200 4f0b"#,
            18,
        ),
        (
            "envoy",
            r#"[2026-01-02T03:04:05.678Z] "POST /api HTTP/2" 204 - 154 0 226 100 "10.0.0.1" "curl" "cc21" "shop" "tcp://10.0.2.1:80""#,
            15,
        ),
        (
            "istio-envoy-proxy",
            r#"[2026-01-02T03:04:05.678Z] "GET / HTTP/1.1" 418 - via_upstream - "-" 0 135 4 4 "-" "curl/8" "8496" "shop:80" "127.0.0.1:80" inbound|80|| 127.0.0.1:41854 10.0.0.1:80 10.0.0.2:37652 outbound_.80_._.shop default"#,
            24,
        ),
        ("cri", "2026-01-02T03:04:05.678901234+00:00 stdout P half a line", 4),
        (
            "kube-custom",
            "kube.web-7f9c_shop_app-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.log",
            5,
        ),
        ("docker-daemon", r#"time="2026-01-02T03:04:05.678901234Z" level=info msg="say \"x\"" id=1"#, 3),
        (
            "syslog-rfc5424",
            r#"<165>1 2026-01-02T03:04:05.678Z host app 123 ID47 [a b="c\]d"][e f="g"] text"#,
            8,
        ),
        ("syslog-rfc5424", "<34>1 2026-01-02T03:04:05Z host app - - - text", 8),
        ("syslog-rfc3164", "<34>Jan  2 03:04:05 host su[123]: 'su root' failed", 6),
        ("syslog-rfc3164-local", "<13>Jan 12 03:04:05 app: text", 4),
        ("mongodb", "2026-01-02T03:04:05.678+0000 I COMMAND  [conn1] command x 123ms", 6),
        (
            "kmsg-netfilter-log",
            "<4>1 2026-01-02T03:04:05.678+00:00 host kernel - - - [12.345] DROP IN=eth0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=123 DF PROTO=TCP SPT=40000 DPT=22 WINDOW=64240 RES=0x00 SYN URGP=0",
            23,
        ),
    ] {
        let found = Regex::new(&pattern(name)).unwrap().groups(line.as_bytes());
        let found = found.unwrap_or_else(|| panic!("{name} does not take {line}"));
        assert_eq!(found.iter().skip(1).flatten().count(), groups, "{name}: {line}");
    }
}

#[test]
fn the_names_that_users_rely_on_are_there() {
    let (document, _) = loaded("standalone.conf");
    let names: Vec<&str> =
        document.parsers.iter().filter_map(|s| s.last("name")).map(|e| e.value.as_str()).collect();
    for name in [
        "apache",
        "apache2",
        "apache_error",
        "nginx",
        "json",
        "logfmt",
        "docker",
        "docker-daemon",
        "syslog-rfc5424",
        "syslog-rfc3164",
        "syslog-rfc3164-local",
        "cri",
        "kube-custom",
        "mongodb",
        "envoy",
        "istio-envoy-proxy",
        "k8s-nginx-ingress",
        "kmsg-netfilter-log",
    ] {
        assert!(names.contains(&name), "{name}");
    }
}
