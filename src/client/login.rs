//! AUTH and HELLO: who a client is. Passwords are compared in constant time and read anew, since they rotate.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::session::{Notice, Session};
use super::settings::User;
use super::special::Step;
use super::task::SessionTask;
use crate::backend::{self, Depth, HandshakeError, Lane, Login, Owner as _, clock};
use crate::config::Secret;
use crate::resp::{self, Protocol, write};
use crate::route::Availability;

/// What became of a login, with what was to follow it.
pub(super) struct Outcome {
    seq: u32,
    /// The backend login of the user, or the error.
    login: Result<(u16, String), String>,
    hello: Option<Hello>,
}

struct Hello {
    protocol: Protocol,
    name: Option<String>,
}

/// Between two attempts to have a server judge a login while the active backend does not answer.
const LOGIN_PAUSE: Duration = Duration::from_millis(10);
const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD_CONFIGURED: &str = "ERR AUTH <password> called without any password configured for the default user. \
                                      Are you sure your configuration is correct?";
const HELLO_NEEDS_LOGIN: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
                                 <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
                                 RESP protocol version at the same time";

impl SessionTask {
    pub(super) fn auth(&mut self, request: &[u8]) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        let arguments: Vec<&[u8]> = resp::arguments(request).skip(1).collect();
        let settings = &self.session.context.settings;
        let (user, password) = match arguments[..] {
            [password] if settings.passes_logins() => (None, password),
            [_] if !settings.requires_login => return self.local_error(NO_PASSWORD_CONFIGURED),
            [password] => (Some(b"default".as_slice()), password),
            [user, password] => (Some(user), password),
            _ => return self.local_error("ERR syntax error"),
        };
        let (user, password) = (user.map(<[u8]>::to_vec), password.to_vec());
        self.log_in(user, password, None)
    }

    /// HELLO [version [AUTH user password] [SETNAME name]]
    pub(super) fn hello(&mut self, request: &[u8]) -> Step {
        if self.must_settle() {
            return Step::Wait;
        }
        let arguments: Vec<&[u8]> = resp::arguments(request).skip(1).collect();
        let mut protocol = self.state.protocol;
        let mut rest = arguments.as_slice();
        if let [version, following @ ..] = rest {
            protocol = match *version {
                b"2" => Protocol::Resp2,
                b"3" => Protocol::Resp3,
                other if other.iter().all(u8::is_ascii_digit) => {
                    return self.local_error("NOPROTO unsupported protocol version");
                }
                _ => return self.local_error("ERR Protocol version is not an integer or out of range"),
            };
            rest = following;
        }
        let mut name = None;
        let mut credentials = None;
        loop {
            rest = match rest {
                [] => break,
                [word, user, password, following @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    credentials = Some((user.to_vec(), password.to_vec()));
                    following
                }
                [word, text, following @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                    let Some(valid) = valid_name(text) else { return self.local_error(INVALID_NAME) };
                    name = Some(valid);
                    following
                }
                [word, ..] => {
                    let text = format!("ERR Syntax error in HELLO option '{}'", String::from_utf8_lossy(word));
                    return self.local_error(&text);
                }
            };
        }
        let hello = Hello { protocol, name };
        match credentials {
            Some((user, password)) => self.log_in(Some(user), password, Some(hello)),
            None if !self.state.is_authenticated => self.local_error(HELLO_NEEDS_LOGIN),
            None => {
                let seq = self.place_own();
                self.greet(seq, hello);
                Step::Consumed
            }
        }
    }

    /// Compares credentials off the path, since a secret may have to be read from a file or a command. A front door with
    /// no users of its own has the server judge them.
    fn log_in(&mut self, user: Option<Vec<u8>>, password: Vec<u8>, hello: Option<Hello>) -> Step {
        let session = self.session.clone();
        let seq = self.place_own();
        if let Some(completing) = &mut self.state.completing {
            completing.waits_for_login = true;
        }
        self.state.awaited += 1;
        tokio::task::spawn_local(async move {
            let login = if session.context.settings.passes_logins() {
                ask_server(&session, user, password).await
            } else {
                let user = user.unwrap_or_default();
                compare(&session, &user, &password).await.map_err(str::to_owned)
            };
            session.notify(Notice::Login(Box::new(Outcome { seq, login, hello })));
        });
        Step::Consumed
    }

    pub(super) fn logged_in(&mut self, outcome: Outcome) {
        self.state.awaited -= 1;
        match outcome.login {
            Err(text) => self.answer_in_mode(outcome.seq, format!("-{text}\r\n").as_bytes()),
            Ok((login, name)) => {
                self.state.is_authenticated = true;
                if self.state.login != login {
                    self.state.login = login;
                    self.link = None;
                    self.leave_other_rights();
                    self.renew_second_of_other_lane();
                }
                self.session.record.update(|shown| shown.user = name);
                match outcome.hello {
                    Some(hello) => self.greet(outcome.seq, hello),
                    None => self.answer_in_mode(outcome.seq, b"+OK\r\n"),
                }
            }
        }
        self.go_on_with_exec();
    }

    /// The place of a reply in the session's order; one that is captured needs none.
    fn place_own(&self) -> u32 {
        if self.state.captured.is_some() { 0 } else { self.session.output.place() }
    }

    /// A connection of the client's own has the rights of the user that it was opened for. What it holds moves to one of
    /// the new user's; a WATCH cannot, and lets EXEC answer nil.
    fn leave_other_rights(&mut self) {
        let Some(pinned) = self.state.pinned.clone() else { return };
        if self.state.needs_pin() {
            pinned.set_owner(None);
            let left = pinned.abort();
            self.pinned_lost(&pinned, left);
        } else {
            self.release_pinned();
        }
    }

    fn greet(&mut self, seq: u32, hello: Hello) {
        let context = std::rc::Rc::clone(&self.session.context);
        let (active, ..) = context.route_facts();
        self.set_protocol(hello.protocol);
        if let Some(name) = hello.name {
            self.session.record.update(|shown| shown.name = name);
        }
        let protocol = hello.protocol;
        let mut out = Vec::with_capacity(160);
        write::map_len(&mut out, 7, protocol);
        write::bulk(&mut out, b"server");
        write::bulk(&mut out, b"redis");
        write::bulk(&mut out, b"version");
        write::bulk(&mut out, context.version(active).as_bytes());
        write::bulk(&mut out, b"proto");
        write::integer(&mut out, if protocol == Protocol::Resp3 { 3 } else { 2 });
        write::bulk(&mut out, b"id");
        write::integer(&mut out, self.session.record.id as i64);
        write::bulk(&mut out, b"mode");
        write::bulk(&mut out, b"standalone");
        write::bulk(&mut out, b"role");
        write::bulk(&mut out, b"master");
        write::bulk(&mut out, b"modules");
        write::array_len(&mut out, 0);
        self.answer_in_mode(seq, &out);
    }
}

