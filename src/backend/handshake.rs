//! What is said on a new connection before a request is written: who we are, which database and protocol, and who the
//! server is (its run id), so that nothing is ever sent to a server whose content is another than the one admitted.

use std::io;
use std::str::FromStr as _;

use secrecy::ExposeSecret as _;

use super::conversation::{Conversation, Reply};
use super::shared::{Backend, Identity};
use super::target::Login;
use crate::policy::{Cause, Edge, NotReadyWord};
use crate::resp::Protocol;

/// The kind of link that a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Database on the server.
    pub database: u32,
    pub protocol: Protocol,
    /// Index into the logins of the group: 0 is the backend's own, the others belong to `listen.users`.
    pub user: u16,
}

/// A connection that is ready for requests.
pub struct Ready {
    pub conversation: Conversation,
    /// The server's id of this connection; 0 where the server does not tell.
    pub client_id: u64,
    pub identity: Identity,
}

/// Why a connection did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("connect: {0}")]
    Connect(io::Error),
    #[error("handshake: {0}")]
    Broken(io::Error),
    #[error("connect timed out")]
    ConnectTimedOut,
    #[error("handshake timed out")]
    TimedOut,
    #[error("login refused: {0}")]
    Authentication(String),
    /// Of a user of `listen.users`; nothing is wrong with the server or with our own login.
    #[error("login of the client's user refused: {0}")]
    User(String),
    #[error("database refused: {0}")]
    Database(String),
    #[error("server not ready: {0}")]
    NotReady(String),
    #[error("server overloaded: {0}")]
    Overloaded(String),
}

impl HandshakeError {
    /// What the decision makers are told.
    #[must_use]
    pub fn edge(&self) -> Option<Edge> {
        Some(match self {
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => Edge::ConnectRefused,
            // A removed socket file is how a dead server on a unix socket refuses.
            Self::Connect(error) if error.kind() == io::ErrorKind::NotFound => Edge::ConnectRefused,
            Self::Connect(_) => Edge::ConnectFailed,
            Self::Broken(_) | Self::Overloaded(_) => Edge::HandshakeReset,
            Self::ConnectTimedOut => Edge::ConnectTimedOut,
            Self::TimedOut => Edge::HandshakeTimedOut,
            Self::Authentication(_) | Self::User(_) => Edge::AuthenticationFailed,
            Self::NotReady(text) => Edge::NotReady(not_ready_word(text)),
            Self::Database(_) => return None,
        })
    }
}

fn not_ready_word(text: &str) -> NotReadyWord {
    cause_of(text).not_ready_word().unwrap_or(NotReadyWord::Loading)
}

fn cause_of(text: &str) -> Cause {
    Cause::of_error_word(text.split(' ').next().unwrap_or_default().as_bytes())
}

/// How much is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Role, loading and cluster state too: links and probes.
    Whole,
    /// Only the run id: connections that a client's command waits for.
    Brief,
}

/// Connects and says everything that comes before requests, within the configured times.
///
/// # Errors
/// See [`HandshakeError`]; nothing of a client's was sent in any of its cases.
pub async fn connect(backend: &Backend, lane: Lane, login: &Login, depth: Depth) -> Result<Ready, HandshakeError> {
    let timing = &backend.timing;
    let io = tokio::time::timeout(timing.connect, backend.target.connect(timing))
        .await
        .map_err(|_| HandshakeError::ConnectTimedOut)?
        .map_err(HandshakeError::Connect)?;
    let mut conversation = Conversation::new(io);
    let ready = tokio::time::timeout(timing.handshake, greet(backend, &mut conversation, lane, login, depth)).await;
    let (client_id, identity) = ready.map_err(|_| HandshakeError::TimedOut)??;
    Ok(Ready { conversation, client_id, identity })
}

async fn greet(
    backend: &Backend,
    conversation: &mut Conversation,
    lane: Lane,
    login: &Login,
    depth: Depth,
) -> Result<(u64, Identity), HandshakeError> {
    let (requests, undead) = requests(backend, lane, login, depth).await?;
    let replies = conversation.ask(&requests).await.map_err(HandshakeError::Broken)?;
    let mut client_id = 0;
    let mut identity = Identity::default();
    let is_clients_own = login.is_clients && backend.target.login.password.is_none();
    for (at, (request, reply)) in requests.iter().zip(&replies).enumerate() {
        let command = request[0].as_str();
        if let Some(text) = reply.error() {
            if command == "AUTH" && (at > 0 || is_clients_own) {
                return Err(HandshakeError::User(text.to_owned()));
            }
            judge(command, text)?;
            identity.is_busy |= command == "INFO" && text.starts_with("BUSY ");
            continue;
        }
        match (command, request.get(1).map(String::as_str)) {
            ("CLIENT", Some("ID")) => client_id = reply.integer().and_then(|id| u64::try_from(id).ok()).unwrap_or(0),
            ("INFO", _) => read_info(reply, &mut identity),
            _ => {}
        }
    }
    if identity.run_id.is_empty() && !identity.is_busy && is_clients_own {
        ask_as_default(conversation, login, &mut identity).await?;
    }
    // CLIENT KILL was answered, with a count or "No such client": either proves that the connection is dead.
    backend.proven_dead(&undead);
    Ok((client_id, identity))
}

