//! Stories over an in-memory stream: what only connections show.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::{TestClock, short};
use crate::embedded::{ServerOptions, Store, serve, serve_connection};
use crate::resp::{FrameLimits, ReplyScanner};

struct Client {
    io: DuplexStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(store: &Store) -> Self {
        Self::connect_with(store, ServerOptions::default())
    }

    fn connect_with(store: &Store, options: ServerOptions) -> Self {
        let (io, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve_connection(store.clone(), server, options));
        Self { io, received: Vec::new() }
    }

    async fn send(&mut self, line: &str) {
        self.io.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// The next reply in short form; `closed` at the end of the stream.
    async fn reply(&mut self) -> String {
        loop {
            let frame = ReplyScanner::default().scan(&self.received, &FrameLimits::default()).unwrap();
            if let Some(length) = frame {
                let reply = short(&self.received[..length]);
                self.received.drain(..length);
                return reply;
            }
            if self.io.read_buf(&mut self.received).await.unwrap() == 0 {
                return "closed".into();
            }
        }
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(line).await;
        self.reply().await
    }
}

fn store() -> Store {
    Store::new(TestClock::new().options())
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_and_in_one_piece() {
    let store = store();
    let mut client = Client::connect(&store);
    client
        .io
        .write_all(
            &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n*1\r\n$4\r\nPI"[..],
        )
        .await
        .unwrap();
    let mut piece = vec![0; 100];
    let length = client.io.read(&mut piece).await.unwrap();
    assert_eq!(&piece[..length], b"+OK\r\n$1\r\nv\r\n+PONG\r\n");
    client.io.write_all(b"NG\r\n").await.unwrap();
    assert_eq!(client.reply().await, "PONG");
}

#[tokio::test]
async fn broken_framing_gets_an_error_and_a_close() {
    let store = store();
    let mut client = Client::connect(&store);
    client.io.write_all(b"*1\r\n:5\r\n").await.unwrap();
    assert_eq!(client.reply().await, "-ERR Protocol error: expected '$', got ':'");
    assert_eq!(client.reply().await, "closed");
}

#[tokio::test]
async fn the_handshake_is_what_a_proxy_asks_for() {
    let store = store();
    let options = ServerOptions { password: Some("secret".into()), ..ServerOptions::default() };
    let mut client = Client::connect_with(&store, options);
    assert_eq!(client.ask("get k").await, "-NOAUTH Authentication required.");
    assert_eq!(client.ask("auth wrong").await, "-WRONGPASS invalid username-password pair or user is disabled.");
    assert!(client.ask("hello 3").await.starts_with("-NOAUTH HELLO must be called"));
    let hello = client.ask("hello 3 auth default secret setname me").await;
    assert!(hello.starts_with("{\"server\" \"redis\" \"version\" \"7.0.0\" \"proto\" 3 \"id\" 1"), "{hello}");
    assert_eq!(client.ask("client getname").await, "\"me\"");
    assert_eq!(client.ask("role").await, "[\"master\" 0 []]");
    let info = client.ask("info").await;
    for field in ["run_id:", "role:master", "master_replid:", "loading:0", "maxmemory:"] {
        assert!(info.contains(field), "{field} is missing in {info}");
    }
    assert!(client.ask("client list").await.contains("name=me"));
    assert_eq!(client.ask("hello 9").await, "-NOPROTO unsupported protocol version");
    assert_eq!(client.ask("get k").await, "nil");
    assert_eq!(
        client.ask("client maint_notifications on").await,
        "-ERR unknown subcommand 'maint_notifications'. Try CLIENT HELP."
    );
    assert_eq!(client.ask("reset").await, "RESET");
    assert_eq!(client.ask("get k").await, "-NOAUTH Authentication required.");
    assert_eq!(client.ask("quit").await, "OK");
    assert_eq!(client.reply().await, "closed");
}

#[tokio::test]
async fn a_watched_key_that_changes_aborts_the_transaction() {
    let store = store();
    let (mut client, mut other) = (Client::connect(&store), Client::connect(&store));
    assert_eq!(client.ask("watch k").await, "OK");
    assert_eq!(other.ask("set k theirs").await, "OK");
    assert_eq!(client.ask("multi").await, "OK");
    assert_eq!(client.ask("set k mine").await, "QUEUED");
    assert_eq!(client.ask("exec").await, "nil-array");
    assert_eq!(client.ask("watch k").await, "OK");
    assert_eq!(client.ask("multi").await, "OK");
    assert_eq!(client.ask("set k mine").await, "QUEUED");
    assert_eq!(client.ask("lpush k x").await, "QUEUED");
    assert_eq!(client.ask("exec").await, "[OK -WRONGTYPE Operation against a key holding the wrong kind of value]");
    assert_eq!(client.ask("multi").await, "OK");
    assert!(client.ask("nonsense").await.starts_with("-ERR unknown command"));
    assert_eq!(client.ask("exec").await, "-EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(client.ask("exec").await, "-ERR EXEC without MULTI");
    assert_eq!(client.ask("multi").await, "OK");
    assert_eq!(client.ask("blpop none 0").await, "QUEUED");
    assert_eq!(client.ask("exec").await, "[nil-array]");
}

#[tokio::test]
async fn blocked_clients_are_served_first_come_first_served() {
    let store = store();
    let (mut first, mut second, mut pusher) =
        (Client::connect(&store), Client::connect(&store), Client::connect(&store));
    first.send("blpop q 0").await;
    while !pusher.ask("info clients").await.contains("blocked_clients:1") {}
    second.send("blmove q done left right 5").await;
    while !pusher.ask("info clients").await.contains("blocked_clients:2") {}
    assert_eq!(pusher.ask("rpush q a b c").await, "3");
    assert_eq!(pusher.ask("llen q").await, "1");
    assert_eq!(first.reply().await, "[\"q\" \"a\"]");
    assert_eq!(second.reply().await, "\"b\"");
    assert_eq!(pusher.ask("lrange done 0 -1").await, "[\"b\"]");
}

#[tokio::test]
async fn a_blocked_client_gets_null_when_its_time_is_up_and_its_later_requests_after_that() {
    let store = store();
    let mut client = Client::connect(&store);
    let started = std::time::Instant::now();
    client.send("blpop q 0.05").await;
    client.send("ping").await;
    assert_eq!(client.reply().await, "nil-array");
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(client.reply().await, "PONG");
    assert_eq!(client.ask("blpop q -1").await, "-ERR timeout is negative");
    assert_eq!(client.ask("blpop q x").await, "-ERR timeout is not a float or out of range");
}

#[tokio::test]
async fn a_blocked_client_that_leaves_takes_no_element() {
    let store = store();
    let (mut client, mut other) = (Client::connect(&store), Client::connect(&store));
    client.send("blpop q 0").await;
    while !other.ask("info clients").await.contains("blocked_clients:1") {}
    drop(client);
    while !other.ask("info clients").await.contains("blocked_clients:0") {}
    assert_eq!(other.ask("rpush q a").await, "1");
    assert_eq!(other.ask("llen q").await, "1");
}

#[tokio::test]
async fn messages_reach_subscribers_in_order() {
    let store = store();
    let (mut subscriber, mut publisher) = (Client::connect(&store), Client::connect(&store));
    assert_eq!(subscriber.ask("subscribe news").await, "[\"subscribe\" \"news\" 1]");
    assert_eq!(subscriber.ask("psubscribe n*").await, "[\"psubscribe\" \"n*\" 2]");
    assert_eq!(publisher.ask("publish news hi").await, "2");
    assert_eq!(subscriber.reply().await, "[\"message\" \"news\" \"hi\"]");
    assert_eq!(subscriber.reply().await, "[\"pmessage\" \"n*\" \"news\" \"hi\"]");
    assert!(subscriber.ask("get k").await.starts_with("-ERR Can't execute 'get'"));
    assert_eq!(subscriber.ask("ping").await, "[\"pong\" \"\"]");
    assert_eq!(publisher.ask("pubsub numsub news").await, "[\"news\" 1]");
    assert_eq!(subscriber.ask("unsubscribe").await, "[\"unsubscribe\" \"news\" 1]");
    assert_eq!(subscriber.ask("punsubscribe").await, "[\"punsubscribe\" \"n*\" 0]");
    assert_eq!(publisher.ask("publish news hi").await, "0");
    assert!(subscriber.ask("hello 3").await.starts_with('{'));
    assert_eq!(subscriber.ask("subscribe news").await, ">[\"subscribe\" \"news\" 1]");
    assert_eq!(subscriber.ask("get k").await, "nil");
    assert_eq!(publisher.ask("publish news again").await, "1");
    assert_eq!(subscriber.reply().await, ">[\"message\" \"news\" \"again\"]");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_closed() {
    let store = store();
    let (mut subscriber, mut publisher) = (Client::connect(&store), Client::connect(&store));
    assert_eq!(subscriber.ask("subscribe news").await, "[\"subscribe\" \"news\" 1]");
    let message = "x".repeat(60_000);
    let mut published = 0;
    while publisher.ask(&format!("publish news {message}")).await == "1" {
        published += 1;
        assert!(published < 1000, "nothing bounds what a slow subscriber holds");
    }
    assert!(!publisher.ask("client list type pubsub").await.contains("sub=1"));
}

#[tokio::test]
async fn a_killed_client_is_gone_and_the_killer_gets_its_reply() {
    let store = store();
    let (mut client, mut killer) = (Client::connect(&store), Client::connect(&store));
    let id = client.ask("client id").await;
    assert_eq!(killer.ask(&format!("client kill id {id}")).await, "1");
    assert_eq!(client.reply().await, "closed");
    assert_eq!(killer.ask(&format!("client kill id {id}")).await, "0");
    assert_eq!(killer.ask("client kill 1.2.3.4:5").await, "-ERR No such client");
    let own = killer.ask("client id").await;
    assert_eq!(killer.ask(&format!("client kill id {own} skipme no")).await, "1");
    assert_eq!(killer.reply().await, "closed");
}

#[tokio::test]
async fn replies_are_withheld_when_the_client_asks_for_that() {
    let store = store();
    let mut client = Client::connect(&store);
    client.send("client reply skip").await;
    client.send("set k 1").await;
    assert_eq!(client.ask("get k").await, "\"1\"");
    client.send("client reply off").await;
    client.send("set k 2").await;
    assert_eq!(client.ask("client reply on").await, "OK");
    assert_eq!(client.ask("get k").await, "\"2\"");
}

#[tokio::test]
async fn a_shutdown_closes_every_connection_and_frees_the_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, store(), shutdown.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"CLIENT LIST\r\n").await.unwrap();
    let mut reply = vec![0; 1024];
    let length = client.read(&mut reply).await.unwrap();
    let listed = String::from_utf8_lossy(&reply[..length]).into_owned();
    assert!(listed.contains(&format!("addr={}", client.local_addr().unwrap())), "{listed}");
    shutdown.cancel();
    server.await.unwrap().unwrap();
    assert_eq!(client.read(&mut reply).await.unwrap(), 0);
    tokio::net::TcpListener::bind(address).await.unwrap();
}

#[tokio::test]
async fn a_read_only_connection_refuses_writes() {
    let store = store();
    let mut client = Client::connect_with(&store, ServerOptions { read_only: true, ..ServerOptions::default() });
    assert_eq!(client.ask("set k v").await, "-READONLY You can't write against a read only replica.");
    assert_eq!(client.ask("get k").await, "nil");
}

#[tokio::test]
async fn unblocking_by_another_client_answers_the_blocked_one() {
    let store = store();
    let (mut client, mut other) = (Client::connect(&store), Client::connect(&store));
    let id = client.ask("client id").await;
    client.send("blpop q 0").await;
    while !other.ask("info clients").await.contains("blocked_clients:1") {}
    assert_eq!(other.ask(&format!("client unblock {id} error")).await, "1");
    assert_eq!(client.reply().await, "-UNBLOCKED client unblocked via CLIENT UNBLOCK");
    assert_eq!(other.ask(&format!("client unblock {id}")).await, "0");
    assert_eq!(client.ask("ping").await, "PONG");
}