pub(super) const INVALID_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// A client name as Redis takes it: printable, no spaces.
pub(super) fn valid_name(text: &[u8]) -> Option<String> {
    let is_valid = text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    is_valid.then(|| String::from_utf8_lossy(text).into_owned())
}

/// Whether the server that serves now takes these credentials; if so, requests go to it in this user's name.
async fn ask_server(session: &Session, user: Option<Vec<u8>>, password: Vec<u8>) -> Result<(u16, String), String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| WRONG_PASSWORD.to_owned());
    let username = user.map(text).transpose()?;
    let name = username.clone().unwrap_or_else(|| "default".to_owned());
    let password = text(password)?;
    let login = Login { username, password: Some(Secret::given(password.as_str())), is_clients: true };
    let context = &session.context;
    let bound = context.settings.request_timeout.as_micros() as u64;
    let began_us = clock::micros();
    let lane = Lane { database: 0, protocol: Protocol::Resp2, user: u16::MAX };
    loop {
        let (active, availability, _) = context.route_facts();
        match backend::connect(context.group.backend(active), lane, &login, Depth::Brief).await {
            Ok(_) => break,
            Err(HandshakeError::User(refusal)) => return Err(refusal),
            // A login waits for the backend that is entered next as long as any other request would.
            Err(error) => {
                let since_us = match availability {
                    Availability::NoBackend { since_us } => since_us,
                    _ => began_us,
                };
                if clock::micros().saturating_sub(since_us) >= bound || session.is_gone() {
                    return Err(format!("NOBACKEND the login cannot be checked: {error}"));
                }
            }
        }
        tokio::time::sleep(LOGIN_PAUSE).await;
    }
    match context.remember_login(login, &password) {
        Some(index) => Ok((index, name)),
        None => Err("OVERLOADED too many different logins".to_owned()),
    }
}

/// Compares with every user, so that the time taken tells nothing of which one exists.
async fn compare(session: &Session, user: &[u8], password: &[u8]) -> Result<(u16, String), &'static str> {
    let users: &[User] = &session.context.settings.users;
    if user == b"default" && !session.context.settings.requires_login {
        // As a server without passwords: for its user `default` any password is right.
        return Ok((0, "default".to_owned()));
    }
    let mut found = None;
    for candidate in users {
        let Ok(secret) = candidate.password.fetch().await else { continue };
        let same_user = candidate.name.as_bytes().ct_eq(user);
        let same_password = secret.expose_secret().as_bytes().ct_eq(password);
        if bool::from(same_user & same_password) {
            found = Some((candidate.login, candidate.name.clone()));
        }
    }
    found.ok_or(WRONG_PASSWORD)
}
