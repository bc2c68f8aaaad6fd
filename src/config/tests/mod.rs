//! Whole files: what they become, and every sentence that a wrong one gets.

#![allow(clippy::unwrap_used)]

mod reference;

use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

const MINIMAL: &str = r#"
[listen]
address = "127.0.0.1:6380"
[control]
address = "127.0.0.1:9180"
[[backend]]
name = "primary"
role = "primary"
address = "127.0.0.1:6379"
[[backend]]
name = "backup-a"
role = "backup"
address = "127.0.0.1:6390"
"#;

fn parsed_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    parse(text, "standin.toml", variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn parsed(text: &str) -> Config {
    parsed_with(text, &[]).unwrap()
}

fn errors_with(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match parsed_with(text, variables) {
        Ok(config) => panic!("this was accepted: {config:?}"),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

fn errors(text: &str) -> Vec<String> {
    errors_with(text, &[])
}

/// The minimal file and more; `more` begins on line 14, `[[backend]]`'s keys come first.
fn minimal_and(more: &str) -> String {
    format!("{MINIMAL}{more}")
}

/// One error, which says all of these.
fn check_refused(text: &str, parts: &[&str]) {
    let errors = errors(text);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    for part in parts {
        assert!(errors[0].contains(part), "`{part}` is not in: {}", errors[0]);
    }
}

#[test]
fn the_minimal_file_is_one_group_named_default_with_every_default() {
    let config = parsed(MINIMAL);
    let backends = vec![
        Backend::new("primary", Role::Primary, "127.0.0.1", 6379),
        Backend::new("backup-a", Role::Backup, "127.0.0.1", 6390),
    ];
    let expected = Config {
        groups: vec![Group::new("default", "127.0.0.1:6380".parse().unwrap(), backends)],
        control: Control::default(),
        observe: None,
        workers: Workers::default(),
        drain: Drain::default(),
        state: State::default(),
        log: Log::default(),
    };
    assert_eq!(config, expected);
    assert_eq!(config.groups[0].primary().name, "primary");
}

#[test]
fn the_fast_profile_changes_three_defaults_and_explicit_keys_win() {
    let fast = parsed(&minimal_and("[failover]\nprofile = \"fast\"\n")).groups.remove(0);
    assert_eq!(fast.timeout.floor, Duration::from_millis(190));
    assert_eq!(fast.health_check.interval, Duration::from_millis(100));
    assert_eq!(fast.health_check.timeout, Duration::from_millis(190));
    let explicit =
        parsed(&minimal_and("[failover]\nprofile = \"fast\"\n[timeout]\nfloor = \"300ms\"\n")).groups.remove(0);
    assert_eq!(explicit.timeout.floor, Duration::from_millis(300));
    assert_eq!(explicit.health_check.interval, Duration::from_millis(100));
}

const TWO_GROUPS: &str = r#"
[timeout]
request = "1s"
floor = "400ms"

[[group]]
name = "cache"
listen.address = "127.0.0.1:6380"
[[group.backend]]
name = "primary"
role = "primary"
address = "127.0.0.1:6379"

[[group]]
name = "sessions"
listen.address = "127.0.0.1:6381"
[group.timeout]
request = "3s"
[group.failover]
profile = "fast"
[[group.backend]]
name = "primary"
role = "primary"
address = "127.0.0.1:6379"
database = 1
"#;

#[test]
fn a_groups_policy_tables_default_to_the_top_level_ones_key_by_key() {
    let config = parsed(TWO_GROUPS);
    let (cache, sessions) = (config.group("cache").unwrap(), config.group("sessions").unwrap());
    assert_eq!(cache.timeout.request, Duration::from_secs(1));
    assert_eq!(sessions.timeout.request, Duration::from_secs(3));
    assert_eq!(sessions.timeout.floor, Duration::from_millis(400), "the top-level key wins over the profile's default");
    assert_eq!(sessions.health_check.interval, Duration::from_millis(100));
    assert_eq!(cache.health_check.interval, Duration::from_millis(500));
    assert_eq!(config.control, Control::default(), "[control] may be left out");
}

#[test]
fn variables_override_keys_of_the_process_of_a_group_and_of_a_backend() {
    let config = parsed_with(
        TWO_GROUPS,
        &[
            ("STANDIN_TIMEOUT_REQUEST", "5s"),
            ("STANDIN_GROUP_SESSIONS_BACKEND_PRIMARY_ADDRESS", "redis://cache:7000/2"),
            ("STANDIN_GROUP_CACHE_RETRY_ATTEMPTS", "1"),
            ("STANDIN_GROUP_CACHE_LISTEN_DENY", "shutdown, config|set"),
            ("STANDIN_GROUP_CACHE_BACKEND_PRIMARY_PERSISTENT", "true"),
            ("STANDIN_LOG_FORMAT", "json"),
            ("STANDIN_OBSERVE_ADDRESS", "0.0.0.0:9181"),
            ("STANDIN_CONFIG", "/etc/standin.toml"),
            ("PATH", "/bin"),
        ],
    );
    // The database of the URL stands beside the file's key: the error names both places.
    let errors = config.unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert_eq!(errors.0[0].key, "group[1].backend[0].database");

    let config = parsed_with(
        TWO_GROUPS,
        &[
            ("STANDIN_TIMEOUT_REQUEST", "5s"),
            ("STANDIN_GROUP_SESSIONS_BACKEND_PRIMARY_ADDRESS", "cache:7000"),
            ("STANDIN_GROUP_CACHE_RETRY_ATTEMPTS", "1"),
            ("STANDIN_GROUP_CACHE_LISTEN_DENY", "shutdown, config|set"),
            ("STANDIN_OBSERVE_ADDRESS", "0.0.0.0:9181"),
        ],
    )
    .unwrap();
    let (cache, sessions) = (config.group("cache").unwrap(), config.group("sessions").unwrap());
    assert_eq!(cache.timeout.request, Duration::from_secs(5));
    assert_eq!(sessions.timeout.request, Duration::from_secs(3), "the group's own key is nearer");
    assert_eq!(sessions.backends[0].address.to_string(), "cache:7000");
    assert_eq!((cache.retry.attempts, sessions.retry.attempts), (1, 3));
    assert_eq!(cache.listen.deny.iter().map(ToString::to_string).collect::<Vec<_>>(), ["SHUTDOWN", "CONFIG SET"]);
    assert_eq!(config.observe.unwrap().address.to_string(), "0.0.0.0:9181");
}

#[test]
fn a_variable_names_the_backend_in_upper_case_with_underscores() {
    let config = parsed_with(MINIMAL, &[("STANDIN_BACKEND_BACKUP_A_ADDRESS", "10.0.0.7:6379")]).unwrap();
    assert_eq!(config.groups[0].backends[1].address.to_string(), "10.0.0.7:6379");
}

#[test]
fn unknown_and_wrong_variables_are_refused_by_name() {
    let variables = [("STANDIN_TIMEOUT_REQUST", "1s"), ("STANDIN_TIMEOUT_FLOOR", "12"), ("STANDIN_QQQQQQQQQQ", "")];
    let errors = errors_with(MINIMAL, &variables);
    assert_eq!(
        errors,
        [
            "environment STANDIN_QQQQQQQQQQ: no key has this name; unset it, or see docs/configuration.md for how \
             names are made",
            "environment STANDIN_TIMEOUT_FLOOR: a duration needs its unit: write \"12ms\" or \"12s\"",
            "environment STANDIN_TIMEOUT_REQUST: no key has this name; did you mean STANDIN_TIMEOUT_REQUEST?",
        ]
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_named_standin_is_not_taken_for_keys() {
    let variables = [
        ("STANDIN_SERVICE_HOST", "10.96.0.7"),
        ("STANDIN_SERVICE_PORT", "6380"),
        ("STANDIN_SERVICE_PORT_REDIS", "6380"),
        ("STANDIN_PORT", "tcp://10.96.0.7:6380"),
        ("STANDIN_PORT_6380_TCP", "tcp://10.96.0.7:6380"),
        ("STANDIN_PORT_6380_TCP_PROTO", "tcp"),
        ("STANDIN_PORT_6380_TCP_PORT", "6380"),
        ("STANDIN_PORT_6380_TCP_ADDR", "10.96.0.7"),
        ("STANDIN_METRICS_SERVICE_HOST", "10.96.0.8"),
    ];
    parsed_with(MINIMAL, &variables).unwrap();
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = r#"
[listen]
adress = "127.0.0.1:6380"
clients_max = 0
output_limit = "lots"
deny = "SHUTDOWN"
[control]
address = 9180
[[backend]]
name = "a"
role = "main"
address = "cache"
[[backend]]
name = "a"
role = "backup"
address = "127.0.0.1:6390"
wieght = 5
[timeouts]
request = "1s"
[timeout]
request = 500
floor = "0s"
"#;
    assert_eq!(
        errors(text),
        [
            "standin.toml:2: listen.address: this key is missing; give it an address",
            "standin.toml:3: listen.adress: this key is not known; did you mean `address`?",
            "standin.toml:4: listen.clients_max: 0 is out of range; write 1 to 1000000",
            "standin.toml:5: listen.output_limit: \"lots\" is not a size; write \"64MiB\", \"64MB\" or a number of \
             bytes",
            "standin.toml:6: listen.deny: a list is expected here, like [\"...\"], and this is text in quotes",
            "standin.toml:8: control.address: an address is expected here, in quotes, and this is a number",
            "standin.toml:11: backend[0].role: \"main\" is not known here; write \"primary\" or \"backup\"",
            "standin.toml:12: backend[0].address: \"cache\" is no address; write \"host:6379\", \"unix:/path\", a \
             redis:// URL or \"embedded\"",
            "standin.toml:14: backend[1].name: backend[0].name is \"a\" too; rename one of the backends",
            "standin.toml:17: backend[1].wieght: this key is not known; did you mean `weight`?",
            "standin.toml:18: timeouts: this key is not known; did you mean `timeout`?",
            "standin.toml:21: timeout.request: a duration needs its unit: write \"500ms\" or \"500s\"",
            "standin.toml:22: timeout.floor: \"0s\" is out of range; write \"1ms\" to \"60m\"",
        ]
    );
}

#[test]
fn text_that_is_not_toml_gets_its_line_and_nothing_else() {
    let errors = errors_with("[listen]\naddress = \n[control\n", &[("STANDIN_TIMEOUT_REQUEST", "1s")]);
    assert!(errors.iter().all(|error| error.contains("this is not TOML")), "{errors:#?}");
    assert!(errors[0].starts_with("standin.toml:2: "), "{errors:#?}");
}

#[test]
fn an_empty_file_says_what_is_missing() {
    let errors = errors("");
    assert_eq!(
        errors,
        [
            "standin.toml: backend: there is no backend; add [[backend]] with name, role and address",
            "standin.toml: listen.address: this key is missing; give it an address",
        ]
    );
}

#[test]
fn the_number_of_primaries_is_one() {
    check_refused(
        &MINIMAL.replace("\"primary\"\naddress", "\"backup\"\naddress"),
        &["standin.toml:6: backend: none of the backends is the primary"],
    );
    check_refused(
        &MINIMAL.replace("role = \"backup\"", "role = \"primary\""),
        &["standin.toml:12: backend[1].role", "\"primary\" is the primary already"],
    );
}

#[test]
fn loops_and_colliding_listeners_are_refused() {
    check_refused(&MINIMAL.replace("127.0.0.1:6390", "localhost:6380"), &["backend[1].address", "`listen.address`"]);
    check_refused(&MINIMAL.replace("127.0.0.1:6390", "0.0.0.0:9180"), &["backend[1].address", "`control.address`"]);
    check_refused(
        &MINIMAL.replace("127.0.0.1:9180", "127.0.0.1:6380"),
        &["control.address", "`listen.address` listens"],
    );
    check_refused(&minimal_and("[observe]\naddress = \"0.0.0.0:9180\"\n"), &["standin.toml:15: observe.address"]);
    check_refused(&TWO_GROUPS.replace("6381", "6380"), &["group[1].listen.address", "`group[0].listen.address`"]);
}

#[test]
fn a_server_is_no_backup_of_itself() {
    check_refused(&MINIMAL.replace("127.0.0.1:6390", "localhost:6379"), &["backend[1].address", "no backup of itself"]);
}

#[test]
fn groups_and_the_flat_form_do_not_mix() {
    let errors = errors(&format!("{TWO_GROUPS}[listen]\naddress = \"127.0.0.1:1\"\n[[backend]]\nname = \"x\"\n"));
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].starts_with("standin.toml:26: listen: with [[group]]"), "{}", errors[0]);
    assert!(errors[1].contains("[[group.backend]]"), "{}", errors[1]);
}

#[test]
fn groups_need_names_of_their_own_and_backends() {
    check_refused(&TWO_GROUPS.replace("\"sessions\"", "\"cache\""), &["group[1].name", "rename one of the groups"]);
    check_refused(&TWO_GROUPS.replace("name = \"sessions\"\n", ""), &["group[1].name", "missing"]);
    check_refused("[[group]]\nname = \"a\"\nlisten.address = \"127.0.0.1:0\"\n", &["[[group.backend]]"]);
}

#[test]
fn a_wrong_policy_key_is_said_once_whatever_the_number_of_groups() {
    check_refused(&TWO_GROUPS.replace("floor = \"400ms\"", "flor = \"400ms\""), &["standin.toml:4: timeout.flor"]);
    check_refused(&TWO_GROUPS.replace("floor = \"400ms\"", "floor = 400"), &["standin.toml:4: timeout.floor"]);
}

#[test]
fn names_that_would_share_variables_are_refused() {
    let text = minimal_and("[[backend]]\nname = \"backup_a\"\nrole = \"backup\"\naddress = \"127.0.0.1:6391\"\n");
    check_refused(&text, &["standin.toml:15: backend[2].name", "environment variables"]);
    check_refused(&MINIMAL.replace("backup-a", "back up"), &["backend[1].name", "is no name"]);
}

#[test]
fn a_control_port_for_everybody_needs_a_token() {
    let open = MINIMAL.replace("127.0.0.1:9180", "0.0.0.0:9180");
    check_refused(&open, &["standin.toml:5: control.address", "`control.token`"]);
    parsed(&open.replace("[control]", "[control]\ntoken = \"t\""));
}

#[test]
fn times_that_contradict_each_other_are_refused() {
    for (more, key) in [
        ("[timeout]\nfloor = \"3s\"\n", "timeout.floor"),
        ("[timeout]\nconnect = \"3s\"\n", "timeout.connect"),
        ("[timeout]\nrequest = \"40s\"\n", "timeout.request"),
        ("[failover]\nhold = \"3s\"\n", "failover.hold"),
        ("[retry]\nbackoff_min = \"1s\"\n", "retry.backoff_min"),
        ("[links]\nreconnect_min = \"1s\"\n", "links.reconnect_min"),
        ("[recovery]\ndelay = \"10m\"\n", "recovery.delay"),
    ] {
        check_refused(&minimal_and(more), &["standin.toml:15: ", key, "this is longer than"]);
    }
}

#[test]
fn a_plan_that_does_not_exist_is_refused_with_those_that_do() {
    check_refused(
        &minimal_and("[recovery]\nplan = \"sometimes\"\n"),
        &["not known here", "\"immediate\"", "\"canary\""],
    );
}

#[test]
fn keys_without_effect_are_refused() {
    let embedded = |more: &str| MINIMAL.replace("\"127.0.0.1:6390\"", &format!("\"embedded\"\n{more}"));
    parsed(&embedded(""));
    for more in
        ["database = 1", "persistent = true", "data = \"replica\"", "password = \"x\"", "tls.ca = \"/dev/null\""]
    {
        assert!(errors(&embedded(more)).iter().any(|error| error.contains("embedded store")), "{more}");
    }
    check_refused(
        &MINIMAL.replace("\"127.0.0.1:6390\"", "\"unix:/run/r.sock\"\ntls.insecure_skip_verify = true"),
        &["no TLS"],
    );
    check_refused(&minimal_and("username = \"u\"\n"), &["backend[1].username", "a user needs a password"]);
    check_refused(&MINIMAL.replace("6379\"", "6379\"\ndata = \"replica\""), &["backend[0].data"]);
}

#[test]
fn secrets_are_read_at_load_and_the_reason_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let file = minimal_and(&format!("password = \"file:{}\"\n", path.display()));
    check_refused(&file, &["standin.toml:14: backend[1].password", "cannot read the file"]);
    std::fs::write(&path, "").unwrap();
    check_refused(&file, &["it is empty"]);
    std::fs::write(&path, "hunter2\n").unwrap();
    let password = parsed(&file).groups[0].backends[1].password.clone().unwrap();
    assert_eq!(password.read().unwrap().expose_secret(), "hunter2");
    std::fs::write(&path, "rotated\n").unwrap();
    assert_eq!(password.read().unwrap().expose_secret(), "rotated", "a rotated password is found on the next read");

    let variable = minimal_and("password = \"env:CACHE_PASSWORD\"\n");
    check_refused(&variable, &["environment variable CACHE_PASSWORD is not set"]);
    let config = parsed_with(&variable, &[("CACHE_PASSWORD", "from-env")]).unwrap();
    let password = config.groups[0].backends[1].password.clone().unwrap();
    assert_eq!(password.read().unwrap().expose_secret(), "from-env");

    check_refused(&minimal_and("password = \"exec:exit 3\"\n"), &["ended with exit status: 3"]);
    let config = parsed(&minimal_and("password = \"exec:printf abc\"\n"));
    let password = config.groups[0].backends[1].password.clone().unwrap();
    assert_eq!(password.read().unwrap().expose_secret(), "abc");
}

#[test]
fn no_secret_is_shown_by_debug_errors_or_the_effective_configuration() {
    let text = MINIMAL
        .replace("[control]", "password = \"hunter2\"\n[control]\ntoken = \"hunter2\"")
        .replace("127.0.0.1:6390", "redis://:hunter2@127.0.0.1:6390");
    let config = parsed(&text);
    assert!(!format!("{config:?}").contains("hunter2"));
    let described = describe_effective(&config).to_string();
    assert!(!described.contains("hunter2") && described.contains("***"), "{described}");
    let errors = errors(&text.replace("127.0.0.1:6390", "127.0.0.1:99999"));
    assert!(!errors.join("\n").contains("hunter2"), "{errors:#?}");
}

#[test]
fn tls_files_must_be_there_and_hold_what_they_should() {
    let directory = tempfile::tempdir().unwrap();
    let named = rcgen::generate_simple_self_signed(vec!["standin.test".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let text = MINIMAL.replace(
        "[control]",
        &format!("tls.cert = \"{}\"\ntls.key = \"{}\"\n[control]", cert.display(), key.display()),
    );
    let missing = errors(&text);
    assert_eq!(missing.len(), 2, "{missing:#?}");
    assert!(missing[0].starts_with("standin.toml:4: listen.tls.cert: cannot read"), "{}", missing[0]);
    std::fs::write(&cert, named.cert.pem()).unwrap();
    std::fs::write(&key, named.cert.pem()).unwrap();
    check_refused(&text, &["listen.tls.key", "holds no PEM private key"]);
    std::fs::write(&key, named.signing_key.serialize_pem()).unwrap();
    assert!(parsed(&text).groups[0].listen.tls.is_some());
    let backend = errors(&minimal_and("tls.cert = \"/nonexistent\"\n"));
    assert!(backend.iter().any(|error| error.contains("backend[1].tls.cert: cannot read")), "{backend:#?}");
    assert!(backend.iter().any(|error| error.contains("give both or neither")), "{backend:#?}");
}

#[test]
fn a_variable_that_a_secret_names_may_begin_like_a_keys() {
    let text = minimal_and("password = \"env:STANDIN_CACHE_PASSWORD\"\n");
    let config = parsed_with(&text, &[("STANDIN_CACHE_PASSWORD", "p")]).unwrap();
    assert!(config.groups[0].backends[1].password.is_some());
}

#[test]
fn variables_alone_turn_tls_on_and_only_for_the_backend_that_they_name() {
    let more = "[[backend]]\nname = \"backup-a-tls\"\nrole = \"backup\"\naddress = \"127.0.0.1:6391\"\n";
    let variables =
        [("STANDIN_BACKEND_BACKUP_A_TLS_ADDRESS", "127.0.0.1:1"), ("STANDIN_BACKEND_PRIMARY_TLS_SERVER_NAME", "x")];
    let config = parsed_with(&minimal_and(more), &variables).unwrap();
    let backends = &config.groups[0].backends;
    assert_eq!(backends[2].address.to_string(), "127.0.0.1:1");
    assert_eq!(backends[1].tls, None);
    assert_eq!(backends[0].tls.as_ref().and_then(|tls| tls.server_name.as_deref()), Some("x"));
}

#[tokio::test]
async fn a_secret_is_fetched_within_a_runtime_as_it_is_read_outside() {
    let secret = Secret::parse("exec:echo fetched", |_| None);
    assert_eq!(secret.fetch().await.unwrap().expose_secret(), "fetched");
    assert!(Secret::parse("file:/nonexistent", |_| None).fetch().await.is_err());
    assert_eq!(Secret::parse("literal:env:x", |_| None).fetch().await.unwrap().expose_secret(), "env:x");
}

#[test]
fn rediss_turns_tls_on() {
    let config = parsed(&MINIMAL.replace("127.0.0.1:6390", "rediss://127.0.0.1:6390"));
    assert_eq!(config.groups[0].backends[1].tls, Some(BackendTls::default()));
}

#[test]
fn a_wrong_log_filter_is_refused() {
    check_refused(
        &minimal_and("[log]\nlevel = \"standin=loudest\"\n"),
        &["standin.toml:15: log.level", "no log filter"],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_error() {
    let error = load(std::path::Path::new("/nonexistent/standin.toml"), std::iter::empty()).unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/standin.toml: cannot read this file"), "{error}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        at in 0..2_000_usize,
        cut in 0..40_usize,
        put in "[\\[\\]a-z0-9=\"\n.{}#, -]{0,12}",
    ) {
        let mut text = TWO_GROUPS.to_owned();
        let at = at % text.len();
        text.replace_range(at..(at + cut).min(TWO_GROUPS.len()), &put);
        if let Err(errors) = parsed_with(&text, &[]) {
            assert!(!errors.0.is_empty());
        }
    }
}