/// A client's user may lack the right to INFO: who the server is, we ask as the user `default`, which has no password.
async fn ask_as_default(
    conversation: &mut Conversation,
    login: &Login,
    identity: &mut Identity,
) -> Result<(), HandshakeError> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let login = authentication(login).await.map_err(HandshakeError::User)?.unwrap_or_default();
    let requests = [words(&["AUTH", "default", ""]), words(&["INFO", "server"]), login];
    let replies = conversation.ask(&requests).await.map_err(HandshakeError::Broken)?;
    read_info(&replies[1], identity);
    replies[2].error().map_or(Ok(()), |text| Err(HandshakeError::User(text.to_owned())))
}

/// The requests of a handshake, and the connections that it proves dead.
async fn requests(
    backend: &Backend,
    lane: Lane,
    login: &Login,
    depth: Depth,
) -> Result<(Vec<Vec<String>>, Vec<u64>), HandshakeError> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut requests = Vec::with_capacity(12);
    // A user of `listen.users` may have few rights, INFO not among them, and a server whose run id is not known cannot be
    // told from a restarted one. So we ask as ourselves, and become that user as the last thing before its requests.
    let own = authentication(&backend.target.login).await.map_err(HandshakeError::Authentication)?;
    match own {
        Some(own) => requests.push(own),
        // The server may want a login that only its clients know.
        None if login.is_clients => requests.extend(authentication(login).await.map_err(HandshakeError::User)?),
        None => {}
    }
    let is_user_already = backend.target.login.password.is_none() && login.is_clients;
    if lane.protocol == Protocol::Resp3 {
        requests.push(words(&["HELLO", "3"]));
    }
    let database = backend.database_on_server(lane.database);
    if database != 0 {
        requests.push(vec!["SELECT".to_owned(), database.to_string()]);
    }
    requests.push(words(&["CLIENT", "SETNAME", &backend.client_name]));
    requests.push(words(&["CLIENT", "ID"]));
    requests.push(words(&["INFO", "server"]));
    if depth == Depth::Whole {
        for section in ["replication", "persistence", "cluster"] {
            requests.push(words(&["INFO", section]));
        }
    }
    let undead = backend.undead();
    for id in &undead {
        requests.push(vec!["CLIENT".to_owned(), "KILL".to_owned(), "ID".to_owned(), id.to_string()]);
    }
    if lane.user != 0 && !is_user_already {
        requests.extend(authentication(login).await.map_err(HandshakeError::User)?);
    }
    Ok((requests, undead))
}

/// AUTH with a secret read this moment; none for a login without a password.
async fn authentication(login: &Login) -> Result<Option<Vec<String>>, String> {
    let Some(secret) = &login.password else { return Ok(None) };
    let secret = secret.fetch().await.map_err(|error| error.to_string())?;
    let mut auth = vec!["AUTH".to_owned()];
    auth.extend(login.username.clone());
    auth.push(secret.expose_secret().to_owned());
    Ok(Some(auth))
}

/// What an error reply within the handshake means; tolerated where the server merely keeps something from us.
fn judge(command: &str, text: &str) -> Result<(), HandshakeError> {
    let text = text.to_owned();
    // The one error whose first word does not tell: the server says it to a new connection and closes it.
    if text.starts_with("ERR max number of clients") {
        return Err(HandshakeError::Overloaded(text));
    }
    match cause_of(&text) {
        Cause::NotLoggedIn | Cause::WrongPassword => Err(HandshakeError::Authentication(text)),
        Cause::Loading | Cause::MasterDown | Cause::ClusterDown => Err(HandshakeError::NotReady(text)),
        _ => match command {
            "AUTH" => Err(HandshakeError::Authentication(text)),
            "HELLO" => Err(HandshakeError::Broken(io::Error::new(io::ErrorKind::Unsupported, text))),
            "SELECT" => Err(HandshakeError::Database(text)),
            _ => Ok(()),
        },
    }
}

/// Reads the lines of one section of INFO.
pub fn read_info(reply: &Reply, identity: &mut Identity) {
    for line in reply.text().unwrap_or_default().lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        match key {
            "run_id" => value.clone_into(&mut identity.run_id),
            // Valkey tells both; its compatibility version is what clients look at.
            "redis_version" => value.clone_into(&mut identity.version),
            "master_replid" => value.clone_into(&mut identity.replication_id),
            "master_replid2" => value.clone_into(&mut identity.earlier_replication_id),
            "role" => identity.is_replica = value == "slave",
            "loading" => identity.is_loading = u64::from_str(value).is_ok_and(|n| n != 0),
            "cluster_enabled" => identity.is_cluster = value == "1",
            _ => {}
        }
    }
}
