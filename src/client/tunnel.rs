//! A client that became a replica (SYNC, PSYNC): its connection is joined to one of its own to the backend, byte by byte.

use std::rc::Rc;

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use super::context::Context;
use crate::backend::{self, Depth, HandshakeError, Io, Lane};
use crate::policy::BackendId;
use crate::resp;

pub(super) async fn run(
    context: &Rc<Context>,
    mut client: Io,
    introduction: &[Vec<u8>],
    request: &[u8],
    lane: Lane,
    backend: BackendId,
) {
    let login = context.login(backend, lane.user);
    let backend = context.group.backend(backend);
    let server = match backend::connect(backend, lane, &login, Depth::Brief).await {
        Ok(mut ready) => {
            // The server has answered the same before, so that only the connection itself can fail here.
            let words: Vec<Vec<&[u8]>> = introduction.iter().map(|said| resp::arguments(said).collect()).collect();
            let said = ready.conversation.ask_within(backend.timing.handshake, &words).await;
            said.map_err(HandshakeError::Broken).map(|_| ready.conversation.into_io())
        }
        Err(error) => Err(error),
    };
    match server {
        Ok(Some(mut server)) => {
            if server.write_all(request).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Ok(None) => {}
        Err(error) => {
            let _ = client.write_all(format!("-NOBACKEND {error}\r\n").as_bytes()).await;
        }
    }
}
